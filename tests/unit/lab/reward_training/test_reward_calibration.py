"""Accuracy and calibration against loops and known truths."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.lab.reward_training.bradley_terry import expected_calibration_error, measure, reliability, sigmoid

# Off the borders of the bins, where rounding decides.
MARGINS = st.lists(st.integers(-100, 100).map(lambda i: 0.31 * i + 0.017), min_size=1, max_size=30)


@given(MARGINS)
def test_table_and_error_against_a_loop(margins: list[float]) -> None:
    bins: dict[int, list[tuple[float, int]]] = {}
    for margin in margins:
        for signed, outcome in ((margin, 1), (-margin, 0)):
            chance = 1 / (1 + math.exp(-signed))
            bins.setdefault(min(int(chance * 10), 9), []).append((chance, outcome))
    expected = 0.0
    for entries in bins.values():
        gap = sum(o for _, o in entries) / len(entries) - sum(p for p, _ in entries) / len(entries)
        expected += abs(gap) * len(entries) / (2 * len(margins))
    table = reliability(margins)
    assert {place: one.count for place, one in enumerate(table) if one.count} == {p: len(e) for p, e in bins.items()}
    assert expected_calibration_error(table) == pytest.approx(expected, abs=1e-9)


@given(MARGINS)
def test_table_does_not_depend_on_which_response_is_named_first(margins: list[float]) -> None:
    counts = [one.count for one in reliability(margins)]
    assert counts == counts[::-1] and sum(counts) == 2 * len(margins)
    for one, mirrored in zip(reliability(margins), reversed(reliability(margins)), strict=True):
        if one.count:
            assert mirrored.mean_prediction is not None and mirrored.share_true is not None
            assert one.mean_prediction == pytest.approx(1 - mirrored.mean_prediction)
            assert one.share_true == pytest.approx(1 - mirrored.share_true)


def test_a_calibrated_model_has_little_error_and_an_overconfident_one_much() -> None:
    draw = np.random.default_rng(0)
    size = np.abs(draw.normal(0, 2, 20_000))
    margins = np.where(draw.random(size.size) < sigmoid(size), size, -size)
    assert expected_calibration_error(reliability(margins)) < 0.01
    assert expected_calibration_error(reliability(5 * margins)) > 0.1


def test_figures_worked_out_by_hand() -> None:
    chosen, rejected = [2.0, 0.0, 1.0, 5.0], [0.0, 1.0, 1.0, 1.0]
    found = measure(chosen, rejected, ["a", "a", "b", "c"], [("x",), ("x", "y"), ("y",), ()], seed=0)
    # Right, wrong, tie, right: prompt a has 1/2, b 1/2, c 1.
    assert found.accuracy.value == pytest.approx(2 / 3) and found.accuracy.n == 3
    assert (found.num_pairs, found.num_prompts) == (4, 3)
    assert found.mean_margin == pytest.approx(1.25)
    losses = [math.log1p(math.exp(-m)) for m in (2.0, -1.0, 0.0, 4.0)]
    assert found.loss == pytest.approx(sum(losses) / 4)
    assert found.by_category["x"].value == 0.5 and found.by_category["y"].value == 0.25
    assert sum(one.count for one in found.reliability) == 8
    counts = [one.count for one in found.reliability]
    assert counts == [1, 1, 1, 0, 0, 2, 0, 1, 1, 1]
    assert found.reliability[3].mean_prediction is None and found.reliability[5].share_true == 0.5


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert sigmoid([0.0, 800.0]).tolist() == [0.5, 1.0]
