"""What a figure is: a key, a target, and a way to measure it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .system import Systems


class NotMeasured(Exception):
    """A figure could not be measured; the message says why in one line."""


class NotInstalled(NotMeasured):
    """Something optional is not installed, which the message names with the way to it: no failure."""


@dataclass(frozen=True)
class Context:
    """What every measurement gets."""

    systems: Systems
    """Running groups, shared by the figures of one model."""
    rounds: int
    """Recorded rounds of every interleaved comparison."""
    threads: int
    """OpenMP threads of each side."""
    directory: Path
    """Where runs that a measurement needs are written."""
    peers: Path
    """The environment that `make peers` makes."""

    def rounds_of(self, model: str) -> int:
        """The miniature's rounds take a second or two: three times as many."""
        return self.rounds * (3 if model == "miniature" else 1)


@dataclass(frozen=True)
class Measurement:
    """A value, and what it came from."""

    value: float
    details: dict[str, Any] = field(default_factory=dict)
    """Seconds of every round, sizes of the work, proofs that both sides did the same. JSON."""


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    key: str
    meaning: str
    target: float | None
    """None: shown, not judged."""
    direction: str
    """`>=` or `<=`: how a value meets the target."""
    measure: Callable[[Context], Measurement]
    """Raises NotMeasured when the machine lacks something it needs."""

    def met(self, value: float) -> bool | None:
        """Whether the value meets the target; None without one."""
        if self.target is None:
            return None
        return value >= self.target if self.direction == ">=" else value <= self.target
