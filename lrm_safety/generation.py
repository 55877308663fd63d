"""Where the loop's batches come from: sampled when they are asked for, begun up to `max_staleness` iterations before, or cut off
when enough of what is in flight is answered."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, cast

from .batch_metrics import cut_off_metrics, dropped_metrics
from .datasets.prompts import PromptSource
from .experience import generation_requests
from .pool import Pool
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

    def restore(self, state: dict[str, Any]) -> int:
        """Take up what `state` told of prompts that batches had left over; how many are not, as this generation leaves none."""
        return len(state.get("carried", []))

    def metrics(self) -> dict[str, float]:
        """What there is to tell of the batch that was taken last."""
        return {}

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


class _Answers:
    """Answers on their way to be scored, in chunks."""

    def __init__(self, scorer: StreamScorer, chunk_size: int) -> None:
        self._scorer, self._chunk_size = scorer, chunk_size
        self._waiting: list[Rollout] = []
        self.chunks: list[PendingChunk] = []

    def add(self, answers: Sequence[Rollout], *, last: bool) -> None:
        """Take answers in, and send whole chunks on; `last`: no other will come, and a part of one goes too."""
        self._waiting += answers
        while len(self._waiting) >= self._chunk_size or (self._waiting and last):
            chunk, self._waiting = self._waiting[: self._chunk_size], self._waiting[self._chunk_size :]
            self.chunks.append(self._scorer.send(chunk))


class _Asked(Generation):
    """Engines are asked now and answer later. Answers are read, and sent on, in the waits of the loop itself."""

    def __init__(self, run: PreparedRun, groups: LearningGroups, source: PromptSource, scorer: StreamScorer) -> None:
        super().__init__(run, groups, source, scorer)
        self._engines = cast(ContinuousEngine, groups.rollout)
        self._sorts = run.settings.rollout.dispatch == "as_slots_free"
        self._lengths: dict[int, float] = {}
        """By prompt: tokens of its responses, where it had any; the last ones count most. A resumed run learns them anew."""
        groups.while_waiting(self._read)

    @abstractmethod
    def _owed(self) -> int:
        """Responses that what is begun waits for."""

    @abstractmethod
    def _take_in(self, answers: Sequence[Rollout]) -> None:
        """Send on what engines have answered."""

    def settle(self) -> None:
        """Wait until what is begun has been answered; it is kept."""
        while self._owed():
            self._wait()

    def _ask(self, requests: Sequence[GenerationRequest]) -> None:
        """Begin to have requests answered. A response that is long and begins last is what all wait for: where it is the queue's
        to say, those of prompts that had long ones begin first, and prompts of which nothing is known count as the mean."""
        if self._sorts and self._lengths:
            usual = sum(self._lengths.values()) / len(self._lengths)
            requests = sorted(requests, key=lambda one: -self._lengths.get(one.prompt_index, usual))
        self._engines.begin(requests, self._run.sampling)

    def _wait(self) -> None:
        """Nothing changes the trainer's weights meanwhile."""
        self._engines.replace_lost()
        self._read(WAIT_SECONDS)

    def _read(self, seconds: float = 0.0) -> None:
        """Take what has been answered, and send whole chunks on."""
        answers = self._engines.answered(seconds)
        for answer in answers:
            length = float(len(answer.response_ids))
            self._lengths[answer.prompt_index] = (self._lengths.get(answer.prompt_index, length) + length) / 2
        if answers:
            self._take_in(answers)
            self._scorer.owed(self._owed())


@dataclass
class _Begun:
    """A batch that engines work on."""

    source: dict[str, Any]
    """Where in the prompts it began."""
    owed: int
    """Responses that are not answered yet."""
    answers: _Answers


class Ahead(_Asked):
    """Batches are begun before they are asked for, so that engines sample while the trainer updates.

    When the batch of iteration i is taken, those up to i + max_staleness are begun, and no later one. Every token of a batch is
    thus sampled by weights at most so many syncs old.
    """

    def __init__(self, run: PreparedRun, groups: LearningGroups, source: PromptSource, scorer: StreamScorer) -> None:
        super().__init__(run, groups, source, scorer)
        algorithm = run.settings.algorithm
        self._ahead, self._batch_size = algorithm.max_staleness, algorithm.num_responses
        self._begun: dict[int, _Begun] = {}
        """By iteration, oldest first."""

    def take(self, update: int, iteration: int) -> list[PendingChunk]:
        for ahead in range(self._ahead + 1):
            later = update + ahead * self._run.schedule.updates_per_iteration
            if ahead and self._run.schedule.finished(later, iteration + ahead):
                break
            if iteration + ahead not in self._begun:
                self._begin(iteration + ahead)
        while self._begun[iteration].owed:
            self._wait()
        return self._begun.pop(iteration).answers.chunks

    def state(self) -> dict[str, Any]:
        """What is begun and not taken is asked again after a resume, prompts and seeds the same."""
        return next((batch.source for batch in self._begun.values()), None) or self._source.state_dict()

    def _begin(self, iteration: int) -> None:
        """Ask for a batch. Engines know its requests by numbers that no other batch has."""
        source = self._source.state_dict()
        requests = self._requests(iteration)
        answers = _Answers(self._scorer, self._run.settings.rollout.stream_chunk_size)
        self._begun[iteration] = _Begun(source, len(requests), answers)
        first = iteration * self._batch_size
        self._ask([replace(one, request_id=first + one.request_id) for one in requests])

    def _owed(self) -> int:
        return sum(batch.owed for batch in self._begun.values())

    def _take_in(self, answers: Sequence[Rollout]) -> None:
        by_iteration: dict[int, list[Rollout]] = {}
        for answer in answers:
            iteration, position = divmod(answer.request_id, self._batch_size)
            by_iteration.setdefault(iteration, []).append(replace(answer, request_id=position))
        for iteration, some in by_iteration.items():
            batch = self._begun[iteration]
            batch.owed -= len(some)
            batch.answers.add(some, last=not batch.owed)


class CutOff(_Asked):
    """More prompts are in flight than a batch needs, which ends when enough of them are answered (`algorithm.oversampling`).

    What it cuts belongs to a later batch. With max_staleness=0 engines forget it, and are asked again under the next weights, with
    the same seeds: a response that was long is not exchanged for another one. Otherwise it goes on where it is, each of its tokens
    with the version that sampled it; whatever would become older than max_staleness is waited for.
    """

    def __init__(self, run: PreparedRun, groups: LearningGroups, source: PromptSource, scorer: StreamScorer) -> None:
        super().__init__(run, groups, source, scorer)
        algorithm = run.settings.algorithm
        self._samples, self._in_flight, self._goes_on = (
            algorithm.samples_per_prompt,
            algorithm.num_in_flight,
            algorithm.max_staleness > 0,
        )
        self._pool = Pool(algorithm.rollout_batch_size, self._samples, max(algorithm.max_staleness, 1))
        self._open: dict[int, int] = {}
        """Answers that the engines owe, by the number of their prompt."""
        self._next = self._batch()
        self._metrics: dict[str, float] = {}

    def take(self, update: int, iteration: int) -> list[PendingChunk]:
        drawn = self._source.next_batch(max(0, self._in_flight - len(self._pool)))
        self._send(self._pool.begin(iteration, drawn))
        for begun, some in groupby(self._pool.to_ask().items(), key=lambda one: one[1].begun):
            requests = []
            for number, one in some:
                self._open[number] = self._samples
                for request in generation_requests(self._run.rendered, [one.prompt], self._run.settings, begun):
                    requests.append(replace(request, request_id=number * self._samples + request.request_id))
            self._ask(requests)
        while not self._pool.is_full:
            self._wait()
        taken, chunks = self._pool.take(), self._next.chunks
        self._next = self._batch()
        self._metrics = cut_off_metrics(taken, iteration, len(self._pool))
        if not self._goes_on:
            sampled = self._engines.cancel()
            self._open.clear()
            lengths = [*sampled.values(), *(len(answer.response_ids) for answer in self._pool.forget())]
            self._metrics |= dropped_metrics(lengths)
        return chunks

    def state(self) -> dict[str, Any]:
        """What is in flight is asked again after a resume, prompts and seeds the same, and no later than it would have been."""
        return self._source.state_dict() | {"carried": self._pool.carried()}

    def restore(self, state: dict[str, Any]) -> int:
        self._pool.restore(state.get("carried", []))
        return 0

    def metrics(self) -> dict[str, float]:
        return self._metrics

    def _batch(self) -> _Answers:
        return _Answers(self._scorer, self._run.settings.rollout.stream_chunk_size)

    def _owed(self) -> int:
        return sum(self._open.values())

    def _take_in(self, answers: Sequence[Rollout]) -> None:
        for answer in answers:
            number = answer.request_id // self._samples
            self._open[number] -= 1
            if not self._open[number]:
                del self._open[number]
            self._send(self._pool.answered(number, answer))

    def _send(self, placed: list[Rollout]) -> None:
        self._next.add(placed, last=self._pool.is_full)


def generation_of(run: PreparedRun, groups: LearningGroups, source: PromptSource, scorer: StreamScorer) -> Generation:
    """The generation that `algorithm.oversampling`, `algorithm.max_staleness` and `rollout.dispatch` ask for."""
    settings = run.settings
    if settings.algorithm.num_in_flight > settings.algorithm.rollout_batch_size:
        return CutOff(run, groups, source, scorer)
    return (Ahead if settings.answers_later else InTurn)(run, groups, source, scorer)
