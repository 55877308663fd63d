import json
import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.algorithm.shaping import (
    RunningMoments,
    malformed_penalty,
    overlong_penalty,
    shape_scores,
    unfinished_penalty,
)

SCORES = torch.tensor([23.0, 3.59, -7.0, 1.0])
batches = st.lists(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=9),
    min_size=1,
    max_size=5,
)


def test_overlong_penalty_by_hand():
    # Limit 100, buffer 20: nothing up to 80, then -1/20 a token, the whole weight at the limit.
    tokens = torch.tensor([1, 80, 81, 90, 100])
    penalty = overlong_penalty(tokens, max_response_tokens=100, buffer_tokens=20, weight=2.0)
    torch.testing.assert_close(penalty, torch.tensor([0.0, 0.0, -0.1, -1.0, -2.0]))
    assert penalty.dtype == torch.float32


@pytest.mark.parametrize("buffer_tokens", [0, 101])
def test_overlong_buffer_must_fit(buffer_tokens):
    with pytest.raises(ValueError, match="buffer_tokens"):
        overlong_penalty(torch.tensor([5]), max_response_tokens=100, buffer_tokens=buffer_tokens)


def test_flag_penalties():
    flags = torch.tensor([True, False])
    assert unfinished_penalty(flags, 3.0).tolist() == [-3.0, 0.0]
    assert malformed_penalty(flags, 0.5).tolist() == [-0.5, 0.0]


def test_default_leaves_scores_alone():
    result = shape_scores(SCORES)
    assert torch.equal(result.scores, SCORES)
    assert result.stats["raw_mean"] == pytest.approx(20.59 / 4, rel=1e-6)
    assert result.stats["raw_std"] == pytest.approx(statistics.pstdev([23.0, 3.59, -7.0, 1.0]), rel=1e-6)
    assert result.stats["clipped_fraction"] == 0.0


def test_clip_saturates_and_says_so():
    result = shape_scores(SCORES, clip=(-5.0, 10.0))
    torch.testing.assert_close(result.scores, torch.tensor([10.0, 3.59, -5.0, 1.0]))
    assert result.stats["clipped_fraction"] == 0.5
    assert result.stats["shaped_mean"] == pytest.approx(9.59 / 4, rel=1e-6)


def test_order_penalty_then_standardise_then_clip():
    raw = torch.tensor([4.0, 2.0])
    penalties = {"unfinished": torch.tensor([-4.0, 0.0])}
    # Penalised: 0 and 2. Standardised: -1 and 1. Clipped at 0.25. Any other order gives other numbers.
    result = shape_scores(raw, penalties=penalties, normalise="batch", clip=(-2.0, 0.25))
    torch.testing.assert_close(result.scores, torch.tensor([-1.0, 0.25]))
    assert result.stats["raw_mean"] == 3.0
    assert result.stats["penalised_mean"] == 1.0
    assert result.stats["penalty_unfinished_mean"] == -2.0
    assert result.stats["clipped_fraction"] == 0.5


def test_running_standardises_with_all_that_was_seen():
    moments = RunningMoments()
    shape_scores(torch.tensor([0.0, 4.0]), normalise="running", moments=moments)
    result = shape_scores(torch.tensor([8.0, 12.0]), normalise="running", moments=moments)
    # Seen 0, 4, 8, 12: mean 6, population variance 20.
    torch.testing.assert_close(result.scores, torch.tensor([2.0, 6.0]) / math.sqrt(20.0))
    assert moments.count == 4


def test_running_moments_see_penalised_scores():
    moments = RunningMoments()
    shape_scores(
        torch.tensor([1.0, 1.0]),
        penalties={"malformed": torch.tensor([-2.0, 0.0])},
        normalise="running",
        moments=moments,
    )
    assert (moments.mean, moments.variance) == (0.0, 1.0)


def test_equal_scores_standardise_to_zero():
    assert shape_scores(torch.tensor([3.3, 3.3, 3.3]), normalise="batch").scores.tolist() == [0.0, 0.0, 0.0]


@settings(deadline=None)
@given(batches)
def test_moments_merge_like_one_pass(rows):
    moments = RunningMoments()
    for row in rows:
        moments.update(torch.tensor(row, dtype=torch.float32))
    everything = [value for row in rows for value in row]
    assert moments.count == len(everything)
    assert moments.mean == pytest.approx(statistics.fmean(everything), rel=1e-9, abs=1e-9)
    assert moments.variance == pytest.approx(statistics.pvariance(everything), rel=1e-6, abs=1e-9)


def test_moments_keep_small_spread_on_a_large_mean():
    moments = RunningMoments()
    for _ in range(10):
        moments.update(torch.tensor([1e6 - 1, 1e6 + 1]))
    assert moments.std == pytest.approx(1.0)


def test_moments_resume_exactly_through_json():
    moments, resumed = RunningMoments(), RunningMoments()
    moments.update(torch.tensor([0.1, 0.7, -3.3]))
    resumed.load_state_dict(json.loads(json.dumps(moments.state_dict())))
    for each in (moments, resumed):
        each.update(torch.tensor([2.2, 1.0]))
    assert resumed.state_dict() == moments.state_dict()


def test_nan_does_not_poison_the_moments():
    moments = RunningMoments()
    moments.update(torch.tensor([1.0, 3.0]))
    with pytest.raises(ValueError, match="finite"):
        moments.update(torch.tensor([1.0, float("nan")]))
    assert (moments.count, moments.mean) == (2, 2.0)


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="RunningMoments"):
        shape_scores(SCORES, normalise="running")
    with pytest.raises(ValueError, match="in order"):
        shape_scores(SCORES, clip=(1.0, -1.0))
    with pytest.raises(ValueError, match="'overlong'"):
        shape_scores(SCORES, penalties={"overlong": torch.zeros(3)})
    with pytest.raises(ValueError, match="none, running or batch"):
        shape_scores(SCORES, normalise="minmax")
    with pytest.raises(ValueError, match="num_responses"):
        shape_scores(torch.zeros(0))
