"""A scored rollout batch, and what the algorithm makes of it: scores to advantages, advantages to training sequences.

Glue between ragged numpy (what travels) and flat tensors (what lrm_safety.algorithm computes with). Order of the
responses is that of the requests, whatever order they were finished in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .algorithm.advantages import compute_advantages
from .algorithm.kl import AdaptiveKL, FixedKL, KLController, kl_estimate
from .algorithm.shaping import RunningMoments, malformed_penalty, overlong_penalty, shape_scores, unfinished_penalty
from .conversation.response import ParsedResponse
from .errors import InvariantError
from .rewards.scorer import Scores
from .rewards.segments import Segments, segment_metrics, shaping_rewards
from .rollouts import GenerationRequest, Rollout, TokenIds, TokenScores, TokenValues, TrainingSequence
from .settings import KLSettings, Settings
from .settings.training import BASELINES


@dataclass
class RolloutBatch:
    """N responses with everything that was found out about them; position i is request i everywhere."""

    rollouts: list[Rollout]
    responses: list[ParsedResponse]
    refusals: list[bool | None]
    """Whether the answer declines its request; None where that cannot be read."""
    scores: Scores
    """Raw scores [N], total and by reward model and view."""
    policy: dict[int, TokenScores] = field(default_factory=dict)
    """The trainer's log-probs and entropies under the weights before the first update, those that sampled unless these are older;
    empty when that pass is skipped."""
    reference: dict[int, TokenScores] = field(default_factory=dict)
    """The frozen reference's; empty without a reference group."""
    segments: Segments | None = None
    """Steps and their prefixes' scores; None with reward.granularity=response."""
    weights_version: int | None = None
    """Of the weights before the first update; None: nobody has learned from it yet."""

    @property
    def lengths(self) -> Tensor:
        """int64 [N] response tokens."""
        return torch.tensor([len(rollout.response_ids) for rollout in self.rollouts])

    @property
    def num_tokens(self) -> int:
        """Response tokens of the batch."""
        return sum(len(rollout.response_ids) for rollout in self.rollouts)

    def flat(self, values: dict[int, TokenScores], name: str) -> Tensor:
        """One field of per-response scores as float32 [total], responses one after the other."""
        return torch.from_numpy(np.concatenate([getattr(values[i], name) for i in range(len(self.rollouts))]))

    def ages(self) -> list[TokenIds]:
        """[T] of each response: how many syncs older than the weights before the first update those are that sampled a token."""
        assert self.weights_version is not None, "the age of a batch that nobody learns from"
        return [self.weights_version - rollout.versions for rollout in self.rollouts]

    def rollout_logprobs(self) -> Tensor:
        """The engine's log-probs, float32 [total]."""
        return torch.from_numpy(np.concatenate([rollout.logprobs for rollout in self.rollouts]))

    def old_logprobs(self, source: str) -> Tensor | None:
        """Log-probs of the sampling policy, float32 [total]; None when the recompute pass was skipped."""
        if source == "rollout":
            return self.rollout_logprobs()
        return self.flat(self.policy, "logprobs") if self.policy else None


@dataclass
class AdvantageBatch:
    """What one rollout batch teaches."""

    sequences: list[TrainingSequence]
    shaped: Tensor
    """float32 [N] scores after shaping."""
    metrics: dict[str, float]


def make_kl_controller(settings: KLSettings) -> KLController:
    """The controller of beta that `algorithm.kl.controller` names."""
    if settings.controller == "adaptive":
        return AdaptiveKL(settings.coef, target=settings.target, horizon=settings.horizon)
    return FixedKL(settings.coef)


def generation_requests(
    rendered: list[TokenIds], prompts: list[int], settings: Settings, iteration: int
) -> list[GenerationRequest]:
    """`samples_per_prompt` neighbouring requests for each prompt, each with a seed of its own."""
    samples = settings.algorithm.samples_per_prompt
    requests = []
    for position, prompt in enumerate(prompts):
        for sample in range(samples):
            seed = np.random.SeedSequence([settings.seed, iteration, prompt, sample]).generate_state(1)[0]
            requests.append(GenerationRequest(position * samples + sample, prompt, rendered[prompt], int(seed)))
    return requests


def shuffled_mini_batches(
    sequences: list[TrainingSequence], settings: Settings, iteration: int
) -> list[list[TrainingSequence]]:
    """The rollout batch cut into mini-batches, one per update, in an order seeded by run and iteration."""
    size = settings.algorithm.mini_batch_size
    order = np.random.default_rng([settings.seed, iteration]).permutation(len(sequences))
    return [[sequences[i] for i in order[start : start + size]] for start in range(0, len(order), size)]


def group_ids(batch: RolloutBatch, samples_per_prompt: int) -> Tensor:
    """int64 [N]: which prompt of the batch each response belongs to; samples of a prompt have neighbouring requests."""
    return torch.tensor([rollout.request_id // samples_per_prompt for rollout in batch.rollouts])


def advantages(
    batch: RolloutBatch, settings: Settings, kl_controller: KLController, moments: RunningMoments
) -> AdvantageBatch:
    """Raw scores -> shaped scores -> token rewards -> returns -> normalised advantages, over the whole rollout batch.

    REINFORCE_PP contract, items 1 to 5 (docs/reinforce_plus_plus.md). Updates `moments` when reward.normalise=running.
    Raises InvariantError when a score or a log-prob is not finite.
    """
    reward, algorithm = settings.reward, settings.algorithm
    lengths = batch.lengths
    raw = torch.from_numpy(np.asarray(batch.scores.total, dtype=np.float32))
    require_finite("reward", raw)
    penalties: dict[str, Tensor] = {}
    if reward.unfinished_penalty:
        unfinished = torch.tensor([not response.finished for response in batch.responses])
        penalties["unfinished"] = unfinished_penalty(unfinished, reward.unfinished_penalty)
    if reward.malformed_penalty:
        malformed = torch.tensor([response.status in ("malformed", "empty_answer") for response in batch.responses])
        penalties["malformed"] = malformed_penalty(malformed, reward.malformed_penalty)
    if reward.overlong_penalty and reward.overlong_buffer_tokens:
        penalties["overlong"] = overlong_penalty(
            lengths, settings.rollout.max_response_tokens, reward.overlong_buffer_tokens, reward.overlong_penalty
        )
    low = -float("inf") if reward.clip_low is None else reward.clip_low
    high = float("inf") if reward.clip_high is None else reward.clip_high
    shaped = shape_scores(
        raw,
        penalties=penalties,
        normalise=reward.normalise,
        clip=None if reward.clip_low is None and reward.clip_high is None else (low, high),
        moments=moments,
    )

    baseline = BASELINES.get(algorithm.baseline, "algorithm.baseline")
    groups = group_ids(batch, algorithm.samples_per_prompt)
    shaping = None
    if batch.segments is not None:
        within = baseline.within_prompt or algorithm.normalisation == "group"
        shaping = shaping_rewards(
            batch.segments, lengths.tolist(), shaped.like_scores, groups.tolist() if within else None
        )

    old = batch.old_logprobs(algorithm.old_logprobs)
    log_ratio = reference_log_ratio(batch, old)
    assert log_ratio is not None or algorithm.kl.placement != "reward", "the KL in the reward needs both log-probs"
    if log_ratio is not None:
        require_finite("log-prob", log_ratio)
    result = compute_advantages(
        shaped.scores,
        lengths,
        kl=None
        if log_ratio is None or algorithm.kl.placement != "reward"
        else kl_estimate(log_ratio, "k1", algorithm.kl.clamp),
        kl_coef=kl_controller.coef,
        shaping=shaping,
        group_ids=groups,
        baseline=baseline,
        gamma=algorithm.gamma,
        normalisation=algorithm.normalisation,
    )
    require_finite("advantage", result.advantages)
    metrics = {"kl/coef": 0.0 if algorithm.kl.placement == "none" else kl_controller.coef}
    metrics |= _advantage_metrics(shaped.stats, result.stats)
    if batch.segments is not None:
        metrics |= segment_metrics(batch.segments)
    return AdvantageBatch(_training_sequences(batch, settings, result.advantages, old), shaped.scores, metrics)


def _advantage_metrics(shaped: Mapping[str, float], computed: Mapping[str, float]) -> dict[str, float]:
    """Statistics of the shaped scores and of the advantages under the names of the metrics."""
    metrics = {
        "reward/raw_mean": shaped["raw_mean"],
        "reward/raw_std": shaped["raw_std"],
        "reward/penalty_mean": shaped["penalised_mean"] - shaped["raw_mean"],
        "reward/shaped_mean": shaped["shaped_mean"],
        "reward/shaped_std": shaped["shaped_std"],
        "reward/clipped_fraction": shaped["clipped_fraction"],
        "reward/kl_penalty_mean": computed["kl_penalty_mean"],
        "advantage/mean": computed["advantage_mean"],
        "advantage/std": computed["advantage_std"],
        "advantage/max_abs": computed["advantage_max_abs"],
        "return/mean": computed["return_mean"],
    }
    metrics |= {
        f"reward/penalty/{name.removeprefix('penalty_').removesuffix('_mean')}": value
        for name, value in shaped.items()
        if name.startswith("penalty_")
    }
    if "uninformative_group_fraction" in computed:
        metrics["advantage/uninformative_group_fraction"] = computed["uninformative_group_fraction"]
    return metrics


def reference_log_ratio(batch: RolloutBatch, old: Tensor | None) -> Tensor | None:
    """log pi_old - log pi_ref of every response token, float32 [total]; None where either is not known."""
    if old is None or not batch.reference:
        return None
    return old - batch.flat(batch.reference, "logprobs")


def _training_sequences(
    batch: RolloutBatch, settings: Settings, values: Tensor, old: Tensor | None
) -> list[TrainingSequence]:
    """Cut flat per-token values back into responses, with only the columns that this configuration reads."""
    algorithm = settings.algorithm
    cuts = batch.lengths.tolist()
    advantage_parts = [part.numpy() for part in values.split(cuts)]
    old_parts: list[TokenValues | None] = [None] * len(cuts) if old is None else [p.numpy() for p in old.split(cuts)]
    needs_rollout = algorithm.correction != "off"
    needs_reference = algorithm.kl.placement == "loss"
    return [
        TrainingSequence(
            index=index,
            prompt_ids=rollout.prompt_ids,
            response_ids=rollout.response_ids,
            advantages=advantage_parts[index],
            old_logprobs=old_parts[index],
            rollout_logprobs=rollout.logprobs if needs_rollout else None,
            reference_logprobs=batch.reference[index].logprobs if needs_reference else None,
        )
        for index, rollout in enumerate(batch.rollouts)
    ]


def require_finite(what: str, values: Tensor) -> None:
    """Raise InvariantError when a value is NaN or infinite."""
    bad = int((~torch.isfinite(values)).sum())
    if bad:
        raise InvariantError(f"{bad} of {values.numel()} {what} values are NaN or infinite; the rollouts were saved")
