"""Making an over-long text readable for a judge: its middle gives way, both ends stay."""

from __future__ import annotations

from collections.abc import Callable

from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.overlong import drop_trace_middle


def as_conversation(request: str, text: str) -> Conversation:
    """A view's text as the `trace` view of a conversation: the rule for over-long traces then holds for it whole."""
    return Conversation(request, text, "", text, "complete")


def shortened(request: str, text: str, fits: Callable[[str], bool]) -> str | None:
    """`text` itself where it fits, else as much of both ends as does, around a marker with the number of characters
    left out. None where not even the marker fits (the request alone is too long)."""
    return text if fits(text) else drop_trace_middle(as_conversation(request, text), "trace", fits)
