"""The Bradley-Terry loss."""

from __future__ import annotations

import torch
from torch.nn import functional


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
