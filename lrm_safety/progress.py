"""How far the work of this process has come: the work tells it, and a thread beside it reads it.

A call of a worker's method consists of pieces (micro-batches, steps of an engine, buckets of weights) and of what lies between
them. Only the work itself moves the counter: a thread that still runs beside a main thread that hangs does not.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

Item = TypeVar("Item")
Class = TypeVar("Class", bound=type)


@dataclass(frozen=True)
class Reading:
    """What can be told of a process at one moment."""

    phase: str
    """The method that runs; empty: none."""
    calls: int
    """Calls that have begun."""
    done: int
    """Pieces of this call that are done."""
    unit: str
    """What the size of the present piece counts; empty between pieces."""
    size: float
    """Of the present piece."""
    seconds: float
    """Since the present piece, or what lies between two, began."""
    longest: float | None
    """Seconds of the longest such piece of this phase so far; None: none has ended yet."""
    largest: float
    """Size of the largest of them."""
    allowed: float
    """Seconds that the piece may take by a limit of its own, such as that of a request; 0: it has none."""
    has_pieces: bool
    """Whether calls of this phase are known to consist of pieces, so that what hangs in one is soon seen."""


class _Present(NamedTuple):
    phase: str = ""
    calls: int = 0
    done: int = 0
    unit: str = ""
    size: float = 1.0
    allowed: float = 0.0
    began: float = 0.0


class Progress:
    """The counter of one process. One thread works; any may read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._now = _Present(began=clock())  # replaced as a whole, so that a reader never sees half of a move
        self._ended: dict[tuple[str, str], tuple[float, float]] = {}
        """Longest seconds and largest size by phase and unit."""
        self._phases_with_pieces: set[str] = set()
        self._worked = 0.0

    @contextmanager
    def call(self, phase: str, done: int | None = None) -> Iterator[None]:
        """Around one call, or what goes on after a yield of one of which `done` pieces are done. Inside another call nothing
        happens: the outer one is the phase."""
        if self._now.phase:
            yield
            return
        began = self._clock()
        self._now = _Present(phase, self._now.calls + (done is None), done or 0, began=began)
        try:
            yield
            self._end()
        finally:
            self._now = _Present(calls=self._now.calls, began=self._clock())
            self._worked += self._now.began - began

    def take_work(self) -> float:
        """Seconds inside calls that have ended since this was asked last."""
        worked, self._worked = self._worked, 0.0
        return worked

    @contextmanager
    def piece(self, unit: str, size: float = 1.0, allowed: float = 0.0) -> Iterator[None]:
        """Around a piece of `size` units. One that fails is not counted, and says nothing about how long pieces take."""
        self._end()
        self._phases_with_pieces.add(self._now.phase)
        self._now = self._now._replace(unit=unit, size=size, allowed=allowed, began=self._clock())
        yield
        self._end()
        self._now = self._now._replace(unit="", size=1.0, allowed=0.0, done=self._now.done + 1, began=self._clock())

    def pieces(
        self, items: Iterable[Item], unit: str, size: Callable[[Item], float] = lambda item: 1.0, allowed: float = 0.0
    ) -> Iterator[Item]:
        """The items, each a piece while the loop is at it."""
        for item in items:
            with self.piece(unit, size(item), allowed):
                yield item

    def read(self) -> Reading:
        """Where the work is now."""
        now = self._now
        longest, largest = self._ended.get((now.phase, now.unit), (None, 0.0))
        seconds = self._clock() - now.began
        return Reading(
            now.phase,
            now.calls,
            now.done,
            now.unit,
            now.size,
            seconds,
            longest,
            largest,
            now.allowed,
            now.phase in self._phases_with_pieces,
        )

    def _end(self) -> None:
        now = self._now
        longest, largest = self._ended.get((now.phase, now.unit), (0.0, 0.0))
        self._ended[now.phase, now.unit] = max(longest, self._clock() - now.began), max(largest, now.size)


PROGRESS = Progress()
"""That of this process."""


def tells_phases(worker_class: Class) -> Class:
    """A class whose public methods are the phases of its process."""
    for name, method in list(vars(worker_class).items()):
        if inspect.isfunction(method) and not name.startswith("_"):
            setattr(
                worker_class, name, _generating(method) if inspect.isgeneratorfunction(method) else _calling(method)
            )
    return worker_class


def _calling(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def told(*arguments: Any, **options: Any) -> Any:
        with PROGRESS.call(method.__name__):
            return method(*arguments, **options)

    return told


def _generating(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def told(*arguments: Any, **options: Any) -> Iterator[Any]:
        items, done = method(*arguments, **options), None
        try:
            while True:
                with PROGRESS.call(method.__name__, done):
                    try:
                        item = next(items)
                    except StopIteration:
                        return
                    done = PROGRESS.read().done
                yield item  # no call while whoever asked for it takes its time
        finally:
            items.close()

    return told
