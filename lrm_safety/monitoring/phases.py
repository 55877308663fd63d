"""Where the controller's time goes: one stopwatch for all phases of an iteration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

PHASES = ("generate", "score_wait", "logprobs", "update", "sync", "evaluate", "checkpoint")
"""Phases of an iteration; each is the metric time/NAME_seconds."""


class PhaseListener(Protocol):
    """Whoever shows the current phase."""

    def phase(self, name: str | None) -> None:
        """`name` is what runs from now on; None: no phase."""


class Phases:
    """Accumulates exclusive seconds per phase and tells a listener what is running.

    A phase inside another one is subtracted from the outer one, so that the phases never sum to more than the
    iteration. Not for use from several threads.
    """

    def __init__(self, listener: PhaseListener, clock: Callable[[], float] = time.monotonic) -> None:
        self._listener = listener
        self._clock = clock
        self._seconds: dict[str, float] = {}
        self._stack: list[tuple[str, str]] = []
        self._mark = self._taken = clock()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure one of PHASES (another name is an AssertionError)."""
        assert name in PHASES, f"unknown phase {name!r}"
        with self._running(name, name):
            yield

    @contextmanager
    def startup(self, name: str) -> Iterator[None]:
        """Measure and show a start-up phase of any name, such as "start groups"; all add to time/startup_seconds."""
        with self._running("startup", name):
            yield

    def take(self) -> dict[str, float]:
        """Seconds since the last call as metrics, then start from zero.

        Holds time/NAME_seconds of every phase that ran, time/iteration_seconds, and time/controller_seconds: the rest.
        """
        self._charge()
        now = self._mark
        total = now - self._taken
        phases, self._seconds, self._taken = self._seconds, {}, now
        metrics = {f"time/{name}_seconds": seconds for name, seconds in phases.items()}
        return metrics | {
            "time/iteration_seconds": total,
            "time/controller_seconds": max(0.0, total - sum(phases.values())),
        }

    @contextmanager
    def _running(self, key: str, label: str) -> Iterator[None]:
        self._charge()
        self._stack.append((key, label))
        self._listener.phase(label)
        try:
            yield
        finally:
            self._charge()
            self._stack.pop()
            self._listener.phase(self._stack[-1][1] if self._stack else None)

    def _charge(self) -> None:
        """Give the time since the last change to the innermost running phase."""
        now = self._clock()
        if self._stack:
            key = self._stack[-1][0]
            self._seconds[key] = self._seconds.get(key, 0.0) + now - self._mark
        self._mark = now
