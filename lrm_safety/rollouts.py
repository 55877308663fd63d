"""What travels between the controller and the groups: prompts, rollouts, sequences to train on.

Everything is ragged numpy, never padded: response i has T_i action tokens (whatever the policy sampled, the
end-of-sequence token included when it was sampled). Token ids are the truth; text is rebuilt from them when needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

TokenIds = npt.NDArray[np.int32]
TokenValues = npt.NDArray[np.float32]


@dataclass(frozen=True)
class GenerationRequest:
    """One response to sample.

    `seed` is unique per (run seed, iteration, prompt, sample): two equal prompts with equal seeds would give equal
    responses in vLLM.
    """

    request_id: int
    """Position in the rollout batch, 0..N-1."""
    prompt_index: int
    """Row of the prompt in its data set."""
    prompt_ids: TokenIds
    """[P] rendered prompt."""
    seed: int


@dataclass(frozen=True)
class SamplingParameters:
    """How a batch of requests is sampled; the same for every request of the batch."""

    temperature: float
    top_p: float
    top_k: int
    """0: off."""
    max_response_tokens: int
    stop_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Rollout:
    """One sampled response as it leaves the engine."""

    request_id: int
    prompt_index: int
    prompt_ids: TokenIds
    """[P]"""
    response_ids: TokenIds
    """[T], T >= 1, the stop token included."""
    logprobs: TokenValues
    """[T] log-prob of each sampled token under the engine's sampling distribution (temperature applied)."""
    finish_reason: str
    """`stop` or `length`."""
    weights_version: int
    """Version of the weights that sampled it, or its first tokens."""
    taken_over: tuple[tuple[int, int], ...] = ()
    """(token, version) for each sync in its middle: from this token on that version sampled. Empty for almost all, so that a
    version for every token costs nothing."""

    @property
    def versions(self) -> TokenIds:
        """[T] the version of the weights that sampled each token."""
        starts, versions = zip((0, self.weights_version), *self.taken_over, strict=True)
        return np.repeat(np.asarray(versions, dtype=np.int32), np.diff([*starts, len(self.response_ids)]))

    @property
    def num_tokens(self) -> int:
        """Prompt and response tokens: what one forward pass of the trainer reads."""
        return len(self.prompt_ids) + len(self.response_ids)


@dataclass
class TrainingSequence:
    """One response with what the policy group needs to score it or learn from it. Optional fields are [T] float32."""

    index: int
    """Position in the rollout batch."""
    prompt_ids: TokenIds
    response_ids: TokenIds
    advantages: TokenValues | None = None
    old_logprobs: TokenValues | None = None
    """Log-probs under the policy that sampled; None in the first update on fresh rollouts: rho is 1 by construction."""
    rollout_logprobs: TokenValues | None = None
    """The engine's own log-probs, for the mismatch correction; None when the correction is off."""
    reference_logprobs: TokenValues | None = None
    """Only when the KL term is part of the loss."""

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


MicroBatch = list[TrainingSequence]
"""Sequences of one forward/backward; an empty one is a dummy that keeps the ranks' collectives in step."""


@dataclass
class MiniBatch:
    """One rank's share of one update (optimiser step)."""

    micro_batches: list[MicroBatch]
    """The same number on every rank."""
    global_tokens: int
    """Response tokens of the whole update, over every rank: the denominator of `token_mean`."""
    global_responses: int
    """Responses of the whole update, over every rank: the denominator of `sequence_mean`."""
    lr: float
    """Learning rate of this update."""
    kl_coef: float = 0.0
    """Weight of the KL loss; 0 when KL is not in the loss."""


@dataclass
class TokenScores:
    """Per-token results of a forward pass for one sequence."""

    index: int
    logprobs: TokenValues
    """[T] log-prob of each response token at the sampling temperature, float32."""
    entropy: TokenValues
    """[T] entropy in nats of the distribution each response token was drawn from, float32."""


@dataclass
class UpdateResult:
    """One rank's report of one update."""

    loss: float
    """This rank's share, already divided by the global denominators: the sum over ranks is the update's loss."""
    gradient_norm: float
    """Global norm before clipping; the same on every rank."""
    scores: list[TokenScores] = field(default_factory=list)
    """Forward results under the weights before this update."""
    kl_loss: float = 0.0
    """The part of `loss` that is the KL term, its coefficient included; 0 when KL is not in the loss."""


@dataclass(frozen=True)
class Update:
    """What one optimiser step reports, joined over ranks."""

    loss: float
    gradient_norm: float
    """Before clipping; NaN when the step was not taken."""
    lr: float
    scores: dict[int, TokenScores]
    """By position in the rollout batch, under the weights before the step."""
    kl_loss: float = 0.0
    """The part of `loss` that is the KL term, its coefficient included; 0 when KL is not in the loss."""

    @property
    def taken(self) -> bool:
        """Whether the weights moved: a step whose loss or gradient is not finite is skipped."""
        return math.isfinite(self.loss) and math.isfinite(self.gradient_norm)
