"""The controller's side of the reward and reference groups: score chunks while others generate, replay them on a death."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from ..batching import plan_micro_batches
from ..errors import WorkerError
from ..rewards import Conversation, Scores
from ..rollouts import TokenScores, TrainingSequence
from ..settings import Settings
from .environment import environment
from .group import WorkerGroup, describe
from .placement import Placement
from .reference import ReferenceWorker
from .reward import RewardWorker

MAX_REPLACEMENTS = 3
"""Deaths of scoring workers that a run survives."""


@dataclass
class Ticket:
    """One submitted call, with what is needed to submit it again."""

    worker: int
    method: str
    arguments: tuple[Any, ...]
    reference: Any


class ScoringGroup:
    """Workers of which each holds a whole model, so that any of them can answer any call."""

    def __init__(self, group: WorkerGroup, settings: Settings, on_wait: Callable[[], None]) -> None:
        self.workers = group
        self._settings = settings
        self._on_wait = on_wait
        self._start_arguments: list[tuple[Any, ...]] = []
        self._next = 0
        self.num_replacements = 0

    def start(self, arguments: list[tuple[Any, ...]]) -> None:
        """Load the model on every worker; worker i gets `arguments[i]`, also when it has to be replaced."""
        self._start_arguments = arguments
        self.workers.call_each("start", arguments, timeout_seconds=self._settings.cluster.start_timeout_seconds)

    def submit(self, method: str, *arguments: Any) -> Ticket:
        """Give a call to the next worker in turn."""
        worker = self._next
        self._next = (self._next + 1) % len(self.workers)
        return Ticket(worker, method, arguments, self.workers.submit(worker, method, *arguments))

    def result(self, ticket: Ticket) -> Any:
        """Wait for a call. A worker that died is replaced and the call made again; raises WorkerError when it cannot be."""
        limit = self._settings.cluster.call_timeout_seconds
        deadline = time.monotonic() + limit
        while True:
            self._on_wait()
            ready, _ = ray.wait([ticket.reference], timeout=1.0)
            if not ready and time.monotonic() > deadline:
                raise WorkerError(
                    f"{self.workers.name} worker {ticket.worker} did not finish `{ticket.method}` within {limit:g} seconds"
                )
            try:
                if ready:
                    return ray.get(ticket.reference)
            except RayActorError as error:
                self._revive(ticket, error)
            except RayTaskError as error:
                raise describe(self.workers.name, ticket.worker, ticket.method, error) from error

    def _revive(self, ticket: Ticket, error: RayActorError) -> None:
        worker = ticket.worker
        if not self.workers.is_alive(worker, timeout_seconds=5.0):
            self.num_replacements += 1
            if self.num_replacements > MAX_REPLACEMENTS:
                raise describe(self.workers.name, worker, ticket.method, error) from error
            self.workers.replace(worker)
            start = self.workers.submit(worker, "start", *self._start_arguments[worker])
            self.workers.gather([start], "start", self._settings.cluster.start_timeout_seconds)
        ticket.reference = self.workers.submit(worker, ticket.method, *ticket.arguments)


class RewardGroup:
    """Frozen reward models, Python functions or endpoints."""

    def __init__(self, settings: Settings, placement: Placement, on_wait: Callable[[], None]) -> None:
        group = WorkerGroup(
            "reward",
            RewardWorker,
            settings.cluster.reward.num_workers,
            placement,
            environment("reward", settings),
            lambda index: (settings,),
            on_wait,
        )
        self._settings = settings
        self._scoring = ScoringGroup(group, settings, on_wait)

    def start(self) -> None:
        """Load the models."""
        self._scoring.start([()] * len(self._scoring.workers))

    def submit(self, conversations: list[Conversation]) -> Ticket:
        """Begin to score; the composition of the call decides the numbers, not the worker or the moment."""
        return self._scoring.submit("score", conversations)

    def result(self, ticket: Ticket) -> Scores:
        """Scores in the order of the submitted conversations."""
        scores: Scores = self._scoring.result(ticket)
        return scores

    @property
    def num_replacements(self) -> int:
        return self._scoring.num_replacements

    def memory(self) -> dict[int, dict[str, float]]:
        """Memory figures of every living worker, by index."""
        return self._scoring.workers.call_living("memory", timeout_seconds=self._settings.cluster.call_timeout_seconds)

    def end(self) -> None:
        """Kill the workers."""
        self._scoring.workers.end()


class ReferenceGroup:
    """The frozen reference: a whole copy per worker, or one copy sharded over all of them with ZeRO-3."""

    def __init__(self, settings: Settings, placement: Placement, on_wait: Callable[[], None]) -> None:
        num_workers = settings.cluster.reference.num_workers
        group = WorkerGroup(
            "reference",
            ReferenceWorker,
            num_workers,
            placement,
            environment("reference", settings),
            lambda rank: (settings, rank, num_workers),
            on_wait,
        )
        self._settings = settings
        self._scoring = ScoringGroup(group, settings, on_wait)
        self._sharded = settings.trainer.reference_sharding == "zero3"

    def start(self) -> None:
        """Load the model."""
        workers = self._scoring.workers
        self._scoring.start([workers.meeting_point()] * len(workers))

    def submit(self, sequences: Sequence[TrainingSequence]) -> Ticket | list[object]:
        """Begin to score; a sharded reference needs all its ranks for every call."""
        plan = plan_micro_batches(
            [sequence.num_tokens for sequence in sequences],
            len(self._scoring.workers) if self._sharded else 1,
            self._settings.trainer.micro_batch_tokens,
            packing=self._settings.model.packing,
        )
        shares = [[[sequences[position] for position in batch] for batch in rank] for rank in plan]
        if self._sharded:
            return [self._scoring.workers.submit(rank, "logprobs", share) for rank, share in enumerate(shares)]
        return self._scoring.submit("logprobs", shares[0])

    def result(self, ticket: Ticket | list[object]) -> list[TokenScores]:
        """Scores of the submitted sequences, found by their `index`."""
        if isinstance(ticket, Ticket):
            whole: list[TokenScores] = self._scoring.result(ticket)
            return whole
        limit = self._settings.cluster.call_timeout_seconds
        ranks: list[list[TokenScores]] = self._scoring.workers.gather(ticket, "logprobs", limit)
        return [scores for rank in ranks for scores in rank]

    @property
    def num_replacements(self) -> int:
        return self._scoring.num_replacements

    def memory(self) -> dict[int, dict[str, float]]:
        """Memory figures of every living worker, by index."""
        return self._scoring.workers.call_living("memory", timeout_seconds=self._settings.cluster.call_timeout_seconds)

    def end(self) -> None:
        """Kill the workers."""
        self._scoring.workers.end()
