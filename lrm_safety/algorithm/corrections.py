"""Weights that correct for the engine: declared as one function each, which is all that a new one takes.

    @correction
    def tis(ratio, cap):
        return ratio.clamp(max=cap), ratio > cap

`ratio` is exp(trainer's log-prob - engine's) of each token, float `[total_tokens]`, bounded; the function returns each
token's factor in the surrogate loss and whether it was corrected. A token of weight 0 still counts in the denominators.
Tensors are used through their methods alone, so that the configuration can know the names without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

if TYPE_CHECKING:
    from torch import Tensor

Weigh = Callable[["Tensor", float], tuple["Tensor", "Tensor"]]


@dataclass(frozen=True)
class Correction:
    """A correction: `weigh(ratio, cap) -> (weights, corrected)`, both `[total_tokens]`, the second of booleans."""

    name: str
    weigh: Weigh


CORRECTIONS: dict[str, Correction] = {}


def complaint(returned: Any, ratio: Tensor, cap: float) -> str | None:
    """What is wrong with what a correction returned for these ratios; None: nothing."""
    if not isinstance(returned, tuple) or len(returned) != 2:
        return f"returned a {type(returned).__name__}, and must return (weights, corrected)"
    for name, one in zip(("weights", "corrected"), returned, strict=True):
        if (shape := getattr(one, "shape", None)) != ratio.shape:
            told = type(one).__name__ if shape is None else f"shape {list(shape)}"
            return f"returned {name} of {told} for {list(ratio.shape)} ratios"
    bad = int((~returned[0].isfinite()).sum())
    return f"returned {bad} of {len(ratio)} weights that are NaN or infinite" if bad else None


@overload
def correction(weigh: Weigh, /) -> Correction: ...


@overload
def correction() -> Callable[[Weigh], Correction]: ...


def correction(weigh: Weigh | None = None, /) -> Correction | Callable[[Weigh], Correction]:
    """Declare a correction; it is known by its function's name where it is one of ours, by its import path elsewhere."""
    if weigh is None:
        return correction
    made = Correction(weigh.__name__, weigh)
    if weigh.__module__ == __name__:
        CORRECTIONS[made.name] = made
    return made


@correction
def tis(ratio: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """min(ratio, cap): token-level truncated importance sampling (F. Yao et al., "Your Efficient RL Framework Secretly
    Brings You Off-Policy RL Training", 2025)."""
    return ratio.clamp(max=cap), ratio > cap


@correction
def off(ratio: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """1."""
    return ratio.new_ones(ratio.shape), ratio != ratio


@correction
def mask(ratio: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """1 where the ratio lies in [1 / cap, cap], else 0."""
    outside = (ratio > cap) | (ratio < 1.0 / cap)
    return (~outside).to(ratio.dtype), outside


@correction
def icepop(ratio: Tensor, cap: float) -> tuple[Tensor, Tensor]:
    """The ratio itself where it lies in [1 / cap, cap], else 0 (IcePop, Ling team 2025)."""
    outside = (ratio > cap) | (ratio < 1.0 / cap)
    return ratio * ~outside, outside
