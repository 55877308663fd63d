import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.algorithm.kl import AdaptiveKL, FixedKL, kl_estimate
from lrm_safety.algorithm.losses import kl_loss

POLICY = [0.5, 0.3, 0.15, 0.05]
REFERENCE = [0.2, 0.3, 0.1, 0.4]
TRUE_KL = sum(p * math.log(p / q) for p, q in zip(POLICY, REFERENCE, strict=True))


def log_ratio() -> torch.Tensor:
    return torch.tensor([math.log(p / q) for p, q in zip(POLICY, REFERENCE, strict=True)])


def test_estimators_by_hand():
    ratio = torch.tensor([math.log(2.0), 0.0, -math.log(2.0)])
    assert kl_estimate(ratio, "k1").tolist() == ratio.tolist()
    half_square = math.log(2.0) ** 2 / 2
    torch.testing.assert_close(kl_estimate(ratio, "k2"), torch.tensor([half_square, 0.0, half_square]))
    # exp(-ln 2) - 1 + ln 2 = ln 2 - 1/2;  exp(ln 2) - 1 - ln 2 = 1 - ln 2
    torch.testing.assert_close(kl_estimate(ratio, "k3"), torch.tensor([math.log(2.0) - 0.5, 0.0, 1.0 - math.log(2.0)]))


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator):
    """The expectation over every token of a small vocabulary is the KL divergence itself."""
    expectation = (torch.tensor(POLICY) * kl_estimate(log_ratio(), estimator)).sum()
    assert expectation.item() == pytest.approx(TRUE_KL, rel=1e-5)


def test_k2_is_biased():
    expectation = (torch.tensor(POLICY) * kl_estimate(log_ratio(), "k2")).sum()
    assert abs(expectation.item() - TRUE_KL) > 0.01


@given(st.floats(-20, 20, width=32))
def test_k2_and_k3_are_never_negative(value):
    ratio = torch.tensor([value], dtype=torch.float32)
    assert kl_estimate(ratio, "k2").item() >= 0
    assert kl_estimate(ratio, "k3").item() >= 0


def test_k3_keeps_its_digits_near_zero():
    # x^2 / 2 - x^3 / 6 at x = 1e-4; exp(-x) - 1 + x in float32 would be wrong by a factor.
    assert kl_estimate(torch.tensor([1e-4]), "k3").item() == pytest.approx(5e-9, rel=1e-2)


def test_unknown_estimator():
    with pytest.raises(ValueError, match="k1, k2 or k3"):
        kl_estimate(torch.zeros(1), "k4")


def expected_loss_gradient(logits: torch.Tensor, per_token) -> torch.Tensor:
    """Gradient in the logits of E_{token ~ policy}[per_token(logprobs)], the sampling itself held constant."""
    logprobs = torch.log_softmax(logits, dim=0)
    (gradient,) = torch.autograd.grad((logprobs.detach().exp() * per_token(logprobs)).sum(), logits)
    return gradient


def test_gradients_in_the_loss():
    """k1: zero in expectation. k2: the gradient of KL(policy || reference). k3: that of KL(reference || policy)."""
    logits = torch.tensor(POLICY, dtype=torch.float64).log().requires_grad_()
    reference = torch.tensor(REFERENCE, dtype=torch.float64).log()
    logprobs = torch.log_softmax(logits, dim=0)
    (reverse,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits, retain_graph=True)
    (forward,) = torch.autograd.grad((reference.exp() * (reference - logprobs)).sum(), logits)

    k1 = expected_loss_gradient(logits, lambda current: kl_estimate(current - reference, "k1"))
    k2 = expected_loss_gradient(logits, lambda current: kl_loss(current, reference, "k2"))
    k3 = expected_loss_gradient(logits, lambda current: kl_loss(current, reference, "k3"))
    torch.testing.assert_close(k1, torch.zeros_like(k1), atol=1e-12, rtol=0)
    torch.testing.assert_close(k2, reverse)
    torch.testing.assert_close(k3, forward)
    assert (forward - reverse).abs().max() > 0.01


def test_kl_loss_per_token():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    reference = torch.tensor([-1.5, -1.0], requires_grad=True)
    values = kl_loss(logprobs, reference, "k2")
    torch.testing.assert_close(values.detach(), torch.tensor([0.125, 0.5]))
    values.sum().backward()
    assert logprobs.grad.tolist() == [0.5, -1.0]
    assert reference.grad is None


def test_k1_in_the_loss_is_refused():
    with pytest.raises(ValueError, match="useless gradient"):
        kl_loss(torch.zeros(1), torch.zeros(1), "k1")


def test_fixed_controller_never_moves():
    controller = FixedKL(0.01)
    controller.update(observed_kl=1000.0, num_rollouts=256)
    assert controller.coef == 0.01
    resumed = FixedKL(0.02)
    resumed.load_state_dict(controller.state_dict())
    assert resumed.coef == 0.02


def test_adaptive_controller_by_hand():
    controller = AdaptiveKL(0.1, target=6.0, horizon=1000.0)
    controller.update(observed_kl=6.6, num_rollouts=100)  # error 0.1: times 1.01
    assert controller.coef == pytest.approx(0.101)
    controller.update(observed_kl=60.0, num_rollouts=100)  # error clipped to 0.2: times 1.02
    assert controller.coef == pytest.approx(0.101 * 1.02)
    controller.update(observed_kl=-5.0, num_rollouts=100)  # error clipped to -0.2: times 0.98
    assert controller.coef == pytest.approx(0.101 * 1.02 * 0.98)
    controller.update(observed_kl=6.0, num_rollouts=100)  # on target: unmoved
    assert controller.coef == pytest.approx(0.101 * 1.02 * 0.98)


def test_adaptive_controller_resumes_exactly_through_json():
    controller = AdaptiveKL(0.1, target=3.0, horizon=777.0)
    controller.update(observed_kl=3.1, num_rollouts=31)
    resumed = AdaptiveKL(0.5, target=3.0, horizon=777.0)
    resumed.load_state_dict(json.loads(json.dumps(controller.state_dict())))
    for each in (controller, resumed):
        each.update(observed_kl=2.9, num_rollouts=31)
    assert resumed.coef == controller.coef


def test_controllers_refuse_what_cannot_work():
    with pytest.raises(ValueError, match="negative"):
        FixedKL(-0.1)
    with pytest.raises(ValueError, match="above zero"):
        AdaptiveKL(0.0, target=1.0, horizon=100.0)
    with pytest.raises(ValueError, match="positive"):
        AdaptiveKL(0.1, target=0.0, horizon=100.0)
    with pytest.raises(ValueError, match="fifth of the rollout batch"):
        AdaptiveKL(0.1, target=1.0, horizon=100.0).update(1.0, num_rollouts=500)
    with pytest.raises(ValueError, match="holds a fixed KL controller"):
        AdaptiveKL(0.1, target=1.0, horizon=100.0).load_state_dict(FixedKL(0.1).state_dict())


def test_bounded_estimates_and_their_gradients():
    """The estimate is bounded, not the log-ratio; a token beyond the bound pulls nowhere, and NaN comes from none."""
    log_ratio = torch.tensor([-300.0, -15.0, -2.0, 3.0, 15.0], requires_grad=True)
    for estimator, values, slopes in (
        ("k1", [-10.0, -10.0, -2.0, 3.0, 10.0], [0.0, 0.0, 1.0, 1.0, 0.0]),
        ("k2", [10.0, 10.0, 2.0, 4.5, 10.0], [0.0, 0.0, -2.0, 3.0, 0.0]),
        (
            "k3",
            [10.0, 10.0, math.exp(2) - 3, math.exp(-3) + 2, 10.0],
            [0.0, 0.0, 1 - math.exp(2), 1 - math.exp(-3), 0.0],
        ),
    ):
        found = kl_estimate(log_ratio, estimator, bound=10.0)
        assert found.tolist() == pytest.approx(values, rel=1e-6)
        (gradient,) = torch.autograd.grad(found.sum(), log_ratio)
        assert gradient.tolist() == pytest.approx(slopes, rel=1e-5)
    assert kl_estimate(log_ratio, "k3")[1].item() == pytest.approx(math.exp(15) - 16, rel=1e-6), "unbounded by default"
