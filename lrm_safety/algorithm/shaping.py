"""From the reward model's raw score to the score the baselines see.

The order is fixed: raw score -> plus penalties -> standardisation -> clipping. Each part is optional and the
statistics show the score before and after, because a silent clip is the classic way to lose a reward signal:
Bradley-Terry reward models give unbounded logits (23.0 against 3.59 for a good and a bad answer is normal), which a
clip at 10 would saturate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .options import ScoreNormalisation

MIN_VARIANCE = 1e-8


def overlong_penalty(
    response_tokens: Tensor, max_response_tokens: int, buffer_tokens: int, weight: float = 1.0
) -> Tensor:
    """Soft penalty on responses that enter the last `buffer_tokens` before the limit (DAPO, arXiv 2503.14476, eq. 13).

    0 up to `max_response_tokens - buffer_tokens`, then linear down to `-weight` at `max_response_tokens`.

    Args:
        response_tokens: int64 `[N]`.

    Returns:
        float32 `[N]`, in `[-weight, 0]`: add it to the score.
    """
    if not 1 <= buffer_tokens <= max_response_tokens:
        raise ValueError(
            f"buffer_tokens must lie in [1, max_response_tokens={max_response_tokens}], got {buffer_tokens}"
        )
    excess = response_tokens - (max_response_tokens - buffer_tokens)
    return -weight * (excess.float() / buffer_tokens).clamp(0.0, 1.0)


def unfinished_penalty(unfinished: Tensor, weight: float) -> Tensor:
    """`-weight` for responses cut before their end-of-sequence token; bool `[N]` -> float32 `[N]`."""
    return -weight * unfinished.float()


def malformed_penalty(malformed: Tensor, weight: float) -> Tensor:
    """`-weight` for responses whose trace and answer cannot be told apart; bool `[N]` -> float32 `[N]`."""
    return -weight * malformed.float()


class RunningMoments:
    """Mean and population variance of everything seen, merged batch by batch (Chan, Golub, LeVeque 1983).

    Kept as Python floats (float64), so that a JSON checkpoint restores them exactly.
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._sum_squares = 0.0

    @property
    def variance(self) -> float:
        return self._sum_squares / self.count if self.count else 0.0

    @property
    def std(self) -> float:
        return math.sqrt(self.variance)

    def update(self, values: Tensor) -> None:
        """Merge a batch of any shape. Raises ValueError on NaN or infinity, which would poison every later batch."""
        if not bool(torch.isfinite(values).all()):
            raise ValueError("running moments need finite scores, got NaN or infinity")
        if values.numel() == 0:
            return
        batch = values.detach().double()
        batch_count, batch_mean = batch.numel(), float(batch.mean())
        delta = batch_mean - self.mean
        total = self.count + batch_count
        self._sum_squares += float((batch - batch_mean).square().sum()) + delta**2 * self.count * batch_count / total
        self.mean += delta * batch_count / total
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "sum_squares": self._sum_squares}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
        self.mean = float(state["mean"])
        self._sum_squares = float(state["sum_squares"])


@dataclass(frozen=True)
class ShapedScores:
    """`scores`: float32 `[N]`. `stats`: the score before and after, in the units of the reward.

    `mean` and `std` standardised the scores (0 and 1: not at all), `clip` bounded them.
    """

    scores: Tensor
    stats: dict[str, float]
    mean: float = 0.0
    std: float = 1.0
    clip: tuple[float, float] | None = None

    def like_scores(self, raw_scores: Tensor) -> Tensor:
        """Other raw scores of the same reward in the units of `scores`: standardised and clipped as they were, without a
        penalty; float64, any shape."""
        values = (raw_scores.double() - self.mean) / self.std
        return values if self.clip is None else values.clamp(*self.clip)


def shape_scores(
    raw_scores: Tensor,
    *,
    penalties: Mapping[str, Tensor] | None = None,
    normalise: ScoreNormalisation = "none",
    clip: tuple[float, float] | None = None,
    moments: RunningMoments | None = None,
) -> ShapedScores:
    """Shape the scores of one whole rollout batch.

    Args:
        raw_scores: float32 `[N]`, as the reward gave them.
        penalties: named float32 `[N]` tensors, zero or negative, added to the raw score.
        normalise: `batch` standardises with this batch's moments; `running` first merges this batch into `moments`
            (so the very first batch has some), then standardises with the merged ones. Both use
            `(score - mean) / sqrt(max(variance, 1e-8))`.
        clip: bounds applied last, to the standardised score if there is standardisation.
        moments: state of `running`; updated in place.

    Raises:
        ValueError: `running` without moments, bounds out of order, wrong shapes, or non-finite running scores.
    """
    if raw_scores.dim() != 1 or raw_scores.numel() == 0:
        raise ValueError(
            f"raw_scores must have shape [num_responses] with one response or more, got {list(raw_scores.shape)}"
        )
    scores = raw_scores.double()
    stats = {
        "raw_mean": scores.mean(),
        "raw_std": scores.std(correction=0),
    }
    for name, penalty in (penalties or {}).items():
        if penalty.shape != raw_scores.shape:
            raise ValueError(f"penalty {name!r} must have shape {list(raw_scores.shape)}, got {list(penalty.shape)}")
        scores = scores + penalty
        stats[f"penalty_{name}_mean"] = penalty.double().mean()
    stats["penalised_mean"] = scores.mean()

    mean, std = _mean_and_std(scores, normalise, moments)
    scores = (scores - mean) / std
    clipped = torch.zeros_like(scores, dtype=torch.bool)
    if clip is not None:
        low, high = clip
        if not low < high:
            raise ValueError(f"clip bounds must be in order, got [{low}, {high}]")
        clipped = (scores < low) | (scores > high)
        scores = scores.clamp(low, high)
    stats["shaped_mean"] = scores.mean()
    stats["shaped_std"] = scores.std(correction=0)
    stats["clipped_fraction"] = clipped.double().mean()
    figures = {name: float(value) for name, value in stats.items()}
    return ShapedScores(scores.to(raw_scores.dtype), figures, mean, std, clip)


def _mean_and_std(scores: Tensor, mode: ScoreNormalisation, moments: RunningMoments | None) -> tuple[float, float]:
    """What standardises the scores; 0 and 1 leave them as they are."""
    if mode == "none":
        return 0.0, 1.0
    if mode == "batch":
        return float(scores.mean()), math.sqrt(max(float(scores.var(correction=0)), MIN_VARIANCE))
    if mode == "running":
        if moments is None:
            raise ValueError("running normalisation needs the run's RunningMoments")
        moments.update(scores)
        return moments.mean, math.sqrt(max(moments.variance, MIN_VARIANCE))
    raise ValueError(f"unknown score normalisation {mode!r}: choose none, running or batch")
