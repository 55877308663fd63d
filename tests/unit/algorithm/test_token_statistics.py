import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.algorithm.losses import clipped_surrogate
from lrm_safety.algorithm.token_statistics import Differences, TokenStatistics, surrogate_stats


def statistics_of(values: torch.Tensor) -> TokenStatistics:
    stats = TokenStatistics()
    stats.add_mean("mean", values)
    stats.add_max("max", values)
    return stats


@settings(deadline=None)
@given(
    st.lists(
        st.lists(st.floats(-100, 100, width=32), max_size=6),
        min_size=1,
        max_size=5,
    ).filter(lambda parts: any(parts))
)
def test_merging_parts_equals_one_pass(parts):
    merged = TokenStatistics()
    for part in parts:
        merged.merge(statistics_of(torch.tensor(part, dtype=torch.float32)))
    everything = [value for part in parts for value in part]
    assert merged.compute() == pytest.approx(
        {"mean": math.fsum(everything) / len(everything), "max": max(everything)},
        rel=1e-6,
        abs=1e-6,
    )


def test_means_are_weighted_by_tokens():
    merged = statistics_of(torch.tensor([0.0, 0.0, 0.0]))
    merged.merge(statistics_of(torch.tensor([4.0])))
    assert merged.compute()["mean"] == 1.0


def test_empty_adds_nothing():
    assert statistics_of(torch.zeros(0)).compute() == {}


def test_travels_by_pickle_and_holds_no_tensor():
    stats = statistics_of(torch.tensor([1.0, 3.0], requires_grad=True))
    copy = pickle.loads(pickle.dumps(stats))
    assert copy.compute() == {"mean": 2.0, "max": 3.0}
    assert all(type(value) is float for value in copy.compute().values())


def test_surrogate_stats_by_hand():
    ratios = [1.0, 1.5, 0.5, 5.0]
    logprobs = torch.tensor(ratios).log().requires_grad_()
    old = torch.zeros(4)
    output = clipped_surrogate(logprobs, old, torch.tensor([1.0, 1.0, -1.0, -1.0]), 0.2, 0.2, dual_clip=3.0)
    stats = surrogate_stats(output, logprobs, old).compute()
    assert stats["ratio_mean"] == pytest.approx(2.0)
    assert stats["ratio_max"] == pytest.approx(5.0)
    assert (stats["clip_fraction_low"], stats["clip_fraction_high"], stats["dual_clip_fraction"]) == (0.25, 0.25, 0.25)
    # k3 with samples of the old policy: mean of rho - 1 - ln rho.
    assert stats["approximate_kl"] == pytest.approx(sum(r - 1 - math.log(r) for r in ratios) / 4, rel=1e-5)


def test_the_same_policy_has_ratio_one():
    zeros = torch.zeros(2)
    stats = surrogate_stats(clipped_surrogate(zeros, zeros, zeros, 0.2, 0.2), zeros, zeros).compute()
    assert stats["ratio_mean"] == stats["ratio_max"] == 1.0
    assert stats["approximate_kl"] == 0.0


def test_differences_by_hand():
    """Of 0, 1, ..., 199 the mean is 99.5, and 198 of them, 99 %, are at most 197."""
    values = torch.arange(200.0)[torch.randperm(200)]
    gap = Differences.of(values)
    assert (gap.mean, gap.q99, gap.largest) == (99.5, 197.0, 199.0)
    assert Differences.of(torch.tensor([3.0])) == Differences(3.0, 3.0, 3.0)
    assert Differences.of(torch.empty(0)) == Differences(0.0, 0.0, 0.0)
    broken = Differences.of(torch.tensor([1.0, math.nan, 2.0]))
    assert math.isnan(broken.mean) and math.isnan(broken.largest)
