"""How far something is, how long it still takes, and where its time goes."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from ..settings import ScheduleSettings

SILENCE_SECONDS = 30.0
"""After so long without a word a wait says what it waits for, and for how long it has."""

START_SILENCE_SECONDS = 10.0
"""The same before there is anything to show, when whoever waits wonders whether it works at all."""

CHECKING = "checking configuration, model files and prompts ..."
"""The first line of a run, until everything that it names has been looked at."""
WAITING_FOR_RESOURCES = "waiting for resources"
RESOURCES_GRANTED = "resources granted"
"""How the lines begin by which a run tells that it waits for its place on the cluster, and that it has it."""


class Advance(Protocol):
    """Counts one item done, with its tokens where their speed is to be shown."""

    def __call__(self, tokens: int = 0) -> None: ...


class Progress:
    """Updates done of updates planned, and the time left at the pace of the last records."""

    def __init__(
        self, schedule: ScheduleSettings, clock: Callable[[], float] = time.monotonic, update: int = 0
    ) -> None:
        """`update` is where the run goes on from."""
        self.update = self._begin = update
        self.num_updates = min(schedule.max_updates, schedule.stop_after_updates or schedule.max_updates)
        """Updates after which the run will stop, as far as is known."""
        self._planned = self.num_updates
        self._passes = schedule.passes
        self._clock = clock
        self._records: deque[tuple[int, float]] = deque(maxlen=20)

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        """Take note of a record; `train/passes` bounds the run where schedule.passes does."""
        self.update = update
        if self._records and update < self._records[-1][0]:
            self._records.clear()
        if update != self._begin:  # an evaluation before the first update says nothing of how long updates take
            self._records.append((update, self._clock()))
        passes = metrics.get("train/passes", 0.0)
        if self._passes is not None and passes > 0 and update > 0:
            self.num_updates = min(self._planned, max(update, math.ceil(update * self._passes / passes)))

    @property
    def seconds_left(self) -> float | None:
        """None until two records of this process tell the pace."""
        if not self._records:
            return None
        (first, start), (last, end) = self._records[0], self._records[-1]
        if last == first:
            return None
        return (end - start) / (last - first) * max(0, self.num_updates - last)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextmanager
def every(seconds: float, call: Callable[[], None]) -> Iterator[None]:
    """Call `call` from a thread of its own every so many seconds until the end of the block."""
    stopped = threading.Event()

    def repeat() -> None:
        while not stopped.wait(seconds):
            call()

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()


@contextmanager
def waiting(terminal: Console, label: str, seconds: float = SILENCE_SECONDS) -> Iterator[Callable[[str], None]]:
    """Say `label ...`, and every so often for how long it has been so; what is yielded takes what the wait has come to."""
    begin, now = time.monotonic(), label

    def say(text: str) -> None:
        terminal.print(text, markup=False, highlight=False, soft_wrap=True)

    def come_to(what: str) -> None:
        nonlocal now
        now = f"{label}, {what}"

    say(f"{label} ...")
    with every(seconds, lambda: say(f"{now}: {duration(time.monotonic() - begin)} so far")):
        yield come_to


@contextmanager
def counted(
    terminal: Console, label: str, total: int, unit: str = "responses", seconds: float = SILENCE_SECONDS
) -> Iterator[Advance]:
    """Count to `total`: a bar on a terminal, otherwise a line at the start, every so often, and at the end."""
    if terminal.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=terminal) as bar:
            task = bar.add_task(label, total=total)
            yield lambda tokens=0: bar.advance(task)
        return
    begin = time.monotonic()
    done = tokens_done = 0

    def advance(tokens: int = 0) -> None:
        nonlocal done, tokens_done
        done, tokens_done = done + 1, tokens_done + tokens

    def say() -> None:
        passed = time.monotonic() - begin
        parts = [f"{label}: {done:,} of {total:,} {unit}"]
        if tokens_done:
            parts.append(f"{tokens_done / passed:,.0f} tokens/s")
        parts.append(f"{duration(passed)} so far" if not done else f"left {duration(passed / done * (total - done))}")
        terminal.print(" | ".join(parts), markup=False, highlight=False, soft_wrap=True)

    terminal.print(f"{label}: {total:,} {unit}", markup=False, highlight=False, soft_wrap=True)
    with every(seconds, say):
        yield advance
    took = duration(time.monotonic() - begin)
    terminal.print(f"{label}: done, {took}", markup=False, highlight=False, soft_wrap=True)


PHASES = ("generate", "score_wait", "logprobs", "update", "sync", "evaluate", "checkpoint", "profile")
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

    def now(self, label: str) -> None:
        """Show what the running phase has come to."""
        self._stack[-1] = (self._stack[-1][0], label)
        self._listener.phase(label)

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
