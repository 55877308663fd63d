"""How two sets of scores are ordered: AUC and rank correlations, each defined once; what cannot be told is NaN."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import scipy  # its parts are loaded by their first use
from numpy.typing import ArrayLike

from .statistics import CHUNK_VALUES, LEVEL, flat, percentiles


def auc(high: ArrayLike, low: ArrayLike) -> float:
    """Chance that a value of `high` exceeds one of `low`, ties counting half (Mann-Whitney's U over its maximum)."""
    first, second = flat(high), flat(low)
    if not first.size or not second.size:
        return math.nan
    ranks = scipy.stats.rankdata(np.concatenate([first, second]))
    return float((ranks[: first.size].sum() - first.size * (first.size + 1) / 2) / (first.size * second.size))


def auc_interval(
    high: ArrayLike,
    low: ArrayLike,
    high_prompts: Sequence[Hashable],
    low_prompts: Sequence[Hashable],
    *,
    resamples: int,
    seed: int,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `auc`. Whole prompts are drawn with all their texts, since texts of one prompt are
    not independent; a draw that misses one label altogether is left out. (NaN, NaN) where no draw is left.

    With perfect separation the interval has no width, which is the bootstrap's weakness and not certainty.
    """
    first, second = flat(high), flat(low)
    assert first.size == len(high_prompts) and second.size == len(low_prompts)
    if not first.size or not second.size:
        return math.nan, math.nan
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys([*high_prompts, *low_prompts]))}
    in_high, in_low = (np.array([places[prompt] for prompt in side]) for side in (high_prompts, low_prompts))
    draw = np.random.default_rng(seed)
    drawn = draw.multinomial(len(places), np.full(len(places), 1 / len(places)), size=resamples).astype(np.float64)
    weights_high, weights_low = drawn[:, in_high], drawn[:, in_low]
    wins = np.zeros(resamples)
    rows = max(1, CHUNK_VALUES // second.size)
    for start in range(0, first.size, rows):
        block = first[start : start + rows, None]
        won = (block > second) + 0.5 * (block == second)
        wins += ((weights_high[:, start : start + rows] @ won) * weights_low).sum(axis=1)
    pairs = weights_high.sum(axis=1) * weights_low.sum(axis=1)
    kept = pairs > 0
    return percentiles(wins[kept] / pairs[kept], LEVEL) if kept.any() else (math.nan, math.nan)


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation, ties at their mean rank; NaN for fewer than 3 values or where one side is constant."""
    return correlation(scipy.stats.rankdata(flat(a)), scipy.stats.rankdata(flat(b)))


def correlation(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's of values of the size of ranks; NaN where `spearman` is."""
    first, second = flat(a), flat(b)
    # Ranks are at least a half apart: what varies less is rounding of a constant.
    if first.size < 3 or float(first.std()) * float(second.std()) <= 1e-9:
        return math.nan
    return float(np.corrcoef(first, second)[0, 1])


def kendall(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b (1945), which allows for ties on either side; NaN where `spearman` is."""
    first, second = flat(a), flat(b)
    # Any method but the exact one: what it is exact about is a p-value that nobody reads.
    return float(scipy.stats.kendalltau(first, second, method="asymptotic").statistic) if first.size > 2 else math.nan
