"""The loss against plain float64 loops."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from lrm_safety.lab.reward_training.bradley_terry import bradley_terry_loss

SCORES = st.lists(st.tuples(*[st.floats(-30, 30)] * 3), min_size=1, max_size=8)


@given(SCORES, st.sampled_from([0.0, 0.02, 0.3]))
def test_against_a_loop(rows: list[tuple[float, float, float]], smoothing: float) -> None:
    chosen, rejected, margin = (torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True))
    losses = bradley_terry_loss(chosen, rejected, margin=margin, label_smoothing=smoothing)
    for loss, (a, b, m) in zip(losses.tolist(), rows, strict=True):
        sure = math.log1p(math.exp(-(a - b - m)))
        other = math.log1p(math.exp(a - b - m))
        assert loss == pytest.approx((1 - smoothing) * sure + smoothing * other, rel=1e-9, abs=1e-12)


def test_worked_out_by_hand() -> None:
    one = torch.tensor([1.0], dtype=torch.float64)
    assert bradley_terry_loss(one, one).item() == pytest.approx(math.log(2))
    assert bradley_terry_loss(one * 3, one, margin=2.0).item() == pytest.approx(math.log(2))
    assert bradley_terry_loss(one * 1e4, one).item() == 0.0
    assert bradley_terry_loss(one, one * 1e4).item() == pytest.approx(9999.0)


def test_a_sure_pair_settles_where_the_docstring_says() -> None:
    lead = torch.tensor(2.0 + math.log(0.98 / 0.02), dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(lead, torch.zeros(()), margin=2.0, label_smoothing=0.02).backward()
    assert lead.grad is not None and abs(lead.grad.item()) < 1e-12


def test_the_miniature_was_trained_on_these_bits() -> None:
    scores = torch.randn(9, generator=torch.Generator().manual_seed(0))
    margin = scores[:, None] - scores[None, :]
    former = -(0.98 * functional.logsigmoid(margin) + 0.02 * functional.logsigmoid(-margin))
    assert torch.equal(bradley_terry_loss(scores[:, None], scores[None, :], label_smoothing=0.02), former)


@pytest.mark.parametrize("smoothing", [-0.1, 0.5])
def test_smoothing_out_of_range(smoothing: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing"):
        bradley_terry_loss(torch.zeros(1), torch.zeros(1), label_smoothing=smoothing)
