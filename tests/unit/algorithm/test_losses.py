import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.algorithm.losses import aggregate, clipped_surrogate

INFINITY = float("inf")


def surrogate(ratios, advantages, low=0.2, high=0.2, dual=None):
    logprobs = torch.tensor(ratios).log().requires_grad_()
    output = clipped_surrogate(logprobs, torch.zeros(len(ratios)), torch.tensor(advantages), low, high, dual)
    output.token_loss.sum().backward()
    return output, logprobs.grad


# --- the surrogate ---


def test_surrogate_by_hand():
    """Loss and gradient (d loss / d logprob = -rho * A, or 0 where clipped) of the six cases."""
    output, gradient = surrogate([1.0, 1.5, 0.5, 1.0, 1.5, 0.5], [2.0, 2.0, 2.0, -2.0, -2.0, -2.0], low=0.2, high=0.28)
    torch.testing.assert_close(output.token_loss.detach(), torch.tensor([-2.0, -2.56, -1.0, 2.0, 3.0, 1.6]))
    torch.testing.assert_close(gradient, torch.tensor([-2.0, 0.0, -1.0, 2.0, 3.0, 0.0]))
    assert output.clipped_high.tolist() == [False, True, False, False, False, False]
    assert output.clipped_low.tolist() == [False, False, False, False, False, True]
    assert not output.dual_clipped.any()
    torch.testing.assert_close(output.ratio, torch.tensor([1.0, 1.5, 0.5, 1.0, 1.5, 0.5]))
    assert not output.ratio.requires_grad


def test_dual_clip_bounds_only_negative_advantages():
    output, gradient = surrogate([5.0, 2.0, 5.0], [-2.0, -2.0, 2.0], dual=3.0)
    torch.testing.assert_close(output.token_loss.detach(), torch.tensor([6.0, 4.0, -2.4]))
    torch.testing.assert_close(gradient, torch.tensor([0.0, 4.0, 0.0]))
    assert output.dual_clipped.tolist() == [True, False, False]


@pytest.mark.parametrize("off", [None, INFINITY])
def test_clip_off(off):
    output, gradient = surrogate([9.0, 0.01], [2.0, -2.0], low=off, high=off)
    torch.testing.assert_close(output.token_loss.detach(), torch.tensor([-18.0, 0.02]))
    torch.testing.assert_close(gradient, torch.tensor([-18.0, 0.02]))
    assert not (output.clipped_low.any() or output.clipped_high.any())


@settings(deadline=None)
@given(
    st.floats(-3, 3),
    st.floats(-5, 5),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.one_of(st.none(), st.floats(1.1, 10)),
)
def test_surrogate_against_the_definition(log_ratio, advantage, low, high, dual):
    rho = math.exp(log_ratio)
    expected = -min(rho * advantage, min(max(rho, 1 - low), 1 + high) * advantage)
    if dual is not None and advantage < 0:
        expected = min(expected, -dual * advantage)
    output = clipped_surrogate(torch.tensor([log_ratio]), torch.zeros(1), torch.tensor([advantage]), low, high, dual)
    assert output.token_loss.item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_at_ratio_1_the_gradient_is_the_policy_gradient():
    """With logprobs == old_logprobs the clip cannot bind: gradient of -sum A * logprob, in the parameters."""
    torch.manual_seed(0)
    logits = torch.randn(6, 11, requires_grad=True)
    tokens = torch.randint(11, (6, 1))
    advantages = torch.randn(6)

    def logprobs():
        return torch.log_softmax(logits, dim=-1).gather(1, tokens).squeeze(1)

    (expected,) = torch.autograd.grad(-(advantages * logprobs()).sum(), logits)
    output = clipped_surrogate(logprobs(), logprobs().detach(), advantages, 0.2, 0.2, 3.0)
    (actual,) = torch.autograd.grad(output.token_loss.sum(), logits)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(output.token_loss.detach(), -advantages)


def test_old_logprobs_and_advantages_are_constants():
    old, advantages = torch.zeros(2, requires_grad=True), torch.ones(2, requires_grad=True)
    clipped_surrogate(torch.zeros(2, requires_grad=True), old, advantages, 0.2, 0.2).token_loss.sum().backward()
    assert old.grad is None
    assert advantages.grad is None


@pytest.mark.parametrize("log_ratio", [21.0, 90.0, 300.0, -90.0, -300.0])
@pytest.mark.parametrize("advantage", [1.0, -1.0, 0.0])
@pytest.mark.parametrize("dual", [None, 3.0])
def test_a_token_far_away_has_a_finite_loss_and_gradient(log_ratio, advantage, dual):
    """exp(90) is infinite in float32, and the gradient of what the clip cuts away was 0 * infinity."""
    logprobs = torch.tensor([0.0, 0.0], requires_grad=True)
    old = torch.tensor([-log_ratio, 0.0])
    output = clipped_surrogate(logprobs, old, torch.tensor([advantage, 1.0]), 0.2, 0.2, dual)
    output.token_loss.sum().backward()
    rho = math.exp(max(min(log_ratio, 20.0), -20.0))
    expected = -min(rho * advantage, min(max(rho, 0.8), 1.2) * advantage)
    if dual is not None and advantage < 0:
        expected = min(expected, -dual * advantage)
    assert output.token_loss[0].item() == pytest.approx(expected, rel=1e-5)
    assert logprobs.grad.tolist() == [0.0, -1.0], (
        "beyond the bound a token says nothing, and its neighbour all the same"
    )
    assert output.bounded.tolist() == [True, False]


def test_surrogate_misuse():
    zeros = torch.zeros(2)
    with pytest.raises(ValueError, match="dual_clip must exceed 1"):
        clipped_surrogate(zeros, zeros, zeros, 0.2, 0.2, 1.0)
    with pytest.raises(ValueError, match="negative"):
        clipped_surrogate(zeros, zeros, zeros, -0.1, 0.2)
    with pytest.raises(ValueError, match="one shape"):
        clipped_surrogate(zeros, zeros, torch.zeros(1), 0.2, 0.2)


# --- aggregation ---

VALUES = [[1.0, 2.0, 6.0], [4.0], [10.0, 20.0]]


def flat(rows):
    return torch.tensor([value for row in rows for value in row]), torch.tensor([len(row) for row in rows])


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("token_mean", 43 / 6), ("sequence_mean", (3 + 4 + 15) / 3), ("micro_batch_mean", 43 / 6)],
)
def test_one_rank_one_micro_batch(mode, expected):
    values, lengths = flat(VALUES)
    loss = aggregate(values, lengths, mode, global_tokens=6, global_responses=3, num_micro_batches=1, world_size=1)
    assert loss.item() == pytest.approx(expected)
    assert loss.shape == ()
    assert loss.dtype == torch.float32


def test_micro_batch_mean_weights_micro_batches_equally():
    """The mean of the means 3 and 34/3, not the mean over the six tokens: it depends on the split, by design."""
    parts = [flat(VALUES[:1]), flat(VALUES[1:])]
    counts = {"global_tokens": 6, "global_responses": 3, "num_micro_batches": 2, "world_size": 1}
    total = sum(aggregate(values, lengths, "micro_batch_mean", **counts).item() for values, lengths in parts)
    assert total == pytest.approx((3 + 34 / 3) / 2)


def reference_gradient(rows, mode):
    """d loss / d token value in Python: 1 / all tokens, or 1 / (responses * own length)."""
    num_tokens = sum(len(row) for row in rows)
    if mode == "token_mean":
        return [1.0 / num_tokens for row in rows for _ in row]
    return [1.0 / (len(rows) * len(row)) for row in rows for _ in row]


@settings(deadline=None)
@given(
    mode=st.sampled_from(["token_mean", "sequence_mean"]),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=10),
    world_size=st.integers(1, 4),
    num_micro_batches=st.integers(1, 3),
    seed=st.integers(0, 10_000),
)
def test_any_split_gives_the_same_gradient(mode, lengths, world_size, num_micro_batches, seed):
    """Deal responses to ranks and micro-batches at random (some stay empty), sum over the
    micro-batches, average over the ranks as ZeRO does: always the gradient and the loss of the whole batch."""
    dealer = random.Random(seed)
    rows = [[dealer.uniform(-5, 5) for _ in range(length)] for length in lengths]
    parameter, _ = flat(rows)
    parameter.requires_grad_()
    offsets = [sum(lengths[:index]) for index in range(len(lengths))]
    cells = [[[] for _ in range(num_micro_batches)] for _ in range(world_size)]
    for index in range(len(rows)):
        dealer.choice(dealer.choice(cells)).append(index)

    mean_loss = torch.zeros((), dtype=torch.float64)
    for rank in cells:
        for members in rank:
            pieces = [parameter[offsets[index] : offsets[index] + lengths[index]] for index in members]
            loss = aggregate(
                torch.cat([*pieces, parameter[:0]]),
                torch.tensor([piece.numel() for piece in pieces], dtype=torch.long),
                mode,
                global_tokens=sum(lengths),
                global_responses=len(lengths),
                num_micro_batches=num_micro_batches,
                world_size=world_size,
            )
            (loss / world_size).backward()
            mean_loss += loss.detach().double() / world_size

    expected = reference_gradient(rows, mode)
    torch.testing.assert_close(parameter.grad, torch.tensor(expected), rtol=1e-5, atol=1e-7)
    flat_values = [value for row in rows for value in row]
    expected_loss = math.fsum(weight * value for weight, value in zip(expected, flat_values, strict=True))
    assert mean_loss.item() == pytest.approx(expected_loss, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("mode", ["token_mean", "sequence_mean", "micro_batch_mean"])
def test_a_dummy_micro_batch_is_exactly_zero_and_still_runs_backward(mode):
    weight = torch.tensor([3.0], requires_grad=True)
    loss = aggregate(
        (torch.tensor([1.0, 2.0, 5.0]) * weight)[:0],
        torch.zeros(0, dtype=torch.long),
        mode,
        global_tokens=10,
        global_responses=4,
        num_micro_batches=2,
        world_size=2,
    )
    assert loss.item() == 0.0
    assert loss.requires_grad
    loss.backward()
    assert weight.grad.tolist() == [0.0]


def test_unknown_aggregation():
    with pytest.raises(ValueError, match="token_mean, sequence_mean or micro_batch_mean"):
        aggregate(
            torch.ones(1),
            torch.tensor([1]),
            "mean",
            global_tokens=1,
            global_responses=1,
            num_micro_batches=1,
            world_size=1,
        )
