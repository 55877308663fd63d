"""How a fault is declared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scene import Scene

Make = Callable[[Scene], object]


@dataclass(frozen=True)
class Fault:
    """One fault: how it is made, and what is promised."""

    name: str
    make: Make
    """Starts the run and does the harm."""
    base: str
    """The run of `scene.BASES`."""
    says: str | None
    """What a line that the run prints about it says; None: there is nothing to say, or nobody left to say it."""
    promise: str
    """What the run, started again by the same command where it ended, comes to: equal, rounding, or finished."""
    limit: float
    """Seconds after which a run that neither ended nor was through hangs."""
    within: float
    """Seconds within which the line about it comes."""
    leaves: str | None
    """A pattern of files that tell more, below the run's folder."""


STACKS = "hang/*/workers.txt"
"""What the watchdog leaves of a hang, beside the stacks of every worker."""
FAULTS: dict[str, Fault] = {}


def fault(
    base: str = "two ranks",
    *,
    says: str | None,
    promise: str = "equal",
    limit: float = 120.0,
    within: float = 60.0,
    leaves: str | None = None,
) -> Callable[[Make], Make]:
    """Declare what the function makes, under its name."""

    def declare(make: Make) -> Make:
        name = getattr(make, "__name__", "")
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, make, base, says, promise, limit, within, leaves)
        return make

    return declare
