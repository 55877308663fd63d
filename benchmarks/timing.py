"""Interleaved timing: what is compared runs in turns, so that a busy machine slows both sides alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import TypeVar

Side = Callable[[], float]
"""Does the work once and returns the seconds that count."""
Told = TypeVar("Told")
"""What a side returns of one round."""


def stopwatch(work: Callable[[], object]) -> Side:
    """A side whose seconds are those of the whole call."""

    def timed() -> float:
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin

    return timed


def interleave(sides: Mapping[str, Callable[[], Told]], *, warm_up: int, rounds: int) -> dict[str, list[Told]]:
    """Run the sides in turns (A B A B ...), `warm_up` unrecorded rounds first; what each told of every recorded round."""
    told: dict[str, list[Told]] = {name: [] for name in sides}
    for number in range(warm_up + rounds):
        for name, side in sides.items():
            one = side()
            if number >= warm_up:
                told[name].append(one)
    return told


def speed_ratio(ours: list[float], theirs: list[float]) -> float:
    """Speed of ours / speed of theirs at equal work: the median over rounds of the ratio within a round.

    The two runs of a round are neighbours in time, so that load which comes and goes between rounds cancels.
    """
    return median(their / our for our, their in zip(ours, theirs, strict=True))
