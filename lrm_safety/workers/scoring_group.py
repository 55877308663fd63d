"""The controller's side of the reward and reference groups: score chunks while others generate, replay them on a death."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ..batching import plan_micro_batches
from ..rewards.conversation import Conversation
from ..rewards.scorer import Scores
from ..rollouts import TokenScores, TrainingSequence
from ..settings import ClusterSettings
from .environment import environment
from .group import ANSWER_SECONDS, DEATHS, HourlyBudget, WorkerGroup, describe
from .placement import Placement
from .reference import ReferenceWorker
from .reward import RewardWorker
from .specs import ReferenceSpec, RewardSpec
from .watchdog import Watchdog

_logger = logging.getLogger(__name__)
WAIT_LINE_SECONDS = 30.0
"""A call that takes longer says what is waited for, and again after as long."""
MAX_REPLACEMENTS = 3
"""Scoring workers of one group that are replaced within an hour."""


@dataclass
class Ticket:
    """One submitted call, with what is needed to submit it again."""

    worker: int
    method: str
    arguments: tuple[Any, ...]
    reference: Any


class ScoringGroup:
    """Workers of which each holds a whole model, so that any of them can answer any call."""

    def __init__(
        self,
        group: WorkerGroup,
        cluster: ClusterSettings,
        on_wait: Callable[[], None],
        on_replacement: Callable[[str], None],
    ) -> None:
        self._group = group
        self._on_replacement = on_replacement
        self._start_limit, self._limit = cluster.start_timeout_seconds, cluster.call_timeout_seconds
        self._on_wait = on_wait
        self._start_arguments: list[tuple[Any, ...]] = []
        self._next = 0
        self.replacements = HourlyBudget(MAX_REPLACEMENTS)

    def _start(self, arguments: list[tuple[Any, ...]]) -> None:
        """Load the model on every worker; worker i gets `arguments[i]`, also when it has to be replaced."""
        self._start_arguments = arguments
        self._group.call_each("start", arguments, timeout_seconds=self._start_limit)

    def _submit(self, method: str, *arguments: Any, worker: int | None = None) -> Ticket:
        """Give a call to this worker, or to the next in turn."""
        if worker is None:
            worker = self._next
            self._next = (self._next + 1) % len(self._group)
        return Ticket(worker, method, arguments, self._group.submit(worker, method, *arguments))

    def _result(self, ticket: Ticket) -> Any:
        """Wait for a call. A worker that died is replaced and the call made again; raises WorkerError when it cannot be."""
        begin = said = time.monotonic()
        deadline = begin + self._limit
        while True:
            self._on_wait()
            ready, _ = ray.wait([ticket.reference], timeout=1.0)
            if not ready and time.monotonic() - said >= WAIT_LINE_SECONDS:
                said = time.monotonic()
                _logger.warning(
                    "waiting for %s worker %d: %s, %.0f s of at most %.0f s%s",
                    *(self._group.name, ticket.worker, ticket.method, said - begin, self._limit, self._waited_for()),
                )
            if not ready and time.monotonic() > deadline:
                raise self._group.silent(ticket.worker, ticket.method, self._limit)
            try:
                if ready:
                    return ray.get(ticket.reference)
            except DEATHS as error:
                self._revive(ticket, error)
                deadline = time.monotonic() + self._limit  # loading the model is not the call's time
            except RayTaskError as error:
                raise describe(self._group.name, ticket.worker, ticket.method, error) from error

    def _waited_for(self) -> str:
        """What may keep a call waiting that is none of ours."""
        return ""

    def _revive(self, ticket: Ticket, error: Exception) -> None:
        worker = ticket.worker
        if not self._group.is_alive(worker, timeout_seconds=5.0):
            if not self.replacements.spend():
                raise self._group.failure(worker, ticket.method, error) from error
            fate, reason = self._group.fate(worker, error)
            self._on_replacement(f"{self._group.name} worker {worker} {fate} and is replaced: {reason}")
            self._group.replace(worker)
            start = self._group.submit(worker, "start", *self._start_arguments[worker])
            self._group.gather([start], "start", self._start_limit, [worker])
        ticket.reference = self._group.submit(worker, ticket.method, *ticket.arguments)

    def ask(self, question: Callable[..., Any], *arguments: Any, seconds: float = ANSWER_SECONDS) -> dict[int, Any]:
        """See `WorkerGroup.ask`."""
        return self._group.ask(question, *arguments, seconds=seconds)

    def end(self) -> None:
        """Kill the workers."""
        self._group.end()


class RewardGroup(ScoringGroup):
    """Frozen reward models, Python functions or endpoints."""

    def __init__(
        self,
        spec: RewardSpec,
        placement: Placement,
        on_wait: Callable[[], None],
        on_replacement: Callable[[str], None] = lambda line: None,
        watchdog: Watchdog | None = None,
    ) -> None:
        group = WorkerGroup(
            "reward",
            RewardWorker,
            spec.cluster.reward.num_workers,
            placement,
            environment("reward", spec.cluster),
            lambda index: (spec,),
            on_wait,
            watchdog,
            replaceable=True,
        )
        super().__init__(group, spec.cluster, on_wait, on_replacement)
        self._models = spec.reward.models

    def _waited_for(self) -> str:
        endpoints = [
            f"reward.models.{name}.url={model.url}" for name, model in self._models.items() if model.kind == "http"
        ]
        return f" ({', '.join(endpoints)})" if endpoints else ""

    def start(self) -> None:
        """Load the models."""
        self._start([()] * len(self._group))

    def submit(
        self,
        conversations: list[Conversation],
        prefixes: list[list[Conversation]] | None = None,
        worker: int | None = None,
    ) -> Ticket:
        """Begin to score, each conversation's prefixes too if given; the composition of the call decides the numbers, not
        the worker or the moment. `worker`: to this one instead of the next in turn."""
        return self._submit("score", conversations, prefixes, worker=worker)

    def result(self, ticket: Ticket) -> Scores:
        """Scores in the order of the submitted conversations."""
        scores: Scores = self._result(ticket)
        return scores


class ReferenceGroup(ScoringGroup):
    """The frozen reference: a whole copy per worker, or one copy sharded over all of them with ZeRO-3."""

    def __init__(
        self,
        spec: ReferenceSpec,
        placement: Placement,
        on_wait: Callable[[], None],
        on_replacement: Callable[[str], None] = lambda line: None,
        watchdog: Watchdog | None = None,
    ) -> None:
        num_workers = spec.cluster.reference.num_workers
        group = WorkerGroup(
            "reference",
            ReferenceWorker,
            num_workers,
            placement,
            environment("reference", spec.cluster),
            lambda rank: (spec, rank, num_workers),
            on_wait,
            watchdog,
            replaceable=spec.trainer.reference_sharding == "plain",
        )
        super().__init__(group, spec.cluster, on_wait, on_replacement)
        self._spec = spec
        self._sharded = spec.trainer.reference_sharding == "zero3"

    def start(self) -> None:
        """Load the model."""
        self._start([self._group.meeting_point()] * len(self._group))

    def submit(self, sequences: Sequence[TrainingSequence]) -> Ticket | list[object]:
        """Begin to score; a sharded reference needs all its ranks for every call."""
        plan = plan_micro_batches(
            [sequence.num_tokens for sequence in sequences],
            len(self._group) if self._sharded else 1,
            self._spec.trainer.micro_batch_tokens,
            packing=self._spec.model.packing,
        )
        shares = [[[sequences[position] for position in batch] for batch in rank] for rank in plan]
        if self._sharded:
            return [self._group.submit(rank, "logprobs", share) for rank, share in enumerate(shares)]
        return self._submit("logprobs", shares[0])

    def result(self, ticket: Ticket | list[object]) -> list[TokenScores]:
        """Scores of the submitted sequences, found by their `index`."""
        if isinstance(ticket, Ticket):
            whole: list[TokenScores] = self._result(ticket)
            return whole
        ranks: list[list[TokenScores]] = self._group.gather(ticket, "logprobs", self._limit)
        return [scores for rank in ranks for scores in rank]
