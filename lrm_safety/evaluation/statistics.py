"""Figures over questions and how sure they are: pure functions of float64 arrays.

Samples of one question are not independent, so they are averaged first. Nor are questions that were made of one another
(rewrites of one prompt, variants of one template): they are a cluster, and what is resampled and tested are clusters.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Most values that one step of a resampling holds at once (32 MiB as float64).
_CHUNK_VALUES = 1 << 22
# Up to this many questions that differ, every pattern of signs is counted; beyond, patterns are drawn.
_EXACT_SIGN_FLIPS = 16


@dataclass(frozen=True)
class Figure:
    """A figure with its interval, over `n` questions; NaN where there are none."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """For results files; NaN, which JSON lacks, becomes null."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: None if math.isnan(number) else number for name, number in numbers.items()} | {"n": self.n}


@dataclass(frozen=True)
class PairedDifference:
    """`a` minus `b` over the questions that both have.

    `p_value` is two-sided, for "neither is better on any question". `num_a_higher`, `num_b_higher` count questions;
    `num_unmatched` counts those that only one side has, which are left out.
    """

    figure: Figure
    p_value: float
    test: Literal["mcnemar_exact", "sign_flip_exact", "sign_flip_sampled"]
    num_a_higher: int
    num_b_higher: int
    num_unmatched: int


def question_means(samples: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """`[num_questions]` means over each question's samples, whose number may differ; every question needs one."""
    arrays = [np.asarray(values, dtype=np.float64).ravel() for values in samples]
    assert all(array.size for array in arrays), "a question without samples has no mean"
    return np.array([array.mean() for array in arrays], dtype=np.float64)


def majority_vote(votes: Sequence[Hashable | None], correct: ArrayLike) -> float:
    """Chance that the most frequent answer of one question is correct, with ties broken by a fair draw.

    `votes` are what the extracted answers stand for, `correct` (`[num_samples]`) their grades. None is no vote; without
    any vote the chance is 0. Where choices are shuffled per sample, vote for the choice and not for its letter. Grades
    that differ within one vote count by their mean.
    """
    grades = np.asarray(correct, dtype=np.float64).ravel()
    assert len(votes) == grades.size, "one grade for each vote"
    groups: dict[Hashable, list[float]] = {}
    for vote, grade in zip(votes, grades.tolist(), strict=True):
        if vote is not None:
            groups.setdefault(vote, []).append(grade)
    if not groups:
        return 0.0
    most = max(len(group) for group in groups.values())
    winners = [sum(group) / most for group in groups.values() if len(group) == most]
    return sum(winners) / len(winners)


def bootstrap_interval(
    per_question: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over questions (`per_question`: `[n]`), the same for the same seed.

    `clusters` (`[n]`) names each question's cluster: whole clusters are drawn. None: each question is its own.
    Memory stays bounded for any n. (NaN, NaN) for n = 0. When all values are equal, n = 1 among them, the interval has
    no width: a known weakness of the bootstrap, not certainty; `estimate` uses a Wilson interval for shares.
    Coverage falls short of `level` for few clusters (below about 30).
    """
    assert 0 < level < 1 and resamples > 0
    values = np.asarray(per_question, dtype=np.float64).ravel()
    if values.size == 0:
        return math.nan, math.nan
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])
    sums, sizes = _by_cluster(values, clusters)
    draw = np.random.default_rng(seed)
    means = np.empty(resamples, dtype=np.float64)
    chunk = max(1, _CHUNK_VALUES // sums.size)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = draw.integers(sums.size, size=(rows, sums.size))
        means[start : start + rows] = (
            sums[drawn].mean(axis=1) if sums.size == values.size else sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
        )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(
    successes: float, n: float, level: float = 0.95, *, degrees: float = math.inf
) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (NaN, NaN) for n = 0.

    `n` may be an effective size (see `effective_size`), `degrees` are the degrees of freedom that its estimate has.
    """
    assert -1e-9 <= successes <= n * (1 + 1e-9) or n == 0
    if n == 0:
        return math.nan, math.nan
    z = _student((1 + level) / 2, degrees)
    share = min(max(successes / n, 0.0), 1.0)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and 1 the bound is the share itself; rounding must not put it on the wrong side.
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def effective_size(per_question: ArrayLike, clusters: Sequence[Hashable] | None = None) -> float:
    """How many independent yes-or-no answers would tell a share as surely as these values in 0..1 do (n >= 1).

    p (1 - p) over the variance of the mean between clusters (Kish; Korn and Graubard 1998). Values that are all 0 or 1 and
    each their own cluster: n itself. Where the values do not differ they cannot tell their variance: the number of clusters.
    """
    values = np.asarray(per_question, dtype=np.float64).ravel()
    sums, sizes = _by_cluster(values, clusters)
    share = float(values.mean())
    residuals = sums - share * sizes
    squares = float(residuals @ residuals)
    if sums.size < 2 or squares <= 1e-12 * sizes.sum():
        return float(sums.size)
    if sums.size == values.size and bool(np.isin(values, (0.0, 1.0)).all()):
        return float(values.size)
    variance = squares / sizes.sum() ** 2 * sums.size / (sums.size - 1)
    return float(share * (1 - share) / variance)


def estimate(
    per_question: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    share: bool = True,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> Figure:
    """Mean over questions with its interval: of shares Wilson's, of the effective size (never outside 0..1, and with a
    width where all values are equal); of everything else the bootstrap's. Both are over clusters.

    `share`: the values are shares of something. A length is none, though it may be 0; nor is a value outside 0..1.
    """
    values = np.asarray(per_question, dtype=np.float64).ravel()
    value = _mean(values)
    if share and values.size and bool(((values >= 0) & (values <= 1)).all()):
        value = float(values[0]) if np.all(values == values[0]) else value
        size = effective_size(values, clusters)
        num_clusters = _by_cluster(values, clusters)[0].size
        # Of independent zeros and ones the size is known, not estimated.
        known = num_clusters < 2 or size in (float(values.size), float(num_clusters))
        low, high = wilson_interval(value * size, size, level, degrees=math.inf if known else num_clusters - 1)
        low, high = min(low, value), max(high, value)
    else:
        low, high = bootstrap_interval(values, clusters=clusters, level=level, resamples=resamples, seed=seed)
    return Figure(float(value), float(low), float(high), int(values.size))


def paired_difference(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    clusters: Mapping[str, str] | None = None,
    level: float = 0.95,
    resamples: int = 2000,
    seed: int,
) -> PairedDifference:
    """Difference `a - b` of two runs over the same questions, matched by id (id -> value of the question).

    `clusters`: id -> cluster, of questions that are not their own. Interval and test are over clusters. The p-value is that
    of McNemar's exact test where all values are 0 or 1 and no cluster holds two questions; else of the sign-flip test of
    the clusters' sums, exact over all patterns of signs up to 16 clusters that differ, beyond that over
    `max(resamples, 10000)` drawn patterns, the observed one counted in. Without a question in common the figure and the
    p-value are NaN; without one that differs the p-value is 1. Where every difference is the same, the interval has no
    width (see `bootstrap_interval`).
    """
    # Sorted: the draw must not depend on the order of either run.
    ids = sorted(a.keys() & b.keys())
    first, second = (np.array([side[key] for key in ids], dtype=np.float64) for side in (a, b))
    differences = first - second
    units = [(clusters or {}).get(key, f"question {key}") for key in ids]
    sums = _by_cluster(differences, units)[0]
    num_a_higher, num_b_higher = int((differences > 0).sum()), int((differences < 0).sum())
    test: Literal["mcnemar_exact", "sign_flip_exact", "sign_flip_sampled"]
    if sums.size == len(ids) and bool(np.isin(np.concatenate([first, second]), (0.0, 1.0)).all()):
        test, p_value = "mcnemar_exact", mcnemar_p_value(num_a_higher, num_b_higher)
    elif np.count_nonzero(sums) <= _EXACT_SIGN_FLIPS:
        test, p_value = "sign_flip_exact", _exact_sign_flip(sums)
    else:
        test, p_value = "sign_flip_sampled", _sampled_sign_flip(sums, max(resamples, 10_000), seed)
    low, high = bootstrap_interval(differences, clusters=units, level=level, resamples=resamples, seed=seed)
    return PairedDifference(
        figure=Figure(_mean(differences), low, high, len(ids)),
        p_value=p_value if ids else math.nan,
        test=test,
        num_a_higher=num_a_higher,
        num_b_higher=num_b_higher,
        num_unmatched=len(a.keys() ^ b.keys()),
    )


def mcnemar_p_value(num_only_a: int, num_only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: a fair coin over the questions on which only one side is right."""
    n = num_only_a + num_only_b
    tail = sum(math.comb(n, k) for k in range(min(num_only_a, num_only_b) + 1))
    return min(1.0, 2 * tail / 2**n)  # of integers: exact however large they are


def _exact_sign_flip(differences: NDArray[np.float64]) -> float:
    nonzero = np.abs(differences[differences != 0])
    sums = np.zeros(1)
    for size in nonzero:
        sums = np.concatenate([sums + size, sums - size])
    return float(np.mean(_at_least(np.abs(sums), differences)))


def _sampled_sign_flip(differences: NDArray[np.float64], patterns: int, seed: int) -> float:
    nonzero = np.abs(differences[differences != 0])
    draw = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_VALUES // nonzero.size)
    num_as_extreme = 0
    for start in range(0, patterns, chunk):
        signs = draw.integers(2, size=(min(chunk, patterns - start), nonzero.size)) * 2.0 - 1.0
        num_as_extreme += int(_at_least(np.abs(signs @ nonzero), differences).sum())
    return (1 + num_as_extreme) / (1 + patterns)


def _at_least(sums: NDArray[np.float64], differences: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Sums in another order differ in their last bits; equal sums must count as equal.
    return sums >= abs(float(differences.sum())) - 1e-9 * float(np.abs(differences).sum())


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else math.nan


def _by_cluster(
    values: NDArray[np.float64], clusters: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum and size of each cluster, in the order in which clusters first come."""
    if clusters is None:
        return values, np.ones_like(values)
    assert len(clusters) == values.size, "one cluster for each question"
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.int64)
    sums = np.bincount(codes, weights=values).astype(np.float64)
    return sums, np.bincount(codes).astype(np.float64)


def _student(probability: float, degrees: float) -> float:
    """Quantile of Student's distribution by Cornish and Fisher's expansion, within 1% of it from 4 degrees of freedom on;
    the normal one for infinitely many."""
    z = NormalDist().inv_cdf(probability)
    if math.isinf(degrees):
        return z
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3
