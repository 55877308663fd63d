"""Ratios of sums with intervals over questions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.statistics import bootstrap_interval, pooled_mean


def test_agrees_with_a_plain_loop_of_the_same_draws():
    questions = ["a", "b", "a", "c", "b", "d"]
    sums, counts = [3.0, 0.0, 5.0, 0.0, 0.0, 7.0], [2, 0, 3, 0, 0, 2]
    by_name = {name: [0.0, 0] for name in questions}
    for name, one, count in zip(questions, sums, counts, strict=True):
        by_name[name][0] += one
        by_name[name][1] += count
    table = list(by_name.values())
    draw, ratios = np.random.default_rng(5), []
    for picks in draw.integers(4, size=(300, 4)):
        below = sum(table[pick][1] for pick in picks)
        if below:
            ratios.append(sum(table[pick][0] for pick in picks) / below)
    assert len(ratios) < 300, "some resample has to hold nothing that counts"
    found = pooled_mean(questions, sums, counts, resamples=300, seed=5)
    assert (found.value, found.n) == (pytest.approx(15 / 7), 4)
    assert (found.low, found.high) == (
        pytest.approx(np.quantile(ratios, 0.025)),
        pytest.approx(np.quantile(ratios, 0.975)),
    )
    assert found.low < found.value < found.high


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=12))
def test_with_one_count_each_it_is_the_bootstrap_of_the_mean(values):
    found = pooled_mean(range(len(values)), values, [1] * len(values), resamples=100, seed=3)
    low, high = bootstrap_interval(values, resamples=100, seed=3)
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_responses_of_one_question_are_resampled_together():
    found = pooled_mean(["a"] * 50, np.arange(50), np.ones(50), seed=0)
    assert found.n == 1 and found.low == found.value == found.high == 24.5


def test_nothing_counted_is_no_number():
    found = pooled_mean(["a", "b"], [0.0, 0.0], [0, 0], seed=0)
    assert found.n == 2 and all(math.isnan(value) for value in (found.value, found.low, found.high))
    assert pooled_mean([], [], [], seed=0).n == 0


@pytest.mark.parametrize("seed", range(3))
def test_interval_covers_the_truth_about_as_often_as_it_says(seed):
    random = np.random.default_rng(seed)
    hits = 0
    for trial in range(150):
        counts = random.integers(1, 9, 60)
        means = random.normal(2.0, 1.0, 60)
        found = pooled_mean(range(60), means * counts, counts, resamples=300, seed=trial)
        hits += found.low <= 2.0 <= found.high
    assert 0.86 <= hits / 150 <= 0.99
