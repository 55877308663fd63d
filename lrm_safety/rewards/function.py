"""Rewards computed by a python function of the user's."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lrm_safety.errors import RewardError, calling
from lrm_safety.files import digest
from lrm_safety.registry import import_function
from lrm_safety.settings import RewardModelSettings

from .conversation import Conversation
from .scorer import ScoreArray, checked_scores


def function_fingerprint(function: Callable[..., Any]) -> str | None:
    """sha256 of the file that holds the function; None where there is no such file."""
    module = getattr(function, "__module__", None) or type(function).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    return digest(Path(file)) if file else None


class FunctionScorer:
    """Scores conversations by a python function.

    The function gets a list of conversations and returns one finite number for each, as a list, array or tensor. It
    sees the whole conversation, so the view is only the name under which its scores are logged.
    """

    def __init__(self, name: str, settings: RewardModelSettings) -> None:
        self.counters: Counter[str] = Counter()
        key = f"reward.models.{name}.function"
        self._source = f"{key}={settings.function}"
        self._function = import_function(settings.function or "", key)

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Scores, float32 [n]. Raises RewardError when the function raises, or returns anything but n finite
        numbers."""
        with calling(self._source, RewardError):
            values = self._function(list(conversations))
        return checked_scores(values, len(conversations), self._source)
