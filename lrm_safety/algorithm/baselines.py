"""What is subtracted from a score: declared as one function each, which is all that a new one takes.

    @baseline
    def group_mean(scores, groups):
        return scores - groups.mean(scores)

`scores` are float64 `[N]`, shaped; `groups` tells which responses answer the same prompt. Tensors are used through their
methods alone, so that the configuration can know the names without importing torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, overload

if TYPE_CHECKING:
    from torch import Tensor

GROUP_STD_EPSILON = 1e-6


class Groups(Protocol):
    """The responses of each prompt."""

    @property
    def size(self) -> Tensor:
        """int64 `[N]`: of each response's group."""

    def mean(self, values: Tensor) -> Tensor:
        """float64 `[N]`: of each response's group."""


Subtract = Callable[["Tensor", Groups], "Tensor"]


@dataclass(frozen=True)
class Baseline:
    """A baseline.

    Attributes:
        subtract: `(scores, groups) -> float64 [N]`.
        min_samples: responses that a prompt needs at least; 1 where the samples of a prompt are not compared.
        rescales: whether it divides by something of the group, which the prefixes of segment rewards do not have.
    """

    name: str
    subtract: Subtract
    min_samples: int
    rescales: bool

    @property
    def within_prompt(self) -> bool:
        """Whether the samples of one prompt are compared with one another."""
        return self.min_samples > 1


BASELINES: dict[str, Baseline] = {}


def complaint(returned: Any, scores: Tensor, groups: Groups) -> str | None:
    """What is wrong with what a baseline returned for these scores; None: nothing."""
    if (shape := getattr(returned, "shape", None)) != scores.shape:
        told = type(returned).__name__ if shape is None else f"shape {list(shape)}"
        return f"returned {told} for {list(scores.shape)} scores"
    bad = int((~returned.isfinite()).sum())
    return f"returned {bad} of {len(scores)} numbers that are NaN or infinite" if bad else None


@overload
def baseline(subtract: Subtract, /) -> Baseline: ...


@overload
def baseline(*, min_samples: int = 2, rescales: bool = False) -> Callable[[Subtract], Baseline]: ...


def baseline(
    subtract: Subtract | None = None, /, *, min_samples: int = 2, rescales: bool = False
) -> Baseline | Callable[[Subtract], Baseline]:
    """Declare a baseline; it is known by its function's name where it is one of ours, by its import path elsewhere."""

    def declare(subtract: Subtract) -> Baseline:
        made = Baseline(subtract.__name__, subtract, min_samples, rescales)
        if subtract.__module__ == __name__:
            BASELINES[made.name] = made
        return made

    return declare(subtract) if subtract else declare


@baseline(min_samples=1)
def none(scores: Tensor, groups: Groups) -> Tensor:
    """R (REINFORCE++, arXiv 2501.03262)."""
    return scores


@baseline
def group_mean(scores: Tensor, groups: Groups) -> Tensor:
    """R - mean, without the group's std (REINFORCE++ with baseline, arXiv 2501.03262)."""
    return scores - groups.mean(scores)


@baseline
def leave_one_out(scores: Tensor, groups: Groups) -> Tensor:
    """R_i - mean of the others = n / (n - 1) * (R_i - mean) (RLOO, arXiv 2402.14740).

    The baseline sees scores only; RLOO's own text folds the KL into the score first.
    """
    return (scores - groups.mean(scores)) * groups.size / (groups.size - 1)


@baseline(rescales=True)
def group_zscore(scores: Tensor, groups: Groups) -> Tensor:
    """(R - mean) / (std + 1e-6) (GRPO, arXiv 2402.03300, section 4.1.2).

    The paper leaves the std's convention open; this is the sample std (n - 1), as TRL and verl compute it.
    """
    centred = scores - groups.mean(scores)
    variance = groups.mean(centred.square()) * groups.size / (groups.size - 1)
    return centred / (variance.sqrt() + GROUP_STD_EPSILON)
