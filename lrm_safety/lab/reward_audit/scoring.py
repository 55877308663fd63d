"""One reward model's scores of all texts, in every view and format that the audit compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.scorer import RewardMixture, build_scorer
from lrm_safety.settings import RewardModelSettings, RewardSettings
from lrm_safety.settings.audit import AuditSettings

from .rows import COMPOSED, AuditText, with_and_without_opener

Floats = NDArray[np.float64]


@dataclass
class ScoreTable:
    """Scores of one model, float64 `[num_texts]`; NaN where a text has no such form.

    `num_read` and `num_overlong` count the texts that went into each entry of `scores`, and those over the model's
    token limit.
    """

    scores: dict[tuple[str, str], Floats] = field(default_factory=dict)
    """By view and format; the views answer and trace have the format `composed` alone."""
    with_opener: dict[str, Floats] = field(default_factory=dict)
    """By view (full, answer): the text with a refusal as its first sentence."""
    without_opener: dict[str, Floats] = field(default_factory=dict)
    """By view: the same text without."""
    opener_added: NDArray[np.bool_] | None = None
    """Where the opener was put before the text; elsewhere it was the text's own and was taken off."""
    num_read: dict[tuple[str, str], int] = field(default_factory=dict)
    num_overlong: dict[tuple[str, str], int] = field(default_factory=dict)


def score_model(
    name: str, model: RewardModelSettings, texts: Sequence[AuditText], audit: AuditSettings, device: str
) -> ScoreTable:
    """Load the model, score everything, let it go. Raises what the reward itself raises."""
    settings = RewardSettings(models={name: replace(model, views={"full": 1.0})})
    asker = _Asker(name, build_scorer(settings, device), audit.batch_size)
    table = ScoreTable()
    for view in audit.views:
        formats = [COMPOSED, *_formats(texts, audit.formats)] if view == "full" else [COMPOSED]
        for one in formats:
            conversations = [
                text.conversation(view, one) if _is_written(text, one, audit.formats) else None for text in texts
            ]
            table.scores[view, one], table.num_overlong[view, one] = asker.ask(conversations)
            table.num_read[view, one] = sum(conversation is not None for conversation in conversations)
        if view != "trace":
            pairs = [with_and_without_opener(text, audit.refusal_opener) for text in texts]
            table.opener_added = np.array([pair is not None and pair.added for pair in pairs])
            table.with_opener[view], _ = asker.ask([pair.opened.conversation(view) if pair else None for pair in pairs])
            table.without_opener[view], _ = asker.ask(
                [pair.plain.conversation(view) if pair else None for pair in pairs]
            )
    return table


def _formats(texts: Sequence[AuditText], configured: Sequence[str]) -> list[str]:
    own = sorted({text.family for text in texts if text.family is not None})
    shared = configured if any(text.family is None for text in texts) else ()
    return list(dict.fromkeys([*shared, *own]))


def _is_written(text: AuditText, written_by: str, configured: Sequence[str]) -> bool:
    if written_by == COMPOSED:
        return True
    return written_by in configured if text.family is None else written_by == text.family


class _Asker:
    def __init__(self, name: str, mixture: RewardMixture, batch_size: int) -> None:
        self._key, self._mixture, self._batch_size = f"{name}/full", mixture, batch_size

    def ask(self, conversations: Sequence[Conversation | None]) -> tuple[Floats, int]:
        """Scores with NaN for None, and how many texts were over the limit."""
        scores = np.full(len(conversations), np.nan)
        places = [place for place, conversation in enumerate(conversations) if conversation is not None]
        num_overlong = 0
        for start in range(0, len(places), self._batch_size):
            batch = places[start : start + self._batch_size]
            found = self._mixture.score([one for place in batch if (one := conversations[place]) is not None])
            scores[batch] = found.by_model_and_view[self._key]
            num_overlong += found.num_overlong
        return scores, num_overlong
