"""What a reward source reads: prompt and response as text, the views of it that are scored, and how a long one is shortened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

from ..errors import ConfigError
from ..settings.components import View

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


def drop_trace_middle(conversation: Conversation, view: str, fits: Callable[[str], bool]) -> str | None:
    """The view's text with as much of both ends of the trace as fits, the rest replaced by a marker that tells its
    length.

    The answer and the tags stay whole. `fits` judges a whole text. Deterministic; the returned text was judged to fit.
    None when the view holds no trace, or does not fit even without it.
    """
    text, trace = conversation.view(view), conversation.trace
    start = text.find(trace) if view != "answer" and trace else -1
    if start < 0:
        return None
    before, after = text[:start], text[start + len(trace) :]

    def keeping(num_kept: int) -> str:
        head, tail = trace[: num_kept - num_kept // 2], trace[len(trace) - num_kept // 2 :]
        return f"{before}{head}\n[... {len(trace) - num_kept} characters of the trace left out ...]\n{tail}{after}"

    if not fits(keeping(0)):
        return None
    # Invariant: `low` fits. Token counts grow with characters but for small jumps at the seams, so the result may be a
    # few characters short of the longest that fits, never over it.
    low, high = 0, len(trace)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(keeping(middle)) else (low, middle)
    return keeping(low)


def as_conversation(request: str, text: str) -> Conversation:
    """A view's text as the `trace` view of a conversation: the rule for over-long traces then holds for it whole."""
    return Conversation(request, text, "", text, "complete")


def shortened(request: str, text: str, fits: Callable[[str], bool]) -> str | None:
    """`text` itself where it fits, else as much of both ends as does, around a marker with the number of characters
    left out. None where not even the marker fits (the request alone is too long)."""
    return text if fits(text) else drop_trace_middle(as_conversation(request, text), "trace", fits)
