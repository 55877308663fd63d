"""Per-token losses and their aggregation over the optimiser step."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .kl import MAX_LOG_RATIO, KLEstimator, kl_estimate
from .options import Aggregation
from .ragged import check_ragged, expand_to_tokens


@dataclass(frozen=True)
class SurrogateOutput:
    """The surrogate and what happened in it, every tensor `[total_tokens]`.

    token_loss: float32, differentiable. ratio: float32, detached. The first three masks (bool) mark tokens whose gradient
    was cut: below `1 - clip_low` with A < 0, above `1 + clip_high` with A > 0, and by the dual clip; the last one tokens
    whose log-ratio was beyond `MAX_LOG_RATIO` and bounded to it, which have no gradient either.
    """

    token_loss: Tensor
    ratio: Tensor
    clipped_low: Tensor
    clipped_high: Tensor
    dual_clipped: Tensor
    bounded: Tensor


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float | None,
    clip_high: float | None,
    dual_clip: float | None = None,
) -> SurrogateOutput:
    """Clipped policy-gradient loss per token (PPO, arXiv 1707.06347, eq. 7, negated; separate bounds as in DAPO).

        rho = exp(bound(logprobs - old_logprobs))                          (to +-MAX_LOG_RATIO)
        loss = -min(rho * A, clip(rho, 1 - clip_low, 1 + clip_high) * A)
        dual clip c, for A < 0 only: loss = min(loss, -c * A)          (arXiv 1912.09729)

    Args:
        logprobs: float32 `[total_tokens]` of the current policy, differentiable.
        old_logprobs, advantages: float32 `[total_tokens]`, constants.
        clip_low, clip_high: non-negative; None or infinity switches that side off.
        dual_clip: above 1, or None.
    """
    low = math.inf if clip_low is None else clip_low
    high = math.inf if clip_high is None else clip_high
    if low < 0 or high < 0:
        raise ValueError(f"clip bounds must not be negative, got clip_low={low}, clip_high={high}")
    if dual_clip is not None and dual_clip <= 1:
        raise ValueError(f"dual_clip must exceed 1, got {dual_clip}")
    if not logprobs.shape == old_logprobs.shape == advantages.shape:
        raise ValueError(
            "logprobs, old_logprobs and advantages must have one shape, got "
            f"{list(logprobs.shape)}, {list(old_logprobs.shape)}, {list(advantages.shape)}"
        )
    advantages = advantages.detach()
    log_ratio = logprobs - old_logprobs.detach()
    ratio = torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))
    token_loss = -torch.minimum(ratio * advantages, ratio.clamp(1.0 - low, 1.0 + high) * advantages)
    values = ratio.detach()
    dual_clipped = torch.zeros_like(values, dtype=torch.bool)
    if dual_clip is not None:
        dual_clipped = (advantages < 0) & (values > dual_clip)
        token_loss = torch.where(dual_clipped, -dual_clip * advantages, token_loss)
    return SurrogateOutput(
        token_loss=token_loss,
        ratio=values,
        clipped_low=(advantages < 0) & (values < 1.0 - low),
        clipped_high=(advantages > 0) & (values > 1.0 + high),
        dual_clipped=dual_clipped,
        bounded=log_ratio.detach().abs() > MAX_LOG_RATIO,
    )


def kl_loss(logprobs: Tensor, reference_logprobs: Tensor, estimator: KLEstimator, bound: float | None = None) -> Tensor:
    """KL(policy || reference) per token, differentiated through the CURRENT policy; float32 `[total_tokens]`.

    On tokens sampled from the policy, `log_ratio * grad(logprobs)` (k2) is an unbiased gradient of the KL;
    k3's `(1 - exp(-log_ratio)) * grad(logprobs)` is the gradient of the opposite direction, KL(reference || policy).
    A token beyond `bound` (see `kl_estimate`) has no gradient.

    Raises:
        ValueError: `k1`, whose gradient is `grad(logprobs)` whatever the reference says: zero in expectation, noise
            in practice.
    """
    if estimator == "k1":
        raise ValueError(
            "k1 has a useless gradient in the loss (its expectation is zero and the reference drops out): "
            "use k2 or k3 in the loss, or move k1 to the reward"
        )
    return kl_estimate(logprobs - reference_logprobs.detach(), estimator, bound)


def aggregate(
    token_values: Tensor,
    lengths: Tensor,
    mode: Aggregation,
    *,
    global_tokens: int,
    global_responses: int,
    num_micro_batches: float,
    world_size: int,
) -> Tensor:
    """Turn one micro-batch's token losses into the scalar to call backward on.

    The optimiser step is split over ranks and micro-batches; the trainer SUMS the gradients of a rank's micro-batches
    and AVERAGES the sums over ranks (data parallel, ZeRO). So that the step's gradient does not depend on the split:

    - `token_mean`: world_size * sum over tokens / global_tokens. The step's loss is the mean over all its tokens.
    - `sequence_mean`: world_size * sum of per-response means / global_responses.
    - `micro_batch_mean`: mean over this micro-batch's tokens / num_micro_batches; deliberately DOES depend on the split
      (what OpenRLHF did up to 0.9, kept for replication). No world_size: the ranks' average is the one intended.

    Do not let the trainer divide again by gradient accumulation steps.

    Args:
        token_values: float32 `[total_tokens]`, differentiable.
        lengths: int64 `[N]`; N = 0 is a dummy, which keeps the ranks in step: loss and gradient are exactly 0, while
            backward still runs through the graph.
        global_tokens, global_responses: of the whole optimiser step, over every rank and micro-batch, without dummies.
        num_micro_batches: this rank's micro-batches in the step. Dummies dilute the mean; when there are some, pass the
            real micro-batches of all ranks divided by world_size.
        world_size: number of data-parallel ranks.

    Returns:
        Scalar, dtype of `token_values`.
    """
    check_ragged(token_values, lengths, "token_values")
    if mode == "token_mean":
        return token_values.sum() * (world_size / global_tokens)
    if mode == "sequence_mean":
        return (token_values / expand_to_tokens(lengths, lengths)).sum() * (world_size / global_responses)
    if mode == "micro_batch_mean":
        return token_values.sum() / max(token_values.numel(), 1) / num_micro_batches
    raise ValueError(f"unknown aggregation {mode!r}: choose token_mean, sequence_mean or micro_batch_mean")
