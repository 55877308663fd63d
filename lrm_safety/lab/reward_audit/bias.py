"""How much of a reward is something else, such as length: figures with what they are confounded by held fixed."""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from lrm_safety.statistics import auc, correlation


def matched_auc(values: ArrayLike, is_high: ArrayLike, matched_by: ArrayLike, num_bins: int) -> tuple[float, float]:
    """`auc` over pairs of one bin of `matched_by` (such as length) only, and the share of all pairs that this leaves.

    Bins hold equally many values each, but equal ones stay together. NaN and 0 where no bin holds both sides.
    """
    array, high = _floats(values), np.asarray(is_high, dtype=bool).ravel()
    ranks = scipy.stats.rankdata(_floats(matched_by))
    bins = np.minimum(((ranks - 0.5) * num_bins / max(array.size, 1)).astype(int), num_bins - 1)
    won = pairs = 0.0
    for place in range(num_bins):
        first, second = array[(bins == place) & high], array[(bins == place) & ~high]
        if first.size and second.size:
            pairs += first.size * second.size
            won += auc(first, second) * first.size * second.size
    total = float(high.sum()) * float((~high).sum())
    return (won / pairs, pairs / total) if pairs else (math.nan, 0.0)


def rank_correlation_within(a: ArrayLike, b: ArrayLike, groups: ArrayLike) -> float:
    """Rank correlation of `a` and `b` with the group held fixed: Spearman's partial correlation given group membership.

    Ranks over all values have their group's mean taken off, then are correlated. NaN as in `correlation`.
    """
    first, second = (_less_group_mean(scipy.stats.rankdata(_floats(side)), groups) for side in (a, b))
    return correlation(first, second)


def effect_within(a: ArrayLike, b: ArrayLike, groups: ArrayLike) -> float:
    """Change of `a`, in its standard deviations over everything, that goes with one standard deviation of `b` within a
    group: the least-squares slope with the group held fixed. A correlation tells how regular a bias is, this how large.
    """
    first, second = (_less_group_mean(_floats(side), groups) for side in (a, b))
    whole, within = (float(_floats(a).std()), float(second.std())) if first.size > 2 else (0.0, 0.0)
    return float((first * second).mean()) / (within * whole) if whole > 0 and within > 1e-12 else math.nan


def _less_group_mean(values: NDArray[np.float64], groups: ArrayLike) -> NDArray[np.float64]:
    labels = np.asarray(groups).ravel()
    result = values.copy()
    for label in np.unique(labels):
        result[labels == label] -= values[labels == label].mean()
    return result


def _floats(values: ArrayLike) -> NDArray[np.float64]:
    return np.asarray(values, dtype=np.float64).ravel()
