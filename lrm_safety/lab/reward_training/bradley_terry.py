"""Scores of pairs under the model of Bradley and Terry: the loss to train by, and how good held-out scores are.

Accuracy says how often the chosen response scores higher, calibration whether sigmoid(margin) is the chance that it says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch.nn import functional

from ...results import HeldOutPairs, Metric, ReliabilityBin
from ...statistics import estimate, question_means


def bradley_terry_loss(
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    *,
    margin: torch.Tensor | float = 0.0,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """-log sigmoid(chosen - rejected - margin), one value a pair; the caller takes the mean.

    Bradley and Terry 1952 as the loss of a reward model (Ouyang et al. 2022, equation 1); the margin is Llama 2's
    (Touvron et al. 2023, equation 2). With `label_smoothing` e a pair counts with weight e the other way round
    (Mitchell's conservative form), so a sure pair settles at the difference margin + ln((1 - e) / e) instead of growing
    for ever.

    Args:
        chosen, rejected: scores, float, of shapes that broadcast together.
        margin: by how much chosen should lead; broadcasts too.
        label_smoothing: e in [0, 0.5).

    Raises:
        ValueError: `label_smoothing` out of range.
    """
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {label_smoothing}")
    lead = chosen - rejected - margin
    if not label_smoothing:
        return -functional.logsigmoid(lead)
    return -((1 - label_smoothing) * functional.logsigmoid(lead) + label_smoothing * functional.logsigmoid(-lead))


NUM_BINS = 10


def reliability(margins: ArrayLike, num_bins: int = NUM_BINS) -> list[ReliabilityBin]:
    """Reliability table of sigmoid(margin), where margin = score of chosen - score of rejected (`[num_pairs]`).

    Which response of a pair is named first is a convention, and with the chosen one always first every prediction
    would "come true". So each pair is counted both ways: sigmoid(margin) with outcome 1, sigmoid(-margin) with
    outcome 0. Bins are of equal width over [0, 1].
    """
    margins = np.asarray(margins, dtype=np.float64).ravel()
    predictions = np.concatenate([sigmoid(margins), sigmoid(-margins)])
    outcomes = np.concatenate([np.ones(margins.size), np.zeros(margins.size)])
    places = np.minimum((predictions * num_bins).astype(int), num_bins - 1)
    table = []
    for place in range(num_bins):
        inside = places == place
        count = int(inside.sum())
        mean, share = (float(v[inside].mean()) if count else None for v in (predictions, outcomes))
        table.append(ReliabilityBin(place / num_bins, (place + 1) / num_bins, count, mean, share))
    return table


def expected_calibration_error(table: Sequence[ReliabilityBin]) -> float:
    """Mean over predictions of |share that came true - mean prediction| of their bin (Naeini et al. 2015); NaN for none."""
    total = sum(one.count for one in table)
    if not total:
        return float("nan")
    gaps = [
        one.count * abs(one.share_true - one.mean_prediction)
        for one in table
        if one.share_true is not None and one.mean_prediction is not None
    ]
    return sum(gaps) / total


def sigmoid(values: ArrayLike) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) in float64, without overflow."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(values, dtype=np.float64)))


def measure(
    chosen: ArrayLike, rejected: ArrayLike, prompts: Sequence[str], categories: Sequence[Sequence[str]], *, seed: int
) -> HeldOutPairs:
    """Figures of held-out pairs.

    A tie counts half. Pairs of one prompt are not independent: accuracies are means over prompts, with
    intervals over prompts.

    Args:
        chosen, rejected: scores, `[num_pairs]`.
        prompts: what tells prompts apart, one a pair.
        categories: of each pair; a pair counts in all of its own.
    """
    margins = np.asarray(chosen, dtype=np.float64) - np.asarray(rejected, dtype=np.float64)
    assert margins.size == len(prompts) == len(categories) > 0
    table = reliability(margins)
    by_category = {
        name: [position for position, own in enumerate(categories) if name in own]
        for name in sorted({name for one in categories for name in one})
    }
    return HeldOutPairs(
        num_pairs=int(margins.size),
        num_prompts=len(set(prompts)),
        accuracy=_accuracy(margins, prompts, seed),
        loss=float(np.logaddexp(0.0, -margins).mean()),
        mean_margin=float(margins.mean()),
        expected_calibration_error=expected_calibration_error(table),
        reliability=tuple(table),
        by_category={
            name: _accuracy(margins[inside], [prompts[position] for position in inside], seed)
            for name, inside in by_category.items()
        },
    )


def _accuracy(margins: NDArray[np.float64], prompts: Sequence[str], seed: int) -> Metric:
    right = np.where(margins == 0, 0.5, margins > 0)
    by_prompt: dict[str, list[float]] = {}
    for prompt, value in zip(prompts, right.tolist(), strict=True):
        by_prompt.setdefault(prompt, []).append(value)
    return Metric.of(estimate(question_means(list(by_prompt.values())), seed=seed))
