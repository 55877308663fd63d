from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.algorithm.schedules import lr_multiplier


def test_warm_up_is_linear_and_its_first_update_moves():
    # 3% of 100 updates: three updates.
    assert [lr_multiplier(update, 100) for update in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])
    assert lr_multiplier(3, 100) < 1.0


def test_cosine_by_hand():
    # No warm-up, 5 updates: cos at 0, 1/4, 1/2, 3/4, 1 of pi.
    values = [lr_multiplier(update, 5, warmup_fraction=0.0, min_ratio=0.1) for update in range(5)]
    half = 2**-0.5
    assert values == pytest.approx([1.0, 0.1 + 0.45 * (1 + half), 0.55, 0.1 + 0.45 * (1 - half), 0.1])


def test_linear_by_hand():
    values = [lr_multiplier(update, 5, kind="linear", warmup_fraction=0.0, min_ratio=0.2) for update in range(5)]
    assert values == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2])


def test_constant_warms_up_and_stays():
    values = [lr_multiplier(update, 10, kind="constant", warmup_fraction=0.2) for update in range(10)]
    assert values == pytest.approx([0.5] + [1.0] * 9)


def test_default_run_of_500_updates():
    assert lr_multiplier(14, 500) == 1.0  # 15 warm-up updates
    assert lr_multiplier(499, 500) == pytest.approx(0.1)


def test_floating_point_does_not_lengthen_the_warm_up():
    assert lr_multiplier(6, 100, warmup_fraction=0.07) == 1.0


@pytest.mark.parametrize("kind", ["cosine", "linear", "constant"])
def test_one_update_runs_at_the_peak(kind):
    assert lr_multiplier(0, 1, kind=kind) == 1.0


@given(
    st.integers(1, 400),
    st.floats(0, 1),
    st.floats(0, 1),
    st.sampled_from(["cosine", "linear", "constant"]),
)
def test_rises_to_the_peak_then_never_rises_again(max_updates, warmup_fraction, min_ratio, kind):
    values = [
        lr_multiplier(update, max_updates, kind=kind, warmup_fraction=warmup_fraction, min_ratio=min_ratio)
        for update in range(max_updates + 3)
    ]
    assert max(values) == pytest.approx(1.0)
    assert min(values) > 0 or min_ratio < 1e-9
    peak = values.index(max(values))
    assert all(before < after for before, after in pairwise(values[: peak + 1]))
    assert all(before >= after - 1e-12 for before, after in pairwise(values[peak:]))
    if kind != "constant":
        assert values[max_updates:] == pytest.approx([min_ratio] * 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"update": -1, "max_updates": 5},
        {"update": 0, "max_updates": 0},
        {"update": 0, "max_updates": 5, "min_ratio": 2.0},
    ],
)
def test_out_of_range(arguments):
    with pytest.raises(ValueError, match=r"max_updates|min_ratio"):
        lr_multiplier(**arguments)


def test_unknown_kind():
    with pytest.raises(ValueError, match="cosine, linear or constant"):
        lr_multiplier(3, 5, kind="step")
