"""What every source of scores offers, and the check that each batch of scores passes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from lrm_safety.errors import RewardError

from .conversation import Conversation

ScoreArray = npt.NDArray[np.float32]


class Scorer(Protocol):
    """One source of scores: a classifier, a python function or an endpoint.

    `counters` grows with every call; whoever reads it clears it. Keys: `overlong` (texts over the token limit),
    `unread` (those of them that got `overlong_score`), `respelled` (texts in which a tag or control token was
    respelled), `retries` (repeated requests).
    """

    counters: Counter[str]

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Raw scores of one view, float32 [n], in the order given. Raises RewardError."""
        ...


def checked_scores(values: Any, num_expected: int, source: str) -> ScoreArray:
    """`values` as float32 [num_expected]; RewardError, opening with `source`, unless they are that many finite
    numbers."""
    try:
        scores = np.asarray(_as_numbers(values), dtype=np.float64)
    # Whatever an array is made of may raise anything when it is read; that is the scorer's to mend.
    except Exception as error:
        raise RewardError(f"{source}: scores must be numbers, one for each conversation ({error})") from error
    if scores.shape != (num_expected,):
        raise RewardError(f"{source}: gave scores of shape {list(scores.shape)} for {num_expected} conversations")
    wrong = np.flatnonzero(~np.isfinite(scores))
    if len(wrong):
        raise RewardError(f"{source}: score of conversation {wrong[0]} is {scores[wrong[0]]}, {len(wrong)} such in all")
    with np.errstate(over="ignore"):
        narrowed = scores.astype(np.float32)
    if not np.isfinite(narrowed).all():
        raise RewardError(f"{source}: a score of {np.abs(scores).max():.3g} is too large for float32")
    return narrowed


def _as_numbers(values: Any) -> Any:
    """Tensors as float64 arrays, alone or in a list: numpy reads none that has a gradient, is in bfloat16 or on a GPU."""
    if isinstance(values, list | tuple):
        return [_as_numbers(value) for value in values]
    # Known by what it does, so that the controller's side needs no torch; a jax or numpy array has no `detach`.
    return values.detach().double().cpu().numpy() if hasattr(values, "detach") else values
