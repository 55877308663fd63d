"""Separation, rank agreement and bias as pure functions of float64 arrays. Figures that cannot be told are NaN."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# Most values that one step holds at once (32 MiB as float64).
_CHUNK_VALUES = 1 << 22


def auc(high: ArrayLike, low: ArrayLike) -> float:
    """Chance that a value of `high` exceeds one of `low`, ties counting half (Mann-Whitney's U over its maximum)."""
    first, second = np.asarray(high, dtype=np.float64).ravel(), np.asarray(low, dtype=np.float64).ravel()
    if not first.size or not second.size:
        return math.nan
    ranks = average_ranks(np.concatenate([first, second]))
    return float((ranks[: first.size].sum() - first.size * (first.size + 1) / 2) / (first.size * second.size))


def auc_interval(
    high: ArrayLike,
    low: ArrayLike,
    high_prompts: Sequence[Hashable],
    low_prompts: Sequence[Hashable],
    *,
    level: float = 0.95,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `auc`. Whole prompts are drawn with all their texts, since texts of one prompt are
    not independent; a draw that misses one label altogether is left out. (NaN, NaN) where no draw is left.

    With perfect separation the interval has no width, which is the bootstrap's weakness and not certainty.
    """
    first, second = np.asarray(high, dtype=np.float64).ravel(), np.asarray(low, dtype=np.float64).ravel()
    assert first.size == len(high_prompts) and second.size == len(low_prompts)
    if not first.size or not second.size:
        return math.nan, math.nan
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys([*high_prompts, *low_prompts]))}
    in_high = np.array([places[prompt] for prompt in high_prompts])
    in_low = np.array([places[prompt] for prompt in low_prompts])
    draw = np.random.default_rng(seed)
    drawn = draw.multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples).astype(np.float64)
    weights_high, weights_low = drawn[:, in_high], drawn[:, in_low]
    wins = np.zeros(resamples)
    rows = max(1, _CHUNK_VALUES // second.size)
    for start in range(0, first.size, rows):
        block = first[start : start + rows, None]
        won = (block > second) + 0.5 * (block == second)
        wins += ((weights_high[:, start : start + rows] @ won) * weights_low).sum(axis=1)
    pairs = weights_high.sum(axis=1) * weights_low.sum(axis=1)
    kept = pairs > 0
    if not kept.any():
        return math.nan, math.nan
    low_bound, high_bound = np.quantile(wins[kept] / pairs[kept], [(1 - level) / 2, (1 + level) / 2])
    return float(low_bound), float(high_bound)


def average_ranks(values: ArrayLike) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    array = np.asarray(values, dtype=np.float64).ravel()
    _, inverse, counts = np.unique(array, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN for fewer than 3 values or where one side is constant."""
    return _pearson(average_ranks(a), average_ranks(b))


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b (1945), which allows for ties on either side; NaN where `spearman` is."""
    first, second = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    assert first.size == second.size
    if first.size < 3:
        return math.nan
    agreement = untied_first = untied_second = 0.0
    rows = max(1, _CHUNK_VALUES // first.size)
    for start in range(0, first.size, rows):
        signs_first = np.sign(first[start : start + rows, None] - first)
        signs_second = np.sign(second[start : start + rows, None] - second)
        agreement += float((signs_first * signs_second).sum())
        untied_first += float(np.abs(signs_first).sum())
        untied_second += float(np.abs(signs_second).sum())
    if not untied_first or not untied_second:
        return math.nan
    return agreement / math.sqrt(untied_first * untied_second)


def rank_correlation_within(a: ArrayLike, b: ArrayLike, groups: ArrayLike) -> float:
    """Rank correlation of `a` and `b` with the group held fixed: Spearman's partial correlation given group membership.

    Ranks over all values have their group's mean taken off, then are correlated. NaN as in `spearman`.
    """
    labels = np.asarray(groups).ravel()
    first, second = average_ranks(a), average_ranks(b)
    for label in np.unique(labels):
        inside = labels == label
        first[inside] -= first[inside].mean()
        second[inside] -= second[inside].mean()
    return _pearson(first, second)


def effect_within(a: ArrayLike, b: ArrayLike, groups: ArrayLike) -> float:
    """Change of `a`, in its standard deviations over everything, that goes with one standard deviation of `b` within a
    group: the least-squares slope with the group held fixed. A correlation tells how regular a bias is, this how large.
    """
    first, second, labels = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64), np.asarray(groups).ravel()
    if first.size < 3:
        return math.nan
    whole = float(first.std())
    for label in np.unique(labels):
        inside = labels == label
        first[inside] -= first[inside].mean()
        second[inside] -= second[inside].mean()
    within = float(second.std())
    if not whole > 0 or not within > 1e-12:
        return math.nan
    return float((first * second).mean()) / (within * whole)


def matched_auc(values: ArrayLike, is_high: ArrayLike, matched_by: ArrayLike, num_bins: int) -> tuple[float, float]:
    """`auc` over pairs of one bin of `matched_by` (such as length) only, and the share of all pairs that this leaves.

    Bins hold equally many values each, but equal ones stay together. NaN and 0 where no bin holds both sides.
    """
    array, high = np.asarray(values, dtype=np.float64).ravel(), np.asarray(is_high, dtype=bool).ravel()
    ranks = average_ranks(matched_by)
    bins = np.minimum(((ranks - 0.5) * num_bins / max(array.size, 1)).astype(int), num_bins - 1)
    won = pairs = 0.0
    for place in range(num_bins):
        first, second = array[(bins == place) & high], array[(bins == place) & ~high]
        if first.size and second.size:
            pairs += first.size * second.size
            won += auc(first, second) * first.size * second.size
    total = float(high.sum()) * float((~high).sum())
    return (won / pairs, pairs / total) if pairs else (math.nan, 0.0)


def _pearson(a: Floats, b: Floats) -> float:
    assert a.size == b.size
    if a.size < 3:
        return math.nan
    first, second = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(first @ first) * float(second @ second))
    # Ranks are at least a half apart: what is smaller is rounding of a constant.
    return float(first @ second) / scale if scale > 1e-9 * a.size else math.nan
