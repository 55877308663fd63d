"""The learning rate's course as a pure function of the update index, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from .options import ScheduleKind


def lr_multiplier(
    update: int,
    max_updates: int,
    *,
    kind: ScheduleKind = "cosine",
    warmup_fraction: float = 0.03,
    min_ratio: float = 0.1,
    from_zero: bool = False,
) -> float:
    """Factor on the peak learning rate for one optimiser step.

    Linear warm-up over W = ceil(warmup_fraction * max_updates) updates, then decay to `min_ratio`:

    - update u < W gets (u + 1) / W: the first update already moves, the last of the warm-up is at the peak;
    - the decay starts at the peak, reaches `min_ratio` exactly at update `max_updates - 1` and stays there.

    Args:
        update: index from 0.
        max_updates: number of optimiser steps in the schedule.
        kind: shape of the decay; `constant` stays at the peak after the warm-up.
        from_zero: update 0 gets 0, and every other what the one before it gets otherwise: the schedules of transformers,
            which never reach `min_ratio` within the run. Without a warm-up nothing moves.

    Raises:
        ValueError: an index or a ratio out of range, or an unknown kind.
    """
    if update < 0 or max_updates < 1:
        raise ValueError(f"need update >= 0 and max_updates >= 1, got update={update}, max_updates={max_updates}")
    if not (0.0 <= warmup_fraction <= 1.0 and 0.0 <= min_ratio <= 1.0):
        raise ValueError(f"warmup_fraction and min_ratio must lie in [0, 1], got {warmup_fraction} and {min_ratio}")
    if kind not in ("cosine", "linear", "constant"):
        raise ValueError(f"unknown learning-rate schedule {kind!r}: choose cosine, linear or constant")
    # 0.07 * 100 is 7.000000000000001 in floating point: without the slack it would warm up for 8 updates.
    warmup_updates = math.ceil(warmup_fraction * max_updates - 1e-9)
    if from_zero and warmup_updates:
        if update == 0:
            return 0.0
        update -= 1
    if update < warmup_updates:
        return (update + 1) / warmup_updates
    peak = max(warmup_updates - 1, 0)
    progress = min((update - peak) / max(max_updates - 1 - peak, 1), 1.0)
    if kind == "constant":
        return 1.0
    if kind == "linear":
        return 1.0 - (1.0 - min_ratio) * progress
    return min_ratio + (1.0 - min_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))
