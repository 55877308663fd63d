"""The rollout engine and the trainer never agree on a log-probability to the last digit: measure it, correct it.

Kernels, precision and batch shapes differ, so tokens are sampled from a distribution slightly off the trainer's own
and the gradient is off-policy even at the first update. Source: F. Yao et al., "Your Efficient RL Framework Secretly
Brings You Off-Policy RL Training" (2025), which proposes token-level truncated importance sampling (TIS).
Below, `delta = trainer_logprobs - rollout_logprobs`, both of the weights that sampled.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .kl import MAX_LOG_RATIO, kl_estimate
from .token_statistics import Differences, TokenStatistics

CorrectionMode = Literal["off", "tis", "mask", "icepop"]


def importance_weights(
    trainer_logprobs: Tensor, rollout_logprobs: Tensor, mode: CorrectionMode, cap: float = 2.0
) -> Tensor:
    """Constant factor for each token's surrogate loss, float32 `[total_tokens]`, without gradient.

    - `off`: 1.
    - `tis`: min(exp(delta), cap).
    - `mask`: 1 where exp(delta) lies in [1 / cap, cap], else 0.
    - `icepop`: exp(delta) where it lies in [1 / cap, cap], else 0 (IcePop, Ling team 2025).

    A token of weight 0 still counts in the denominators. Delta is bounded to +-`MAX_LOG_RATIO`.
    """
    if cap < 1:
        raise ValueError(f"the importance-weight cap must be at least 1, got {cap}")
    delta = (trainer_logprobs - rollout_logprobs).detach()
    if mode == "off":
        return torch.ones_like(delta)
    ratio = torch.exp(delta.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
    if mode == "tis":
        return ratio.clamp(max=cap)
    within = ((ratio >= 1.0 / cap) & (ratio <= cap)).to(delta.dtype)
    if mode == "mask":
        return within
    if mode == "icepop":
        return ratio * within
    raise ValueError(f"unknown mismatch correction {mode!r}: choose off, tis, mask or icepop")


def mismatch_stats(
    trainer_logprobs: Tensor, rollout_logprobs: Tensor, mode: CorrectionMode = "off", cap: float = 2.0
) -> TokenStatistics:
    """How far engine and trainer are apart, over `[total_tokens]` float32 log-probabilities.

    `mismatch_mean_abs_delta`, `mismatch_max_abs_delta`; `mismatch_mean_ratio` (mean exp(delta), 1 when they agree);
    `mismatch_kl` (KL(rollout || trainer), k3 on the rollout's samples); `mismatch_corrected_fraction` (tokens whose
    weight was capped or is 0; 0 when off). `mismatch_mean_abs_probability` is the mean |difference| of the probabilities
    and `mismatch_q99_abs_delta` what 99 of 100 |delta| are below; the latter does not merge.

    Args:
        mode: what was done to these very log-probs; `off` where the weights did not compare them.
    """
    delta = (trainer_logprobs - rollout_logprobs).detach().double()
    ratio = torch.exp(delta)
    corrected = torch.zeros_like(ratio, dtype=torch.bool)
    if mode == "tis":
        corrected = ratio > cap
    elif mode in ("mask", "icepop"):
        corrected = (ratio > cap) | (ratio < 1.0 / cap)
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
