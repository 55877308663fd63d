"""Separation, rank agreement and bias against plain loops, and against what scipy calls the same."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lrm_safety.lab.reward_audit.figures import effect_within, matched_auc, rank_correlation_within
from lrm_safety.rank_statistics import auc, auc_interval, kendall, spearman

VALUES = st.integers(-4, 4).map(float)  # few values, many ties
LISTS = st.lists(VALUES, min_size=1, max_size=15)
PAIRS = st.lists(st.tuples(VALUES, VALUES), min_size=3, max_size=15)


def loop_auc(high, low) -> float:
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a in high for b in low) / (len(high) * len(low))


def loop_ranks(values) -> list[float]:
    return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]


def loop_pearson(a, b) -> float:
    ma, mb = sum(a) / len(a), sum(b) / len(b)
    top = sum((x - ma) * (y - mb) for x, y in zip(a, b, strict=True))
    scale = math.sqrt(sum((x - ma) ** 2 for x in a) * sum((y - mb) ** 2 for y in b))
    return top / scale if scale else math.nan


def loop_kendall(a, b) -> float:
    same = turned = tied_a = tied_b = 0
    for i, j in itertools.combinations(range(len(a)), 2):
        x, y = (a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])
        same += x * y > 0
        turned += x * y < 0
        tied_a += x == 0 and y != 0
        tied_b += y == 0 and x != 0
    scale = math.sqrt((same + turned + tied_a) * (same + turned + tied_b))
    return (same - turned) / scale if scale else math.nan


@given(LISTS, LISTS)
def test_auc_against_a_loop(high: list[float], low: list[float]) -> None:
    assert auc(high, low) == pytest.approx(loop_auc(high, low))
    assert auc(high, low) + auc(low, high) == pytest.approx(1.0)


def test_auc_worked_out_by_hand() -> None:
    assert auc([3, 1], [2, 1]) == (1 + 1 + 0 + 0.5) / 4
    assert math.isnan(auc([], [1]))


@given(PAIRS)
def test_rank_agreement_against_loops(pairs: list[tuple[float, float]]) -> None:
    a, b = zip(*pairs, strict=True)
    assert spearman(a, b) == pytest.approx(loop_pearson(loop_ranks(a), loop_ranks(b)), nan_ok=True)
    assert kendall(a, b) == pytest.approx(loop_kendall(a, b), nan_ok=True)


def test_against_scipy() -> None:
    draw = np.random.default_rng(0)
    a, b = draw.integers(6, size=50), draw.integers(6, size=50)
    assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)
    assert kendall(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    labels = draw.integers(2, size=50)
    high, low = a[labels == 1], a[labels == 0]
    assert auc(high, low) == pytest.approx(stats.mannwhitneyu(high, low).statistic / (high.size * low.size))


def test_interval_against_a_plain_bootstrap() -> None:
    """Draw prompts, take all their texts, count wins: the same quantiles up to the noise of 4,000 draws."""
    draw = np.random.default_rng(1)
    prompts = list(range(30))
    high, low = draw.normal(1, 1, 30), draw.normal(0, 1, 30)
    found = auc_interval(high, low, prompts, prompts, resamples=4000, seed=0)
    values = []
    for _ in range(4000):
        taken = draw.integers(30, size=30)
        values.append(auc(high[taken], low[taken]))
    assert found == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.015)
    assert found[0] < auc(high, low) < found[1]
    assert found == auc_interval(high, low, prompts, prompts, resamples=4000, seed=0)


def test_texts_repeated_within_their_prompt_make_nothing_surer() -> None:
    draw = np.random.default_rng(2)
    prompts = list(range(12))
    high, low = draw.normal(1, 1, 12), draw.normal(0, 1, 12)
    once = auc_interval(high, low, prompts, prompts, resamples=500, seed=3)
    thrice = auc_interval(np.tile(high, 3), np.tile(low, 3), prompts * 3, prompts * 3, resamples=500, seed=3)
    assert thrice == pytest.approx(once)
    assert all(math.isnan(bound) for bound in auc_interval([], [1.0], [], [0], resamples=10, seed=0))


@given(st.lists(st.tuples(VALUES, VALUES, st.booleans()), min_size=4, max_size=15))
def test_correlation_within_groups_against_a_loop(rows: list[tuple[float, float, bool]]) -> None:
    a, b, groups = zip(*rows, strict=True)
    ranks = [loop_ranks(a), loop_ranks(b)]
    for one in ranks:
        means = {g: sum(r for r, h in zip(one, groups, strict=True) if h == g) / groups.count(g) for g in set(groups)}
        one[:] = [r - means[g] for r, g in zip(one, groups, strict=True)]
    expected = loop_pearson(*ranks)
    found = rank_correlation_within(a, b, groups)
    if max(map(abs, ranks[0])) > 1e-9 and max(map(abs, ranks[1])) > 1e-9:
        assert found == pytest.approx(expected, abs=1e-9)
    else:
        assert math.isnan(found)


def test_effect_is_a_slope_with_the_group_held_fixed() -> None:
    """Against the least-squares slope of a regression on `b` and the group."""
    draw = np.random.default_rng(5)
    groups = np.arange(60) % 2
    b = draw.normal(0, 2, 60) + 3 * groups
    a = 5 * groups + 0.7 * b + draw.normal(0, 1, 60)
    design = np.stack([b, groups, np.ones(60)], axis=1)
    slope = np.linalg.lstsq(design, a, rcond=None)[0][0]
    spread = math.sqrt(sum(((b[groups == g] - b[groups == g].mean()) ** 2).sum() for g in (0, 1)) / 60)
    assert effect_within(a, b, groups) == pytest.approx(slope * spread / a.std())
    assert math.isnan(effect_within([1.0, 2.0, 3.0], [4.0, 4.0, 9.0], [0, 0, 1]))


def test_separation_that_is_length_alone_is_gone_at_like_length() -> None:
    draw = np.random.default_rng(4)
    safe = np.arange(400) % 2 == 0
    lengths = draw.integers(100, size=400) + np.where(safe, 60, 0)
    assert auc(lengths[safe], lengths[~safe]) > 0.85
    matched, share = matched_auc(lengths, safe, lengths, 40)
    assert matched < 0.7 and 0 < share < 0.2
    kept, _ = matched_auc(np.where(safe, 1.0, 0.0), safe, lengths, 40)
    assert kept == 1.0


def test_bins_worked_out_by_hand() -> None:
    # Lengths 1, 2 | 3, 4: one pair in each bin, one won, one lost; four pairs in all.
    assert matched_auc([5, 1, 1, 5], [True, False, True, False], [1, 2, 3, 4], 2) == (0.5, 0.5)
    found, share = matched_auc([5, 1], [True, False], [1, 9], 2)
    assert math.isnan(found) and share == 0.0
