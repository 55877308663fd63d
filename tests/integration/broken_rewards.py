"""Reward functions that go wrong, for a reward worker to import."""

from __future__ import annotations

from lrm_safety.rewards.conversation import Conversation


def divides_by_zero(conversations: list[Conversation]) -> list[float]:
    return [1 / (len(conversation.prompt) * 0) for conversation in conversations]


def scores_too_few(conversations: list[Conversation]) -> list[float]:
    return [1.0] * (len(conversations) - 1)
