import math

import pytest
import torch

from lrm_safety.algorithm.corrections import CORRECTIONS, correction
from lrm_safety.algorithm.mismatch import importance_weights, mismatch_stats

ROLLOUT = torch.tensor([-1.0, -1.0, -1.0, -1.0])
# exp(delta) = 1, 1.5, 4, 0.25
TRAINER = ROLLOUT + torch.tensor([1.0, 1.5, 4.0, 0.25]).log()


def test_off_is_one():
    assert importance_weights(TRAINER, ROLLOUT, CORRECTIONS["off"]).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_truncated_importance_sampling_by_hand():
    torch.testing.assert_close(
        importance_weights(TRAINER, ROLLOUT, CORRECTIONS["tis"], cap=2.0), torch.tensor([1.0, 1.5, 2.0, 0.25])
    )


def test_mask_by_hand():
    assert importance_weights(TRAINER, ROLLOUT, CORRECTIONS["mask"], cap=2.0).tolist() == [1.0, 1.0, 0.0, 0.0]


def test_icepop_keeps_the_ratio_inside():
    torch.testing.assert_close(
        importance_weights(TRAINER, ROLLOUT, CORRECTIONS["icepop"], cap=2.0), torch.tensor([1.0, 1.5, 0.0, 0.0])
    )


def test_far_apart_weights_are_numbers():
    far = ROLLOUT + torch.tensor([200.0, -200.0, 0.0, 0.0])
    for mode, expected in (("tis", [2.0, math.exp(-20)]), ("mask", [0.0, 0.0]), ("icepop", [0.0, 0.0])):
        assert importance_weights(far, ROLLOUT, CORRECTIONS[mode])[:2].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("mode", ["off", "tis", "mask", "icepop"])
def test_weights_are_constants_and_1_without_mismatch(mode):
    logprobs = torch.tensor([-0.3, -7.0], requires_grad=True)
    weights = importance_weights(logprobs, logprobs.detach().clone(), CORRECTIONS[mode], cap=2.0)
    assert weights.tolist() == [1.0, 1.0]
    assert not weights.requires_grad


def test_uncapped_weights_undo_the_mismatch():
    """E_rollout[w * f] = E_trainer[f], by enumeration; the cap is what makes TIS biased."""
    rollout, trainer = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.4, 0.4])
    function = torch.tensor([3.0, -1.0, 8.0])
    weights = importance_weights(trainer.log(), rollout.log(), CORRECTIONS["tis"], cap=10.0)
    assert (rollout * weights * function).sum().item() == pytest.approx((trainer * function).sum().item(), rel=1e-5)


def test_mismatch_by_hand():
    stats = mismatch_stats(TRAINER, ROLLOUT, CORRECTIONS["tis"], cap=2.0).compute()
    deltas = [0.0, math.log(1.5), math.log(4.0), -math.log(4.0)]
    assert stats["mismatch_mean_abs_delta"] == pytest.approx(sum(abs(delta) for delta in deltas) / 4, rel=1e-5)
    assert stats["mismatch_max_abs_delta"] == pytest.approx(math.log(4.0), rel=1e-5)
    assert stats["mismatch_mean_ratio"] == pytest.approx(6.75 / 4, rel=1e-5)
    # k3 of KL(rollout || trainer): mean of exp(delta) - 1 - delta.
    assert stats["mismatch_kl"] == pytest.approx((6.75 - 4 - sum(deltas)) / 4, rel=1e-5)
    assert stats["mismatch_corrected_fraction"] == 0.25
    assert stats["mismatch_q99_abs_delta"] == pytest.approx(math.log(4.0), rel=1e-5)
    # Of exp(-1) and of 1.5, 4 and 0.25 times it.
    assert stats["mismatch_mean_abs_probability"] == pytest.approx((0.5 + 3 + 0.75) / math.e / 4, rel=1e-5)


@pytest.mark.parametrize(("mode", "fraction"), [("off", 0.0), ("tis", 0.25), ("mask", 0.5), ("icepop", 0.5)])
def test_corrected_fraction(mode, fraction):
    assert (
        mismatch_stats(TRAINER, ROLLOUT, CORRECTIONS[mode], cap=2.0).compute()["mismatch_corrected_fraction"]
        == fraction
    )


def test_mismatch_kl_is_the_divergence_in_expectation():
    """Sampled from the rollout engine, the estimate is KL(rollout || trainer), not the other direction."""
    rollout, trainer = [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]
    # Two tokens of the first kind to one of each other: the engine's own frequencies.
    samples = [0, 0, 1, 2]
    stats = mismatch_stats(
        torch.tensor([math.log(trainer[token]) for token in samples]),
        torch.tensor([math.log(rollout[token]) for token in samples]),
    ).compute()
    expected = sum(p * math.log(p / q) for p, q in zip(rollout, trainer, strict=True))
    assert stats["mismatch_kl"] == pytest.approx(expected, rel=1e-5)
    assert stats["mismatch_mean_ratio"] == pytest.approx(1.0, rel=1e-5)


def test_misuse():
    with pytest.raises(ValueError, match="at least 1"):
        importance_weights(TRAINER, ROLLOUT, CORRECTIONS["tis"], cap=0.5)


@correction
def halves(ratio, cap):
    """A correction from outside the package."""
    return ratio / 2, ratio > 1


def test_a_correction_of_ones_own():
    assert "halves" not in CORRECTIONS, "known by its import path, not by its name"
    torch.testing.assert_close(importance_weights(TRAINER, ROLLOUT, halves), torch.tensor([0.5, 0.75, 2.0, 0.125]))
    assert mismatch_stats(TRAINER, ROLLOUT, halves).compute()["mismatch_corrected_fraction"] == 0.5
