"""Per-token estimates of KL(policy || reference), and the controllers of its coefficient.

For a token sampled from the policy and `log_ratio = logprobs - reference_logprobs` (J. Schulman, "Approximating KL
Divergence", 2020):

    k1 = log_ratio                            unbiased, high variance, can be negative
    k2 = log_ratio^2 / 2                      biased, never negative; its gradient is the unbiased one
    k3 = exp(-log_ratio) - 1 + log_ratio      unbiased, never negative; its gradient is biased
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .options import KLEstimator

MAX_LOG_RATIO = 20.0
"""Bound of a log-ratio before its exponential: exp(20) is 4.9e8, beyond anything that a clip, a cap or a mask lets pass.
A bound after the exponential would come too late: above 88.7 it is infinite in float32, and the gradient of a token that
was cut away is 0 * infinity."""
MAX_BOUND = 1e6
"""Largest bound of an estimate; k3 reaches 4.9e8 before its log-ratio is bounded."""


def kl_estimate(log_ratio: Tensor, estimator: KLEstimator, bound: float | None = None) -> Tensor:
    """Estimate the KL divergence per token.

    Args:
        log_ratio: float32, any shape; log-probability of the sampled token under the policy minus the reference.
        estimator: `k1`, `k2` or `k3`.
        bound: bounds the estimate (not the log-ratio) to [-bound, bound], at most `MAX_BOUND`; None leaves it as it is.
            One token at a log-ratio of -15 has a k3 of 3e6.

    Returns:
        The estimate in nats, same shape and dtype, differentiable through `log_ratio`.
    """
    if bound is not None and estimator == "k3":
        # k3 is above any bound there, and a gradient that is infinite would be multiplied by 0.
        log_ratio = log_ratio.clamp(min=-MAX_LOG_RATIO)
    if estimator == "k1":
        estimate = log_ratio
    elif estimator == "k2":
        estimate = log_ratio.square() / 2
    elif estimator == "k3":
        # expm1 keeps the digits that exp(-x) - 1 loses near zero, where the policy starts.
        estimate = torch.expm1(-log_ratio) + log_ratio
    else:
        raise ValueError(f"unknown KL estimator {estimator!r}: choose k1, k2 or k3")
    return estimate if bound is None else estimate.clamp(-bound, bound)


class FixedKL:
    """A constant KL coefficient. The configuration is its only truth: a checkpoint does not override it."""

    def __init__(self, coef: float) -> None:
        if coef < 0:
            raise ValueError(f"the KL coefficient must not be negative, got {coef}")
        self.coef = coef

    def update(self, observed_kl: float, num_rollouts: int) -> None:
        """Ignore the observation; the same call as `AdaptiveKL.update`."""

    def state_dict(self) -> dict[str, Any]:
        return {"kind": "fixed", "coef": self.coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Check that the saved controller was of this kind; ValueError otherwise."""
        _check_kind(state, "fixed")


class AdaptiveKL:
    """Proportional controller that steers the observed KL to a target (Ziegler et al. 2019, arXiv 1909.08593, 2.2).

        error = clip(observed / target - 1, -0.2, 0.2)
        coef <- coef * (1 + error * num_rollouts / horizon)

    Args:
        coef: initial coefficient.
        target: KL per response in nats: the mean over responses of the SUM of the tokens' estimates.
        horizon: number of rollouts over which the coefficient changes by about 20 % at most.
    """

    MAX_ERROR = 0.2

    def __init__(self, coef: float, *, target: float, horizon: float) -> None:
        if coef <= 0:
            raise ValueError(f"an adaptive KL coefficient must start above zero (it is only scaled), got {coef}")
        if target <= 0 or horizon <= 0:
            raise ValueError(f"the KL target and horizon must be positive, got target={target}, horizon={horizon}")
        self.coef = coef
        self.target = target
        self.horizon = horizon

    def update(self, observed_kl: float, num_rollouts: int) -> None:
        """Move the coefficient once per rollout batch.

        Raises:
            ValueError: the batch is so large against the horizon that the coefficient would fall to zero or below.
        """
        if self.MAX_ERROR * num_rollouts >= self.horizon:
            raise ValueError(
                f"the KL horizon ({self.horizon}) must exceed a fifth of the rollout batch ({num_rollouts} rollouts)"
            )
        error = min(max(observed_kl / self.target - 1.0, -self.MAX_ERROR), self.MAX_ERROR)
        self.coef *= 1.0 + error * num_rollouts / self.horizon

    def state_dict(self) -> dict[str, Any]:
        return {"kind": "adaptive", "coef": self.coef}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the coefficient; ValueError when the saved controller was of another kind."""
        _check_kind(state, "adaptive")
        self.coef = float(state["coef"])


KLController = FixedKL | AdaptiveKL


def _check_kind(state: dict[str, Any], expected: str) -> None:
    if state["kind"] != expected:
        raise ValueError(
            f"the checkpoint holds a {state['kind']} KL controller, the configuration asks for a {expected} one"
        )
