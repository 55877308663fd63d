"""SIMULATED: a clock that skips what nobody computes, and engines that sample nothing but take their time.

A stand-in engine is what a continuously batching one costs: a step takes a fixed time and a little for each response that runs,
gives each of them one token, and a response whose last token it was leaves its place to one that waits.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lrm_safety.rollouts import GenerationRequest


class Clock:
    """Simulated seconds. What the controller computes takes the processor time that it takes here; waits are skipped; what the
    stand-ins compute takes no time at all."""

    def __init__(self, own: Callable[[], float] = time.thread_time) -> None:
        """`own`: processor seconds of the controller's thread; `lambda: 0.0`: a controller that costs nothing."""
        self._own = own
        self._skipped = 0.0
        self._beside = 0.0
        self._entered: float | None = None

    def now(self) -> float:
        """Seconds since some beginning."""
        return self.computed() + self._skipped

    def computed(self) -> float:
        """Those of them that the controller computed."""
        return (self._own() if self._entered is None else self._entered) - self._beside

    def skip_to(self, moment: float) -> None:
        """Nothing happens until then; a moment that has passed changes nothing."""
        self._skipped += max(0.0, moment - self.now())

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What is computed inside is the stand-ins' own and costs nothing. Not to be entered twice."""
        assert self._entered is None, "a stand-in inside a stand-in"
        self._entered = self._own()
        try:
            yield
        finally:
            self._beside += self._own() - self._entered
            self._entered = None


@dataclass(frozen=True)
class EngineCosts:
    """Seconds that one engine takes."""

    step: float
    """Of a decoding step, beside what follows."""
    sequence: float
    """That each running response adds to a step."""
    read: float = 0.0
    """Of reading one token of a prompt, or of a response whose KV cache is computed again."""


class Ended(NamedTuple):
    """A response as an engine lets it go."""

    request: GenerationRequest
    length: int
    spans: tuple[tuple[int, int], ...]
    """(first token, version of the weights), oldest first."""


@dataclass(order=True)
class _Running:
    ends: int
    order: int
    begins: int = field(compare=False)
    request: GenerationRequest = field(compare=False)
    spans: list[tuple[int, int]] = field(compare=False)


class SimulatedEngine:
    """One engine. Moments are those of the clock; `advance` brings it up to one, before it is told anything at that moment."""

    def __init__(self, places: int, costs: EngineCosts, length_of: Callable[[GenerationRequest], int]) -> None:
        """`places`: responses that run at one time; `length_of`: tokens of the response to a request."""
        self._places, self._costs, self._length_of = places, costs, length_of
        self._running: list[_Running] = []
        self._waiting: deque[GenerationRequest] = deque()
        self._step, self._order, self._time = 0, 0, 0.0
        self._work = 0.0
        self.version = 0

    def add(self, requests: Sequence[GenerationRequest]) -> None:
        """Behind those that wait for a place."""
        self._waiting.extend(requests)
        self._fill()

    @property
    def next_end(self) -> float:
        """When the next response ends; infinite where none runs."""
        if not self._running:
            return math.inf
        return self._time + (self._running[0].ends - self._step) * self._step_seconds()

    def advance(self, now: float) -> list[Ended]:
        """What has ended by then, in this order."""
        ended: list[Ended] = []
        while self._running:
            if (moment := self.next_end) > now:
                steps = max(0, int((now - self._time) / self._step_seconds()))
                self._pass(steps, self._time + steps * self._step_seconds())
                return ended
            self._pass(self._running[0].ends - self._step, moment)
            while self._running and self._running[0].ends == self._step:
                one = heapq.heappop(self._running)
                ended.append(Ended(one.request, one.ends - one.begins, tuple(one.spans)))
            self._fill()
        self._time = max(self._time, now)
        return ended

    def publish(self, version: int, until: float) -> None:
        """No step is made before `until`; what runs goes on under the new weights, its KV cache computed again."""
        self.version = version
        self._time = max(self._time, until)
        tokens = 0
        for one in self._running:
            if (sampled := self._step - one.begins) == 0:
                one.spans.clear()
            one.spans.append((sampled, version))
            tokens += len(one.request.prompt_ids) + sampled
        self._read(tokens)

    def cancel(self) -> dict[int, int]:
        """Forget everything; by `request_id`, the tokens that had been sampled."""
        sampled = {one.request.request_id: self._step - one.begins for one in self._running}
        sampled |= {one.request_id: 0 for one in self._waiting}
        self._running.clear()
        self._waiting.clear()
        return sampled

    def take_work(self) -> float:
        """Seconds at work since this was asked last."""
        work, self._work = self._work, 0.0
        return work

    def _step_seconds(self) -> float:
        return self._costs.step + self._costs.sequence * len(self._running)

    def _pass(self, steps: int, moment: float) -> None:
        self._work += moment - self._time if steps else 0.0
        self._step, self._time = self._step + steps, moment if steps else self._time

    def _fill(self) -> None:
        tokens = 0
        while self._waiting and len(self._running) < self._places:
            request = self._waiting.popleft()
            ends = self._step + self._length_of(request)
            one = _Running(ends, self._order, self._step, request, [(0, self.version)])
            heapq.heappush(self._running, one)
            self._order += 1
            tokens += len(request.prompt_ids)
        self._read(tokens)

    def _read(self, tokens: int) -> None:
        self._time += tokens * self._costs.read
        self._work += tokens * self._costs.read


@dataclass(frozen=True)
class Lengths:
    """Tokens of responses: log-normal, half of the variance the prompt's; the same for the same prompt and seed."""

    median: float
    deviation: float
    """Of the logarithm."""
    limit: int

    def __call__(self, request: GenerationRequest) -> int:
        normal = (
            np.random.default_rng([kind, one]).normal() for kind, one in ((0, request.prompt_index), (1, request.seed))
        )
        return max(1, min(self.limit, round(self.median * math.exp(self.deviation * sum(normal) / math.sqrt(2)))))
