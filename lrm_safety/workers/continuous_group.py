"""The controller's side of engines that sample while the loop does other things, or one request as another ends."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import ray
from ray.exceptions import RayTaskError

from ..errors import InvariantError
from ..rollouts import GenerationRequest, Rollout, SamplingParameters
from .continuous import ContinuousWorker
from .group import DEATHS, describe
from .request_queue import RequestQueue
from .rollout_group import Publish, RolloutGroup, ready_of

TURN_SECONDS = 0.2
"""How long an engine that has nothing to tell keeps a question: a weight sync waits as long at most."""


class ContinuousRolloutGroup(RolloutGroup):
    """Engines that are asked now and answer later. Whoever asks may do other things meanwhile; nothing here waits but `answered`
    when it is told to.

    A dead engine is noticed by `answered`, and replaced by `replace_lost` or by the next weight sync: only then does the trainer
    hold the weights that the others have. What it had not answered is asked again then.

    With `rollout.dispatch=fixed` a request is given to an engine when it is asked for; with as_slots_free it waits here until an
    engine has a place for it.
    """

    worker = ContinuousWorker

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        rollout = self._spec.rollout
        self._queue = RequestQueue(
            len(self._group), rollout.max_num_seqs if rollout.dispatch == "as_slots_free" else None
        )
        self._turns: list[deque[Any]] = [deque() for _ in self._queue.held]
        self._lost: dict[int, Exception] = {}
        self._ask_again: set[int] = set()
        self._sampling: SamplingParameters | None = None
        self._deadline = 0.0

    def begin(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> None:
        """Begin to answer requests, behind those that were asked before; each goes to the engine that has the fewest open.

        `request_id`s differ from those that are open, and `sampling` is the same for all.
        """
        self._sampling = sampling
        self._deadline = time.monotonic() + self._spec.rollout.timeout_seconds
        self._queue.add(requests)
        self._deal()

    def answered(self, seconds: float = 0.0) -> list[Rollout]:
        """What has been answered since the last call; waits up to `seconds` where nothing has. Every request is answered once.

        Raises WorkerError once nothing has been answered for `rollout.timeout_seconds`.
        """
        if seconds:
            self._on_wait()
        for engine, turns in enumerate(self._turns):
            if self._queue.held[engine] and not turns:
                self._turn(engine, [])
        first = {turns[0]: engine for engine, turns in enumerate(self._turns) if turns}
        if not first:
            return []
        rollouts: list[Rollout] = []
        while first and (ready := ready_of(list(first), seconds)):
            engines = [first[turn] for turn in ready]
            for engine in engines:
                rollouts += self._read(engine, self._turns[engine].popleft())
            # Whoever had one answer may have another: nobody else has become ready in no time.
            first, seconds = {self._turns[engine][0]: engine for engine in engines if self._turns[engine]}, 0.0
        self._deal()
        if rollouts or not self._queue:
            self._deadline = time.monotonic() + self._spec.rollout.timeout_seconds
        elif time.monotonic() > self._deadline:
            raise self._too_slow(len(self._queue))
        return rollouts

    def cancel(self) -> dict[int, int]:
        """Take back everything that is not answered; by `request_id`, the tokens that had been sampled. Those of a dead engine
        are not known."""
        # All is forgotten before anything is waited for: who looks for answers in these waits finds none, and gives nothing out.
        turns = [list(turns) for turns in self._turns]
        for former in self._turns:
            former.clear()
        self._queue.clear()
        living = [e for e in range(len(turns)) if e not in self._lost and e not in self._ask_again]
        tickets = {engine: self._group.submit(engine, "cancel") for engine in living}
        sampled: dict[int, int] = {}
        for engine, ticket in tickets.items():
            try:
                for turn in turns[engine]:
                    rollouts: list[Rollout] = self._group.answer(engine, "answered", turn)
                    sampled |= {one.request_id: len(one.response_ids) for one in rollouts}
                sampled |= self._group.answer(engine, "cancel", ticket)
            except DEATHS as error:
                self._lost[engine] = error
            except RayTaskError as error:
                raise describe("rollout", engine, "cancel", error) from error
        return sampled

    def replace_lost(self) -> None:
        """Replace the engines that died while nothing could be done about it; the trainer holds the published weights."""
        for engine, error in list(self._lost.items()):
            self._revive(engine, error)

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """See `RolloutGroup.generate`; everything that was asked has been answered before."""
        if self._queue:
            raise InvariantError(f"rollout: {len(self._queue)} responses are under way beside a batch")
        self.replace_lost()
        yield from super().generate(requests, sampling)

    def load_weights(self, version: int, publish: Publish) -> None:
        """See `RolloutGroup.load_weights`; requests stay in the engines, and go on under the new weights."""
        super().load_weights(version, publish)
        self._repeat()

    def _revive(self, engine: int, error: Exception) -> None:
        super()._revive(engine, error)
        self._lost.pop(engine, None)
        self._turns[engine].clear()
        self._ask_again.add(engine)
        if self._published is not None:  # otherwise it is given its weights together with the others
            self._repeat()

    def _repeat(self) -> None:
        """Ask engines in the place of dead ones what those had not answered."""
        engines, self._ask_again = self._ask_again, set()
        for engine in engines:
            self._turn(engine, list(self._queue.held[engine].values()))

    def _deal(self) -> None:
        for engine, share in enumerate(self._queue.deal()):
            if share:
                self._turn(engine, share)

    def _turn(self, engine: int, requests: list[GenerationRequest]) -> None:
        if engine not in self._lost and engine not in self._ask_again:
            self._turns[engine].append(self._group.submit(engine, "answered", requests, self._sampling, TURN_SECONDS))

    def _read(self, engine: int, turn: Any) -> list[Rollout]:
        try:
            rollouts: list[Rollout] = ray.get(turn)
        except DEATHS as error:
            self._lost[engine] = error
            self._turns[engine].clear()
            return []
        except RayTaskError as error:
            raise describe("rollout", engine, "answered", error) from error
        self._queue.answered(engine, rollouts)
        return rollouts
