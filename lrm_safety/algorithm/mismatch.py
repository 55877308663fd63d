"""The rollout engine and the trainer never agree on a log-probability to the last digit: measure it, correct it.

Kernels, precision and batch shapes differ, so tokens are sampled from a distribution slightly off the trainer's own
and the gradient is off-policy even at the first update. Source: F. Yao et al., "Your Efficient RL Framework Secretly
Brings You Off-Policy RL Training" (2025), which proposes token-level truncated importance sampling (TIS).
Below, `delta = trainer_logprobs - rollout_logprobs`, both of the weights that sampled.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .corrections import CORRECTIONS, Correction
from .kl import MAX_LOG_RATIO, kl_estimate
from .token_statistics import Differences, TokenStatistics


def importance_weights(
    trainer_logprobs: Tensor, rollout_logprobs: Tensor, correction: Correction, cap: float = 2.0
) -> Tensor:
    """Constant factor for each token's surrogate loss, float32 `[total_tokens]`, without gradient (corrections.py).

    A token of weight 0 still counts in the denominators. Delta is bounded to +-`MAX_LOG_RATIO`.
    """
    if cap < 1:
        raise ValueError(f"the importance-weight cap must be at least 1, got {cap}")
    delta = (trainer_logprobs - rollout_logprobs).detach()
    weights, _ = correction.weigh(torch.exp(delta.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)), cap)
    return weights


def mismatch_stats(
    trainer_logprobs: Tensor, rollout_logprobs: Tensor, correction: Correction = CORRECTIONS["off"], cap: float = 2.0
) -> TokenStatistics:
    """How far engine and trainer are apart, over `[total_tokens]` float32 log-probabilities.

    `mismatch_mean_abs_delta`, `mismatch_max_abs_delta`; `mismatch_mean_ratio` (mean exp(delta), 1 when they agree);
    `mismatch_kl` (KL(rollout || trainer), k3 on the rollout's samples); `mismatch_corrected_fraction` (tokens whose
    weight was capped or is 0; 0 when off). `mismatch_mean_abs_probability` is the mean |difference| of the probabilities
    and `mismatch_q99_abs_delta` what 99 of 100 |delta| are below; the latter does not merge.

    Args:
        correction: what was done to these very log-probs; `off` where the weights did not compare them.
    """
    delta = (trainer_logprobs - rollout_logprobs).detach().double()
    ratio = torch.exp(delta)
    _, corrected = correction.weigh(ratio, cap)
    stats = TokenStatistics()
    gap = Differences.of(delta.abs())
    probabilities = trainer_logprobs.detach().double().exp() - rollout_logprobs.detach().double().exp()
    stats.add_mean("mismatch_mean_abs_delta", delta.abs())
    stats.add_max("mismatch_q99_abs_delta", delta.new_tensor([gap.q99]))
    stats.add_max("mismatch_max_abs_delta", delta.abs())
    stats.add_mean("mismatch_mean_abs_probability", probabilities.abs())
    stats.add_mean("mismatch_mean_ratio", ratio)
    stats.add_mean("mismatch_kl", kl_estimate(-delta, "k3"))
    stats.add_mean("mismatch_corrected_fraction", corrected)
    return stats
