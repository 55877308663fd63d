"""Every mean, interval, test and kappa, each defined once: pure functions of float64 arrays, over scipy.

Samples of one question are not independent, so they are averaged first. Nor are questions that were made of one another
(rewrites of one prompt, variants of one template): they are a cluster, and what is resampled and tested are clusters.
What cannot be told is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np
import scipy  # scipy.stats, which takes half a second, is loaded by its first use, as scipy.special is
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

LEVEL = 0.95
"""Of every interval in a result: 95%."""
CHUNK_VALUES = 1 << 22
"""Most values that one step of a resampling holds at once (32 MiB as float64)."""
# Up to this many clusters that differ, every pattern of signs is counted; beyond, patterns are drawn.
_EXACT_SIGN_FLIPS = 16


@dataclass(frozen=True)
class Estimate:
    """A value with its interval, over `n` questions; NaN where there are none."""

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class PairedDifference:
    """`a` minus `b` over the questions that both have.

    `p_value` is two-sided, for "neither is better on any question". `num_a_higher`, `num_b_higher` count questions,
    `num_clusters` what interval and test are over; `num_unmatched` questions that only one side has are left out.
    """

    estimate: Estimate
    p_value: float
    test: Literal["mcnemar_exact", "sign_flip_exact", "sign_flip_sampled"]
    num_a_higher: int
    num_b_higher: int
    num_unmatched: int
    num_clusters: int


# Means of questions


def question_means(samples: Sequence[ArrayLike]) -> Floats:
    """`[num_questions]` means over each question's samples, whose number may differ; every question needs one."""
    arrays = [flat(values) for values in samples]
    assert all(array.size for array in arrays), "a question without samples has no mean"
    return np.array([array.mean() for array in arrays], dtype=np.float64)


def pass_at_k(scores: ArrayLike, k: int) -> float:
    """Expected best score of `k` samples of one question, k <= n, drawn without repetition from the `[n]` that there are.

    Of zeros and ones, c of them ones: the unbiased pass@k = 1 - C(n - c, k) / C(n, k) of Chen et al. 2021 (arXiv 2107.03374).
    """
    values = np.sort(flat(scores))
    assert 1 <= k <= values.size, f"{k} samples cannot be drawn from {values.size}"
    # The i-th from below is the best of C(i, k - 1) of the C(n, k) draws. Fractions: C(64, 32) is more than a float holds, and
    # the share of all is 1, not 1 and a last bit.
    best = sum(Fraction(float(value)) * math.comb(i, k - 1) for i, value in enumerate(values))
    return float(best / math.comb(values.size, k))


def estimate(
    per_question: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    share: bool = True,
    resamples: int = 2000,
    seed: int,
) -> Estimate:
    """Mean over questions with its interval: of shares Wilson's, of the effective size (never outside 0..1, and with a
    width where all values are equal); of everything else the bootstrap's. Both are over clusters.

    `share`: the values are shares of something. A length is none, though it may be 0; nor is a value outside 0..1.
    """
    values = flat(per_question)
    value = _mean(values)
    if share and values.size and bool(((values >= 0) & (values <= 1)).all()):
        value = float(values[0]) if np.all(values == values[0]) else value
        size = effective_size(values, clusters)
        num_clusters = _by_cluster(values, clusters)[0].size
        # Of independent zeros and ones the size is known, not estimated.
        known = num_clusters < 2 or size in (float(values.size), float(num_clusters))
        low, high = wilson_interval(value * size, size, degrees=math.inf if known else num_clusters - 1)
        low, high = min(low, value), max(high, value)
    else:
        low, high = bootstrap_interval(values, clusters=clusters, resamples=resamples, seed=seed)
    return Estimate(value, low, high, values.size)


def bootstrap_interval(
    per_question: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    level: float = LEVEL,
    resamples: int = 2000,
    seed: int,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over questions (`per_question`: `[n]`), the same for the same seed.

    `clusters` (`[n]`) names each question's cluster: whole clusters are drawn. None: each question is its own.
    Memory stays bounded for any n. (NaN, NaN) for n = 0. When all values are equal, n = 1 among them, the interval has
    no width: a known weakness of the bootstrap, not certainty; `estimate` uses a Wilson interval for shares.
    Coverage falls short of `level` for few clusters (below about 30).
    """
    values = flat(per_question)
    if values.size == 0:
        return math.nan, math.nan
    if np.all(values == values[0]):
        return float(values[0]), float(values[0])
    return _bootstrap_ratio(*_by_cluster(values, clusters), level, resamples, seed)


def pooled_mean(
    questions: Sequence[Hashable], sums: ArrayLike, counts: ArrayLike, *, resamples: int = 2000, seed: int
) -> Estimate:
    """Mean over all tokens of all responses, `sum(sums) / sum(counts)`; `n` is the number of questions.

    `questions`: `[N]` the question of each response; `sums`, `counts`: `[N]` what it adds to numerator and denominator.
    Tokens of one response depend on one another, and so do the responses to one question: in the percentile bootstrap
    questions are drawn, each with all its tokens. A draw without any count has no value and is left out. NaN where
    nothing was counted.
    """
    above, sizes = _by_cluster(flat(sums), questions)
    below, _ = _by_cluster(flat(counts), questions)
    if below.sum() == 0:
        return Estimate(math.nan, math.nan, math.nan, sizes.size)
    low, high = _bootstrap_ratio(above, below, LEVEL, resamples, seed)
    return Estimate(float(above.sum() / below.sum()), low, high, sizes.size)


def wilson_interval(successes: float, n: float, *, degrees: float = math.inf) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); (NaN, NaN) for n = 0.

    `n` may be an effective size (see `effective_size`, and scipy's takes whole numbers alone), `degrees` are the degrees
    of freedom that its estimate has: Student's quantile in place of the normal one.
    """
    assert -1e-9 <= successes <= n * (1 + 1e-9) or n == 0
    if n == 0:
        return math.nan, math.nan
    z = _quantile(degrees)
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
    values = flat(per_question)
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


# Means of runs, of benchmarks


def over_runs(
    values: Sequence[float], *, share: bool = False, positive: bool = False
) -> tuple[float, float | None, float | None]:
    """Mean of runs and Student's 95% interval of it; no interval of one run.

    `share`: the values are shares (as for `estimate`: one outside 0..1 is none), and the interval must not leave 0..1. It is
    Student's on the logit scale, the standard error carried over by the delta method (`svyciprop(method="logit")` of R's
    survey; Korn and Graubard 1998): logit(mean) -+ t s / (mean (1 - mean)), taken back. Of values that are all 0 or all 1
    it has no width.

    `positive`: the values are amounts, as seconds and tokens are, below 0 of which nothing lies: the interval is cut off there.
    """
    mean = _mean(flat(values))
    if len(values) < 2:
        return mean, None, None
    half = _quantile(len(values) - 1) * float(scipy.stats.sem(values))
    if positive:
        return mean, max(0.0, mean - half), mean + half
    if not share or min(values) < 0 or max(values) > 1:
        return mean, mean - half, mean + half
    spread = mean * (1 - mean)
    if spread <= 0:
        return mean, mean, mean
    low, high = scipy.special.expit(scipy.special.logit(mean) + half / spread * np.array([-1.0, 1.0]))
    return mean, min(float(low), mean), max(float(high), mean)  # rounding must not put a bound on the wrong side


def over_differences(values: Sequence[float], *, share: bool) -> tuple[float, float | None, float | None]:
    """The same of differences between two arms, one a run. `share`: of shares, whose interval is cut off at -1 and 1, beyond
    which no difference of them lies."""
    mean, low, high = over_runs(values)
    if not share or low is None or high is None:
        return mean, low, high
    return mean, max(-1.0, low), min(1.0, high)


def mean_of_independent(values: Sequence[tuple[float, float, float]]) -> tuple[float, float, float]:
    """Mean of independent (value, low, high) with its interval: half-widths add in squares, each side on its own."""
    mean = sum(value for value, _, _ in values) / len(values)
    below = math.hypot(*(value - low for value, low, _ in values)) / len(values)
    above = math.hypot(*(high - value for value, _, high in values)) / len(values)
    return mean, mean - below, mean + above


# Differences


def paired_difference(
    a: Mapping[str, float],
    b: Mapping[str, float],
    *,
    clusters: Mapping[str, str] | None = None,
    resamples: int = 2000,
    seed: int,
) -> PairedDifference:
    """Difference `a - b` of two runs over the same questions, matched by id (id -> value of the question).

    `clusters`: id -> cluster, of questions that are not their own. Interval and test are over clusters. The interval is the
    bootstrap's, without width where every difference is the same. The p-value is that of McNemar's exact test where all
    values are 0 or 1 and no cluster holds two questions; else of the sign-flip test of the clusters' sums, exact over all
    patterns of signs up to 16 clusters that differ, beyond that over `max(resamples, 10000)` drawn patterns, the observed
    one counted in. Without a question in common value and p-value are NaN; without one that differs the p-value is 1.
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
    low, high = bootstrap_interval(differences, clusters=units, resamples=resamples, seed=seed)
    return PairedDifference(
        estimate=Estimate(_mean(differences), low, high, len(ids)),
        p_value=p_value if ids else math.nan,
        test=test,
        num_a_higher=num_a_higher,
        num_b_higher=num_b_higher,
        num_unmatched=len(a.keys() ^ b.keys()),
        num_clusters=sums.size,
    )


def unpaired_interval(a: float, num_a: float, b: float, num_b: float) -> tuple[float, float]:
    """Wald's interval of the difference `a - b` of two independent shares of so many questions each, within -1..1.

    For where the answers by question are not at hand: it is wider than the paired one.
    """
    half = _quantile() * math.sqrt(max(a * (1 - a) / num_a + b * (1 - b) / num_b, 0.0))
    return max(-1.0, a - b - half), min(1.0, a - b + half)


def mcnemar_p_value(num_only_a: int, num_only_b: int) -> float:
    """Exact two-sided p-value of McNemar's test: a fair coin over the questions on which only one side is right."""
    n = num_only_a + num_only_b
    return float(scipy.stats.binomtest(num_only_a, n).pvalue) if n else 1.0


def _exact_sign_flip(differences: Floats) -> float:
    nonzero = np.abs(differences[differences != 0])
    sums = np.zeros(1)
    for size in nonzero:
        sums = np.concatenate([sums + size, sums - size])
    return float(np.mean(_at_least(np.abs(sums), differences)))


def _sampled_sign_flip(differences: Floats, patterns: int, seed: int) -> float:
    nonzero = np.abs(differences[differences != 0])
    draw = np.random.default_rng(seed)
    chunk = max(1, CHUNK_VALUES // nonzero.size)
    num_as_extreme = 0
    for start in range(0, patterns, chunk):
        signs = draw.integers(2, size=(min(chunk, patterns - start), nonzero.size)) * 2.0 - 1.0
        num_as_extreme += int(_at_least(np.abs(signs @ nonzero), differences).sum())
    return (1 + num_as_extreme) / (1 + patterns)


def _at_least(sums: Floats, differences: Floats) -> NDArray[np.bool_]:
    # Sums in another order differ in their last bits; equal sums must count as equal.
    return sums >= abs(float(differences.sum())) - 1e-9 * float(np.abs(differences).sum())


# Labels


def cohen_kappa(counts: ArrayLike) -> float | None:
    """Cohen's kappa (1960) of two labellings, (p_o - p_e) / (1 - p_e).

    `counts[i][j]`: items that one calls class i and the other class j. None for no items, and where both use one and the
    same label throughout (p_e = 1).
    """
    table = np.asarray(counts, dtype=np.int64)
    if not (n := int(table.sum())):
        return None
    # In whole numbers: p_e = chance / n**2, so that a p_e of 1 is recognised exactly.
    chance = int(table.sum(axis=1) @ table.sum(axis=0))
    return None if chance == n * n else (n * int(np.trace(table)) - chance) / (n * n - chance)


# What these are made of


def _quantile(degrees: float = math.inf) -> float:
    """Student's, of a two-sided interval; the normal one for infinitely many degrees of freedom."""
    return float(scipy.stats.t.ppf((1 + LEVEL) / 2, degrees))


def percentiles(values: Floats, level: float) -> tuple[float, float]:
    """The ends of the middle `level` of the values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _bootstrap_ratio(above: Floats, below: Floats, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of sum(above) / sum(below) over drawn units; a draw of nothing but zeros below is left out."""
    assert 0 < level < 1 and resamples > 0
    draw = np.random.default_rng(seed)
    chunk = max(1, CHUNK_VALUES // above.size)
    ratios = []
    for start in range(0, resamples, chunk):
        drawn = draw.integers(above.size, size=(min(chunk, resamples - start), above.size))
        numerator, denominator = above[drawn].sum(axis=1), below[drawn].sum(axis=1)
        kept = denominator > 0
        ratios.append(numerator[kept] / denominator[kept])
    return percentiles(np.concatenate(ratios), level)


def _by_cluster(values: Floats, clusters: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and size of each cluster, in the order in which clusters first come."""
    if clusters is None:
        return values, np.ones_like(values)
    assert len(clusters) == values.size, "one cluster for each question"
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.int64)
    return np.bincount(codes, weights=values).astype(np.float64), np.bincount(codes).astype(np.float64)


def flat(values: ArrayLike) -> Floats:
    """As float64 `[n]`."""
    return np.asarray(values, dtype=np.float64).ravel()


def _mean(values: Floats) -> float:
    return float(values.mean()) if values.size else math.nan
