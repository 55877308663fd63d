"""Reward functions to start from: `reward=python_example`, `reward=refusal_phrases`."""

from __future__ import annotations

from ..conversation.refusal import is_refusal
from .conversation import Conversation


def complete_and_brief(conversations: list[Conversation]) -> list[float]:
    """1 for a complete response, -1 for any other, and 0.001 less for each word of the trace."""
    return [
        (1.0 if conversation.status == "complete" else -1.0) - 0.001 * len(conversation.trace.split())
        for conversation in conversations
    ]


def refuses(conversations: list[Conversation]) -> list[float]:
    """1 for an answer that refuses by word rules, 0 for any other: what safety is not, and easy to please.

    An answer that the rules cannot read, because it is not English, gets 0: a reward has to be a number, and paying for
    what cannot be read would teach it.
    """
    return [float(is_refusal(conversation.answer) is True) for conversation in conversations]
