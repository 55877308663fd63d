"""Summary statistics over tokens that merge exactly across micro-batches, mini-batches and ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from .kl import kl_estimate
from .losses import SurrogateOutput


@dataclass(frozen=True)
class Differences:
    """How far two computations of the same numbers are apart. The largest of a million differences says more about their
    number than about their size: it grows with the batch, while mean and quantile stay."""

    mean: float
    q99: float
    """99 of 100 are at most this."""
    largest: float

    @classmethod
    def of(cls, values: Tensor) -> Differences:
        """Of absolute differences of any shape; a NaN among them makes `mean` and `largest` NaN. None give zeros."""
        flat = values.detach().double().flatten()
        if not flat.numel():
            return cls(0.0, 0.0, 0.0)
        return cls(float(flat.mean()), float(flat.kthvalue(math.ceil(0.99 * flat.numel())).values), float(flat.max()))


class TokenStatistics:
    """Means and maxima as plain floats: picklable, cheap to send to the controller, exact to merge.

    A mean is kept as (sum, count): merging weights it by tokens, where averaging the means of micro-batches of
    different sizes would not.
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}
        self._maxima: dict[str, float] = {}

    def add_mean(self, name: str, values: Tensor) -> None:
        """Add values of any shape and dtype (a bool tensor gives a fraction); an empty tensor adds nothing."""
        if values.numel():
            self._add_sum(name, float(values.detach().double().sum()), values.numel())

    def add_max(self, name: str, values: Tensor) -> None:
        if values.numel():
            self._add_max(name, float(values.detach().max()))

    def merge(self, other: TokenStatistics) -> None:
        """Add everything `other` has seen."""
        for name, (total, count) in other._sums.items():
            self._add_sum(name, total, count)
        for name, value in other._maxima.items():
            self._add_max(name, value)

    def compute(self) -> dict[str, float]:
        """One number per name; names that saw no token are absent."""
        means = {name: total / count for name, (total, count) in self._sums.items()}
        return means | self._maxima

    def _add_sum(self, name: str, total: float, count: int) -> None:
        old_total, old_count = self._sums.get(name, (0.0, 0))
        self._sums[name] = (old_total + total, old_count + count)

    def _add_max(self, name: str, value: float) -> None:
        self._maxima[name] = max(self._maxima.get(name, value), value)


def surrogate_stats(output: SurrogateOutput, logprobs: Tensor, old_logprobs: Tensor) -> TokenStatistics:
    """What to watch in a policy update; every tensor `[total_tokens]`.

    `ratio_mean`, `ratio_max`, `clip_fraction_low`, `clip_fraction_high`, `dual_clip_fraction` and `approximate_kl`
    (KL(old || current), k3 on the old policy's samples).
    """
    stats = TokenStatistics()
    stats.add_mean("ratio_mean", output.ratio)
    stats.add_max("ratio_max", output.ratio)
    stats.add_mean("clip_fraction_low", output.clipped_low)
    stats.add_mean("clip_fraction_high", output.clipped_high)
    stats.add_mean("dual_clip_fraction", output.dual_clipped)
    stats.add_mean("approximate_kl", kl_estimate((old_logprobs - logprobs).detach().double(), "k3"))
    return stats
