import math
import statistics

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.algorithm.advantages import (
    compute_advantages,
    normalise,
    returns_to_go,
    subtract_baseline,
    token_rewards,
)
from lrm_safety.algorithm.baselines import BASELINES, baseline

GROUPED_SCORES = [1.0, 2.0, 6.0, 10.0, 4.0]
GROUPS = torch.tensor([7, 3, 7, 3, 7])  # group 7: 1, 6, 4; group 3: 2, 10

rollout_batches = st.lists(
    st.tuples(
        st.floats(-30, 30, width=32),
        st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=12),
    ),
    min_size=2,
    max_size=6,
)


def reference_advantages(scores, kl_rows, kl_coef, gamma):
    """REINFORCE++ in float64 loops, written from the definition: one number per token and response."""
    returns = []
    for score, row in zip(scores, kl_rows, strict=True):
        for start in range(len(row)):
            total = 0.0
            for step in range(start, len(row)):
                reward = -kl_coef * row[step] + (score if step == len(row) - 1 else 0.0)
                total += gamma ** (step - start) * reward
            returns.append(total)
    mean = math.fsum(returns) / len(returns)
    variance = math.fsum((value - mean) ** 2 for value in returns) / len(returns)
    return returns, [(value - mean) / math.sqrt(max(variance, 1e-8)) for value in returns]


# --- baselines ---


def test_no_baseline():
    scores = torch.tensor(GROUPED_SCORES)
    assert torch.equal(subtract_baseline(scores, None, BASELINES["none"]), scores)


def test_group_mean_by_hand():
    result = subtract_baseline(torch.tensor(GROUPED_SCORES), GROUPS, BASELINES["group_mean"])
    # Means: 11/3 and 6.
    torch.testing.assert_close(result, torch.tensor([1 - 11 / 3, -4.0, 6 - 11 / 3, 4.0, 4 - 11 / 3]))


def test_leave_one_out_by_hand():
    result = subtract_baseline(torch.tensor(GROUPED_SCORES), GROUPS, BASELINES["leave_one_out"])
    torch.testing.assert_close(result, torch.tensor([1 - 10 / 2, 2.0 - 10, 6 - 5 / 2, 10.0 - 2, 4 - 7 / 2]))


def test_group_zscore_by_hand():
    result = subtract_baseline(torch.tensor(GROUPED_SCORES), GROUPS, BASELINES["group_zscore"])
    seven, three = statistics.stdev([1, 6, 4]), statistics.stdev([2, 10])
    mean = 11 / 3
    expected = [(1 - mean) / seven, -4 / three, (6 - mean) / seven, 4 / three, (4 - mean) / seven]
    torch.testing.assert_close(result, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_equal_scores_have_zero_zscore():
    result = subtract_baseline(torch.full((4,), 0.3), torch.tensor([0, 0, 1, 1]), BASELINES["group_zscore"])
    assert result.abs().max().item() == 0.0


@pytest.mark.parametrize("name", ["group_mean", "leave_one_out", "group_zscore"])
def test_a_group_of_one_is_refused(name):
    with pytest.raises(ValueError, match="1 of 2 groups"):
        subtract_baseline(torch.ones(3), torch.tensor([0, 0, 1]), BASELINES[name])
    with pytest.raises(ValueError, match="group_ids"):
        subtract_baseline(torch.ones(3), None, BASELINES[name])


@baseline(min_samples=3)
def first_of_the_group(scores, groups):
    """A baseline from outside the package, with a mistake for scores of 9."""
    return scores[:1] if bool((scores == 9).any()) else scores - groups.mean(scores) + groups.size


def test_a_baseline_of_ones_own():
    assert "first_of_the_group" not in BASELINES, "known by its import path, not by its name"
    scores, groups = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([4, 4, 4])
    assert subtract_baseline(scores, groups, first_of_the_group).tolist() == [1.0, 2.0, 6.0]
    with pytest.raises(ValueError, match="needs at least 3 responses per prompt, but 2 of 2 groups hold fewer"):
        subtract_baseline(scores, torch.tensor([0, 1, 1]), first_of_the_group)
    with pytest.raises(ValueError, match=r"'first_of_the_group' returned shape \[1\] for \[3\] scores"):
        subtract_baseline(torch.full((3,), 9.0), groups, first_of_the_group)


# --- token rewards and returns ---


def test_token_rewards_by_hand():
    rewards = token_rewards(
        torch.tensor([5.0, -3.0]), torch.tensor([0.1, 0.2, 0.3, 1.0]), torch.tensor([3, 1]), kl_coef=0.5
    )
    torch.testing.assert_close(rewards, torch.tensor([-0.05, -0.1, 5.0 - 0.15, -3.5]))


def test_token_rewards_without_kl():
    assert token_rewards(torch.tensor([5.0, -3.0]), None, torch.tensor([3, 1])).tolist() == [0.0, 0.0, 5.0, -3.0]


def test_with_gamma_1_the_return_is_the_papers_formula():
    """A_t = R - beta * sum of the KL from t on."""
    kl = torch.tensor([0.1, 0.2, 0.3])
    returns = returns_to_go(token_rewards(torch.tensor([2.0]), kl, torch.tensor([3]), 0.5), torch.tensor([3]))
    torch.testing.assert_close(returns, torch.tensor([2 - 0.5 * 0.6, 2 - 0.5 * 0.5, 2 - 0.5 * 0.3]))


def test_gamma_discounts_the_final_score():
    rewards = token_rewards(torch.tensor([8.0]), None, torch.tensor([4]))
    assert returns_to_go(rewards, torch.tensor([4]), gamma=0.5).tolist() == [1.0, 2.0, 4.0, 8.0]


@settings(deadline=None)
@given(rollout_batches, st.sampled_from([0.5, 0.99, 1.0]))
def test_returns_obey_the_recursion(batch, gamma):
    """G_t = r_t + gamma * G_{t+1}, and G_T = r_T."""
    lengths = torch.tensor([len(row) for _, row in batch])
    kl = torch.tensor([value for _, row in batch for value in row])
    rewards = token_rewards(torch.tensor([score for score, _ in batch]), kl, lengths, 0.1)
    returns = returns_to_go(rewards, lengths, gamma)
    for row_rewards, row_returns in zip(rewards.split(lengths.tolist()), returns.split(lengths.tolist()), strict=True):
        following = torch.cat([row_returns[1:], torch.zeros(1)])
        torch.testing.assert_close(row_returns, row_rewards + gamma * following, rtol=1e-5, atol=1e-5)


def test_gamma_out_of_range():
    with pytest.raises(ValueError, match="gamma"):
        returns_to_go(torch.ones(1), torch.tensor([1]), gamma=1.5)


# --- normalisation ---


def test_batch_normalisation_by_hand():
    # Tokens 1, 1, 1, 5: mean 2, population variance 3. By responses, or with n - 1, it would be otherwise.
    result = normalise(torch.tensor([1.0, 1.0, 1.0, 5.0]), torch.tensor([3, 1]), "batch")
    torch.testing.assert_close(result, torch.tensor([-1.0, -1.0, -1.0, 3.0]) / math.sqrt(3.0))


def test_group_normalisation_by_hand():
    values = torch.tensor([1.0, 3.0, 10.0, 30.0, 5.0])
    result = normalise(values, torch.tensor([2, 2, 1]), "group", torch.tensor([4, 9, 4]))
    # Group 4: 1, 3, 5 (mean 3, variance 8/3). Group 9: 10, 30.
    deviation = math.sqrt(8 / 3)
    torch.testing.assert_close(result, torch.tensor([-2 / deviation, 0.0, -1.0, 1.0, 2 / deviation]))


def test_no_normalisation():
    values = torch.tensor([1.0, 3.0])
    assert torch.equal(normalise(values, torch.tensor([2]), "none"), values)


def test_variance_floor():
    assert normalise(torch.full((3,), 0.7), torch.tensor([3]), "batch").tolist() == [0.0, 0.0, 0.0]
    # Variance 1e-10 is below the floor of 1e-8: divided by 1e-4, not by 1e-5.
    tiny = normalise(torch.tensor([1e-5, -1e-5]), torch.tensor([2]), "batch")
    torch.testing.assert_close(tiny, torch.tensor([0.1, -0.1]))


@settings(deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=3, max_size=40).filter(lambda v: statistics.pvariance(v) > 1e-3)
)
def test_batch_normalisation_has_mean_0_and_variance_1(values):
    result = normalise(torch.tensor(values), torch.tensor([1, len(values) - 1]), "batch").double()
    assert result.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert result.var(correction=0).item() == pytest.approx(1.0, abs=1e-4)


@settings(deadline=None)
@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=20).filter(lambda values: len(set(values)) > 1),
    st.integers(-500, 500),
    st.sampled_from([0.5, 2.0, 8.0]),
)
def test_batch_normalisation_ignores_shift_and_scale(values, shift, scale):
    """The reward's zero and unit carry no information under REINFORCE++'s normalisation."""
    lengths = torch.tensor([1, len(values) - 1])
    plain = torch.tensor(values, dtype=torch.float32)
    torch.testing.assert_close(
        normalise(plain * scale + shift, lengths, "batch"), normalise(plain, lengths, "batch"), rtol=1e-5, atol=1e-5
    )


def test_normalisation_needs_its_groups():
    with pytest.raises(ValueError, match="group_ids"):
        normalise(torch.ones(2), torch.tensor([2]), "group")
    with pytest.raises(ValueError, match="none, batch or group"):
        normalise(torch.ones(2), torch.tensor([2]), "global")


# --- the whole path ---


@settings(deadline=None)
@given(rollout_batches, st.sampled_from([0.0, 0.01, 1.0]), st.sampled_from([0.9, 1.0]))
def test_reinforce_pp_against_float64_loops(batch, kl_coef, gamma):
    scores, rows = [score for score, _ in batch], [row for _, row in batch]
    expected_returns, expected = reference_advantages(scores, rows, kl_coef, gamma)
    result = compute_advantages(
        torch.tensor(scores),
        torch.tensor([len(row) for row in rows]),
        kl=torch.tensor([value for row in rows for value in row]),
        kl_coef=kl_coef,
        gamma=gamma,
    )
    torch.testing.assert_close(result.returns, torch.tensor(expected_returns), rtol=1e-5, atol=1e-5)
    if statistics.pvariance(expected_returns) > 1e-4:
        torch.testing.assert_close(result.advantages, torch.tensor(expected), rtol=1e-3, atol=1e-3)
    assert result.advantages.dtype == torch.float32


@settings(deadline=None)
@given(rollout_batches, st.randoms(use_true_random=False))
def test_the_order_of_responses_does_not_matter(batch, order):
    def advantages(rollouts):
        lengths = torch.tensor([len(row) for _, row in rollouts])
        kl = torch.tensor([value for _, row in rollouts for value in row])
        result = compute_advantages(torch.tensor([score for score, _ in rollouts]), lengths, kl=kl, kl_coef=0.1)
        return result.advantages.split(lengths.tolist())

    permutation = list(range(len(batch)))
    order.shuffle(permutation)
    plain, shuffled = advantages(batch), advantages([batch[index] for index in permutation])
    for position, index in enumerate(permutation):
        torch.testing.assert_close(shuffled[position], plain[index], rtol=1e-4, atol=1e-4)


def test_reinforce_pp_baseline_is_group_mean_then_batch_normalisation():
    scores, lengths = torch.tensor([1.0, 3.0, 10.0, 14.0]), torch.tensor([2, 2, 1, 1])
    result = compute_advantages(scores, lengths, group_ids=torch.tensor([0, 0, 1, 1]), baseline=BASELINES["group_mean"])
    # Baselined -1, 1, -2, 2; tokens -1 -1 1 1 -2 2: mean 0, population variance 12 / 6 = 2.
    torch.testing.assert_close(result.advantages, torch.tensor([-1.0, -1.0, 1.0, 1.0, -2.0, 2.0]) / math.sqrt(2.0))
    torch.testing.assert_close(result.returns, torch.tensor([-1.0, -1.0, 1.0, 1.0, -2.0, 2.0]))


@pytest.mark.parametrize(
    ("baseline", "expected"), [("leave_one_out", [-4.0, 4.0]), ("group_zscore", [-(0.5**0.5), 0.5**0.5])]
)
def test_rloo_and_grpo_spread_one_number_over_the_response(baseline, expected):
    result = compute_advantages(
        torch.tensor([1.0, 5.0]),
        torch.tensor([2, 1]),
        group_ids=torch.tensor([0, 0]),
        baseline=BASELINES[baseline],
        normalisation="none",
    )
    torch.testing.assert_close(result.advantages, torch.tensor([expected[0], expected[0], expected[1]]))


def test_stats_by_hand():
    result = compute_advantages(
        torch.tensor([1.0, 3.0, 2.0, 2.0]),
        torch.tensor([2, 1, 1, 1]),
        kl=torch.tensor([0.5, 0.5, 1.0, 0.0, 2.0]),
        kl_coef=0.1,
        group_ids=torch.tensor([0, 0, 1, 1]),
        baseline=BASELINES["group_mean"],
        normalisation="none",
    )
    stats = result.stats
    assert stats["kl_penalty_mean"] == pytest.approx(0.1 * 4.0 / 4)
    assert stats["uninformative_group_fraction"] == 0.5
    # Returns: -1.1, -1.05, 0.9, 0, -0.2.
    returns = [-1.1, -1.05, 0.9, 0.0, -0.2]
    assert stats["return_mean"] == stats["advantage_mean"] == pytest.approx(-1.45 / 5)
    assert stats["advantage_std"] == pytest.approx(statistics.pstdev(returns))
    assert stats["advantage_max_abs"] == pytest.approx(1.1)


def test_single_samples_have_no_group_statistic():
    result = compute_advantages(torch.tensor([1.0, 2.0]), torch.tensor([1, 1]), group_ids=torch.tensor([0, 1]))
    assert "uninformative_group_fraction" not in result.stats
    alike = torch.tensor([2.0, 2.0, 5.0, 4.0]), torch.tensor([1, 1, 1, 1])
    groups = torch.tensor([0, 0, 1, 1])
    compared = compute_advantages(*alike, group_ids=groups, baseline=BASELINES["group_mean"])
    assert compared.stats["uninformative_group_fraction"] == 0.5
    plain = compute_advantages(*alike, group_ids=groups)
    assert "uninformative_group_fraction" not in plain.stats, "without a baseline of the group they teach as others do"


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="scores"):
        compute_advantages(torch.ones(3), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="kl must be flat"):
        compute_advantages(torch.ones(2), torch.tensor([1, 1]), kl=torch.zeros(3), kl_coef=0.1)
