"""From shaped scores to one advantage per token: REINFORCE++ and its relatives on one code path.

    scores -> group baseline -> token rewards -> returns -> normalisation

REINFORCE++ (arXiv 2501.03262, section 3) is baseline `none` with `normalisation="batch"`: with gamma = 1 and the
k1 estimate in the reward, `A_t = R - coef * sum_{s >= t} kl_s`, standardised over the whole rollout batch. Its variant
with a baseline subtracts the group's mean first. RLOO and GRPO differ in `baseline` and use `normalisation="none"`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .baselines import BASELINES, Baseline, complaint
from .options import Normalisation
from .ragged import check_ragged, discounted_suffix_sum, expand_to_tokens, last_token_index, segment_sum

MIN_VARIANCE = 1e-8


@dataclass(frozen=True)
class AdvantageResult:
    """What the policy update needs of a rollout batch.

    advantages: float32 `[total_tokens]`. returns: float32 `[total_tokens]`, before normalisation.
    stats: `kl_penalty_mean` over responses, `uninformative_group_fraction` over groups of two or more where the baseline
    compares them, the rest over tokens.
    """

    advantages: Tensor
    returns: Tensor
    stats: dict[str, float]


class PromptGroups:
    """The responses of each prompt, for baselines."""

    def __init__(self, member: Tensor, counts: Tensor) -> None:
        """`member`: int64 `[N]`, the dense group index of each response; `counts`: int64, the size of each group."""
        self._member, self._counts = member, counts

    @property
    def size(self) -> Tensor:
        return self._counts[self._member]

    def mean(self, values: Tensor) -> Tensor:
        return _group_mean(values, self._member, self._counts)


def subtract_baseline(scores: Tensor, group_ids: Tensor | None, baseline: Baseline) -> Tensor:
    """Subtract a baseline, which may be made of the other samples of the same prompt (baselines.py).

    Args:
        scores: float32 `[N]`, shaped.
        group_ids: int64 `[N]`, equal for responses to the same prompt, in any order; may be None where the baseline does
            not compare the samples of a prompt.

    Raises:
        ValueError: no group ids, a group with fewer responses than the baseline needs, or a baseline that returns anything
            but `[N]` numbers.
    """
    if group_ids is None and not baseline.within_prompt:
        group_ids = torch.arange(scores.numel(), device=scores.device)
    member, counts = _group_members(scores, group_ids, f"baseline {baseline.name!r}")
    if bool((counts < baseline.min_samples).any()):
        few = int((counts < baseline.min_samples).sum())
        raise ValueError(
            f"baseline {baseline.name!r} needs at least {baseline.min_samples} responses per prompt, but {few} of "
            f"{counts.numel()} groups hold fewer"
        )
    groups = PromptGroups(member, counts)
    result = baseline.subtract(scores.double(), groups)
    if wrong := complaint(result, scores, groups):
        raise ValueError(f"baseline {baseline.name!r} {wrong}")
    return result.to(scores.dtype)


def token_rewards(scores: Tensor, kl: Tensor | None, lengths: Tensor, kl_coef: float = 0.0) -> Tensor:
    """`r_t = 1[t = T] * score - kl_coef * kl_t`; `[N]` and `[total_tokens]` -> float32 `[total_tokens]`.

    The score lands on the response's last action token (the end-of-sequence token when it was sampled). `kl` is None
    when the KL is no part of the reward.
    """
    if scores.shape != lengths.shape:
        raise ValueError(f"scores must have shape {list(lengths.shape)}, got {list(scores.shape)}")
    if kl is None:
        rewards = torch.zeros(int(lengths.sum()), dtype=scores.dtype, device=scores.device)
    else:
        check_ragged(kl, lengths, "kl")
        rewards = -kl_coef * kl.to(scores.dtype)
    return rewards.index_add(0, last_token_index(lengths), scores)


def returns_to_go(rewards: Tensor, lengths: Tensor, gamma: float = 1.0) -> Tensor:
    """`G_t = sum_{s >= t} gamma^(s - t) r_s` inside each response; float32 `[total_tokens]`."""
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
    return discounted_suffix_sum(rewards, lengths, gamma)


def normalise(values: Tensor, lengths: Tensor, mode: Normalisation, group_ids: Tensor | None = None) -> Tensor:
    """Standardise per-token values: `(G - mean) / sqrt(max(variance, 1e-8))`, population variance.

    - `batch`: once over ALL action tokens of the whole rollout batch (REINFORCE++'s global normalisation). Call it
      with every rank's tokens, before they are cut into mini-batches.
    - `group`: over the tokens of each prompt's responses (the local normalisation that REINFORCE++ argues against).

    Args:
        values: float32 `[total_tokens]`.
        group_ids: int64 `[N]`, needed by `group`.
    """
    check_ragged(values, lengths)
    if mode == "none":
        return values
    exact = values.double()
    if mode == "batch":
        member = torch.zeros(values.numel(), dtype=torch.long, device=values.device)
        counts = torch.tensor([values.numel()], device=values.device)
    elif mode == "group":
        if group_ids is None or group_ids.shape != lengths.shape:
            raise ValueError("group normalisation needs group_ids, one per response")
        member, counts = _group_members(values, expand_to_tokens(group_ids, lengths), "group normalisation")
    else:
        raise ValueError(f"unknown normalisation {mode!r}: choose none, batch or group")
    centred = exact - _group_mean(exact, member, counts)
    variance = _group_mean(centred.square(), member, counts)
    return (centred / variance.clamp(min=MIN_VARIANCE).sqrt()).to(values.dtype)


def compute_advantages(
    scores: Tensor,
    lengths: Tensor,
    *,
    kl: Tensor | None = None,
    kl_coef: float = 0.0,
    shaping: Tensor | None = None,
    group_ids: Tensor | None = None,
    baseline: Baseline = BASELINES["none"],
    gamma: float = 1.0,
    normalisation: Normalisation = "batch",
) -> AdvantageResult:
    """Advantages of one whole rollout batch.

    Args:
        scores: float32 `[N]`, shaped (see `shaping.shape_scores`).
        lengths: int64 `[N]`, action tokens per response.
        kl: float32 `[total_tokens]` estimate when the KL is part of the reward, else None.
        kl_coef: coefficient of that KL.
        shaping: `[total_tokens]` rewards between the tokens of a response, which sum to 0 in each, so that its rewards
            still sum to its score (segment rewards, rewards/segments.py); needs gamma = 1. None: none.
        group_ids: int64 `[N]`, prompt of each response; needed by group baselines and group normalisation.

    Raises:
        ValueError: shapes that disagree, unknown modes, groups too small for the baseline, or shaping with gamma below 1.
    """
    baselined = subtract_baseline(scores, group_ids, baseline)
    rewards = token_rewards(baselined, kl, lengths, kl_coef)
    if shaping is not None:
        check_ragged(shaping, lengths, "shaping")
        if gamma != 1.0:
            raise ValueError(f"shaping moves the optimum unless gamma is 1, got {gamma}")
        rewards = rewards + shaping.to(rewards.dtype)
    returns = returns_to_go(rewards, lengths, gamma)
    advantages = normalise(returns, lengths, normalisation, group_ids)
    stats = {
        "kl_penalty_mean": 0.0 if kl is None else kl_coef * float(segment_sum(kl, lengths).double().mean()),
        "return_mean": float(returns.double().mean()),
        "advantage_mean": float(advantages.double().mean()),
        "advantage_std": float(advantages.double().std(correction=0)),
        "advantage_max_abs": float(advantages.abs().max()),
    }
    if group_ids is not None and baseline.within_prompt:
        stats.update(_group_summary(scores, group_ids))
    return AdvantageResult(advantages, returns, stats)


def _group_summary(scores: Tensor, group_ids: Tensor) -> dict[str, float]:
    """Fraction of groups whose scores are all equal: they teach nothing once their own mean is subtracted."""
    member, counts = _group_members(scores, group_ids, "the group statistics")
    several = counts >= 2
    if not bool(several.any()):
        return {}
    highest = torch.full_like(counts, -torch.inf, dtype=scores.dtype).scatter_reduce(0, member, scores, "amax")
    lowest = torch.full_like(counts, torch.inf, dtype=scores.dtype).scatter_reduce(0, member, scores, "amin")
    return {"uninformative_group_fraction": float((highest == lowest)[several].double().mean())}


def _group_members(values: Tensor, group_ids: Tensor | None, purpose: str) -> tuple[Tensor, Tensor]:
    """Dense group index of each value, and the size of each group."""
    if group_ids is None or group_ids.shape != values.shape:
        raise ValueError(f"{purpose} needs group_ids, one per response")
    _, member, counts = torch.unique(group_ids, return_inverse=True, return_counts=True)
    return member, counts


def _group_mean(values: Tensor, member: Tensor, counts: Tensor) -> Tensor:
    """The mean of each value's group, one per value, float64."""
    sums = torch.zeros(counts.numel(), dtype=values.dtype, device=values.device).index_add(0, member, values)
    return (sums / counts)[member]
