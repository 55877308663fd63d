"""What a reward source reads: the text of one prompt and one response, and the views of it that are scored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lrm_safety.errors import ConfigError

View = Literal["full", "trace", "answer"]
VIEWS: tuple[str, ...] = get_args(View)


@dataclass(frozen=True)
class Conversation:
    """One prompt and one response as text, without control tokens of the policy.

    Attributes:
        prompt: the user's words, without any chat template.
        trace: what stands inside `<think>`, without the tags; empty when there is none.
        answer: what follows the trace; empty when the response ended inside its trace.
        full: trace and answer as one response, written by `Family.compose`.
        status: `lrm_safety.conversation.Status` of the response.
    """

    prompt: str
    trace: str
    answer: str
    full: str
    status: str

    def view(self, name: str) -> str:
        """The part to score: `full`, `trace` or `answer`. Raises ConfigError for another name."""
        if name not in VIEWS:
            raise ConfigError(f"reward view {name}: must be one of {', '.join(VIEWS)}")
        text = getattr(self, name)
        assert isinstance(text, str)
        return text
