"""What the rest may ask of the workers: the few methods of engines, trainer and scorers that the loop is written against.

The groups of this package are what a run has; a test may give anything else that answers the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..checkpoints import Files
from ..rewards.conversation import Conversation
from ..rewards.scorer import Scores
from ..rollouts import (
    GenerationRequest,
    Rollout,
    SamplingParameters,
    TokenIds,
    TokenScores,
    TokenValues,
    TrainingSequence,
    Update,
)
from ..settings import ClusterSettings


class Engine(Protocol):
    """What samples responses."""

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """Chunks of finished responses, in any order; every request is answered exactly once."""
        ...

    def weights_versions(self) -> list[int]:
        """The version of the weights that each engine says it holds."""
        ...

    def probe(self, sequences: Sequence[TokenIds]) -> list[list[TokenValues]]:
        """Per engine and sequence of token ids [L]: log-probs in nats, float32 [L - 1], of tokens 1..L-1 at temperature 1."""
        ...

    def describe(self) -> list[str]:
        """What the engines are, in lines for a person."""
        ...


class ContinuousEngine(Engine, Protocol):
    """What samples responses while whoever asked does other things."""

    def begin(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> None:
        """Begin to answer requests, behind those that were asked before. `request_id`s differ from those that are open."""
        ...

    def answered(self, seconds: float = 0.0) -> list[Rollout]:
        """What has been answered since the last call; waits up to `seconds` where nothing has."""
        ...

    def cancel(self) -> dict[int, int]:
        """Take back everything that is not answered; by `request_id`, the tokens that had been sampled."""
        ...

    def replace_lost(self) -> None:
        """Replace what died; the trainer holds the weights that were published last."""
        ...


class TokenScorer(Protocol):
    """What scores responses token by token, at the temperature that is sampled at: the trainer, under the weights that it holds
    when it is asked, and the frozen policy that KL is measured from."""

    def submit(self, sequences: Sequence[TrainingSequence]) -> Any:
        """Begin to score; returns a ticket at once."""
        ...

    def result(self, ticket: Any) -> list[TokenScores]:
        """Wait for log-probs in nats, float32 [response length] each, and the trainer's entropies; in any order, found by
        their `index`."""
        ...


class Trainer(Protocol):
    """What holds and trains the policy."""

    weights_version: int
    """Number of the last weight sync."""

    def logprobs(self, sequences: Sequence[TrainingSequence]) -> dict[int, TokenScores]:
        """Log-probs and entropies in nats, float32 [response length], of every response under the present weights, by
        `TrainingSequence.index`; at the temperature that is sampled at."""
        ...

    def update(
        self, mini_batches: Sequence[Sequence[TrainingSequence]], lrs: Sequence[float], kl_coef: float = 0.0
    ) -> list[Update]:
        """One optimiser step per mini-batch, at its learning rate; `kl_coef` weighs a KL term of the loss."""
        ...

    def probe_scores(self, sequences: Sequence[TokenIds]) -> list[TokenValues]:
        """What `Engine.probe` gives, of one engine, as the trainer computes it."""
        ...

    @property
    def num_ranks(self) -> int:
        """Trainer ranks."""
        ...

    def save(self, folder: Path) -> Files:
        """Write weights, optimiser and random number generators; returns bytes and sha256 of the files, by name."""
        ...

    def load(self, folder: Path, files: Files) -> None:
        """Continue where `save` stood, exactly with as many ranks; `files` is what it returned."""
        ...

    def export(self, folder: Path) -> None:
        """Write a Hugging Face folder."""
        ...


class ScoringTrainer(Trainer, TokenScorer, Protocol):
    """A trainer that can be asked for scores now and answer later."""


class RewardScorer(Protocol):
    """What scores responses. A ticket of `submit` is nothing but what `result` is given."""

    def submit(self, conversations: list[Conversation], prefixes: list[list[Conversation]] | None = None) -> Any:
        """Begin to score n conversations and, if given, the prefixes of each; returns a ticket at once."""
        ...

    def result(self, ticket: Any) -> Scores:
        """Wait for the scores, float32 [n] in the order of the conversations."""
        ...


@dataclass(frozen=True)
class Usage:
    """What workers took of their machines."""

    memory: dict[str, float]
    """GiB of host and device memory of every living worker, as metrics `memory/GROUP_INDEX_...`."""
    work: Mapping[str, Sequence[float]]
    """Of each group, seconds that each living worker was inside calls; a shared group has none."""


class SupervisedGroups(Protocol):
    """What supervised fine-tuning runs on."""

    @property
    def policy(self) -> Trainer: ...
    @property
    def cluster(self) -> ClusterSettings:
        """The layout with as many workers of each group as were started."""
        ...

    def cards(self) -> Mapping[str, str | None]:
        """The groups of this run, and the name of each one's GPUs; None on the CPU, and where it is not known."""
        ...

    def usage(self) -> Usage:
        """What the workers' memory is, and how long they were at work since this was asked last."""
        ...

    def begin_profile(self) -> None:
        """Record from now on what the workers compute."""
        ...

    def end_profile(self, folder: Path, label: str) -> None:
        """Write it into files of `folder` whose names begin with `label`."""
        ...


class LearningGroups(SupervisedGroups, Protocol):
    """What reinforcement learning runs on."""

    @property
    def policy(self) -> ScoringTrainer: ...
    @property
    def rollout(self) -> Engine: ...
    @property
    def reward(self) -> RewardScorer: ...
    @property
    def reference(self) -> TokenScorer | None: ...

    def begin_training(self) -> None:
        """From here on the trainer computes, and no engine."""
        ...

    def end_training(self) -> None:
        """From here on the engines may compute."""
        ...

    def publish_weights(self) -> int:
        """Give the trainer's weights to every engine under the next version, which is returned."""
        ...

    def while_waiting(self, call: Callable[[], None]) -> None:
        """Have `call` called about once a second of every wait, in the thread that waits; it must not wait itself."""
        ...
