"""Means over all tokens of all responses, with an interval over questions: a ratio of two sums."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from ..evaluation.statistics import Figure

_CHUNK_VALUES = 1 << 22


def pooled_mean(
    questions: Sequence[Hashable],
    sums: ArrayLike,
    counts: ArrayLike,
    *,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> Figure:
    """`sum(sums) / sum(counts)` with a percentile bootstrap interval over questions; `n` is the number of questions.

    Tokens of one response depend on one another, and so do the responses to one question: questions are resampled, each
    with all its tokens. A resample without any count has no value and is left out. NaN where nothing was counted.

    Args:
        questions: [N] the question of each response.
        sums, counts: [N] what each response adds to the numerator and to the denominator.
    """
    names = {name: position for position, name in enumerate(dict.fromkeys(questions))}
    position = np.array([names[name] for name in questions], dtype=np.int64)
    totals = [
        np.bincount(position, weights=np.asarray(values, dtype=np.float64), minlength=len(names))
        for values in (sums, counts)
    ]
    above, below = totals
    if below.sum() == 0:
        return Figure(math.nan, math.nan, math.nan, len(names))
    value = float(above.sum() / below.sum())
    draw = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_VALUES // len(names))
    found = []
    for start in range(0, resamples, chunk):
        drawn = draw.integers(len(names), size=(min(chunk, resamples - start), len(names)))
        numerator, denominator = above[drawn].sum(axis=1), below[drawn].sum(axis=1)
        kept = denominator > 0
        found.append(numerator[kept] / denominator[kept])
    low, high = np.quantile(np.concatenate(found), [(1 - level) / 2, (1 + level) / 2])
    return Figure(value, float(low), float(high), len(names))
