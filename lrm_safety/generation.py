"""Where the loop's batches come from: sampled when they are asked for, or begun up to `max_staleness` iterations before."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, cast

from .datasets.prompts import PromptSource
from .experience import generation_requests
from .preparation import PreparedRun
from .rollouts import GenerationRequest, Rollout
from .scoring import PendingChunk, StreamScorer
from .workers.protocols import ContinuousEngine, LearningGroups

WAIT_SECONDS = 0.5
"""How long the loop waits for answers before it looks for signals and dead workers."""


class Generation(ABC):
    """Draws prompts, has them answered, and sends what is answered on to be scored."""

    def __init__(self, run: PreparedRun, groups: LearningGroups, source: PromptSource, scorer: StreamScorer) -> None:
        self._run, self._groups, self._source, self._scorer = run, groups, source, scorer

    @abstractmethod
    def take(self, update: int, iteration: int) -> list[PendingChunk]:
        """The batch of the iteration that comes after so many, with every response on its way to be scored."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Where in the prompts a run goes on that has learned from every batch taken, and from no other; JSON."""

    @abstractmethod
    def settle(self) -> None:
        """Leave the engines idle, for who wants them for something else."""

    def _requests(self, iteration: int) -> list[GenerationRequest]:
        return generation_requests(self._run.rendered, self._source.next_batch(), self._run.settings, iteration)


class InTurn(Generation):
    """A batch is sampled when it is asked for, by the present weights alone."""

    def take(self, update: int, iteration: int) -> list[PendingChunk]:
        requests = self._requests(iteration)
        return self._scorer.submit(self._groups.rollout.generate(requests, self._run.sampling), len(requests))

    def state(self) -> dict[str, Any]:
        return self._source.state_dict()

    def settle(self) -> None:
        """They are: a batch is whole when it is taken."""


@dataclass
class _Begun:
    """A batch that engines work on."""

    source: dict[str, Any]
    """Where in the prompts it began."""
    owed: int
    """Responses that are not answered yet."""
    answers: list[Rollout] = field(default_factory=list)
    """Answered, and not yet a chunk."""
    chunks: list[PendingChunk] = field(default_factory=list)


class Ahead(Generation):
    """Batches are begun before they are asked for, so that engines sample while the trainer updates.

    When the batch of iteration i is taken, those up to i + max_staleness are begun, and no later one. Every token of a batch is
    thus sampled by weights at most so many syncs old. Answers are read, and sent on, in the waits of the loop itself.
    """

    def __init__(self, run: PreparedRun, groups: LearningGroups, source: PromptSource, scorer: StreamScorer) -> None:
        super().__init__(run, groups, source, scorer)
        algorithm = run.settings.algorithm
        self._ahead, self._batch_size = algorithm.max_staleness, algorithm.num_responses
        self._chunk_size = run.settings.rollout.stream_chunk_size
        self._engines = cast(ContinuousEngine, groups.rollout)
        self._begun: dict[int, _Begun] = {}
        """By iteration, oldest first."""
        groups.while_waiting(self._read)

    def take(self, update: int, iteration: int) -> list[PendingChunk]:
        for ahead in range(self._ahead + 1):
            later = update + ahead * self._run.schedule.updates_per_iteration
            if ahead and self._run.schedule.finished(later, iteration + ahead):
                break
            if iteration + ahead not in self._begun:
                self._begin(iteration + ahead)
        while self._begun[iteration].owed:
            self._wait()
        return self._begun.pop(iteration).chunks

    def state(self) -> dict[str, Any]:
        """What is begun and not taken is asked again after a resume, prompts and seeds the same."""
        return next((batch.source for batch in self._begun.values()), None) or self._source.state_dict()

    def settle(self) -> None:
        """Wait until what is begun has been answered; it is kept."""
        while any(batch.owed for batch in self._begun.values()):
            self._wait()

    def _begin(self, iteration: int) -> None:
        """Ask for a batch. Engines know its requests by numbers that no other batch has."""
        source = self._source.state_dict()
        requests = self._requests(iteration)
        self._begun[iteration] = _Begun(source, len(requests))
        first = iteration * self._batch_size
        self._engines.begin([replace(one, request_id=first + one.request_id) for one in requests], self._run.sampling)

    def _wait(self) -> None:
        """Nothing changes the trainer's weights meanwhile."""
        self._engines.replace_lost()
        self._read(WAIT_SECONDS)

    def _read(self, seconds: float = 0.0) -> None:
        """Take what has been answered, and send whole chunks on."""
        answers = self._engines.answered(seconds)
        for answer in answers:
            iteration, position = divmod(answer.request_id, self._batch_size)
            self._begun[iteration].answers.append(replace(answer, request_id=position))
            self._begun[iteration].owed -= 1
        for batch in self._begun.values():
            while len(batch.answers) >= self._chunk_size or (batch.answers and not batch.owed):
                chunk, batch.answers = batch.answers[: self._chunk_size], batch.answers[self._chunk_size :]
                batch.chunks.append(self._scorer.send(chunk))
        if answers:
            self._scorer.owed(sum(batch.owed for batch in self._begun.values()))


def generation_of(run: PreparedRun, groups: LearningGroups, source: PromptSource, scorer: StreamScorer) -> Generation:
    """The generation that `algorithm.max_staleness` asks for."""
    kind = Ahead if run.settings.algorithm.max_staleness else InTurn
    return kind(run, groups, source, scorer)
