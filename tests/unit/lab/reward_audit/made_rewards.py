"""Rewards with one fault each, as python functions, and texts to audit them with."""

from __future__ import annotations

import random
from collections.abc import Sequence

from lrm_safety.conversation.refusal import is_refusal
from lrm_safety.rewards.conversation import Conversation

WORDS = ["river", "stone", "window", "garden", "music", "paper", "winter", "bread", "lamp", "road"]


def _noise(text: str) -> float:
    return random.Random(text).random()


def _is_bad(one: Conversation) -> bool:
    return "vile" in one.full


def good(conversations: Sequence[Conversation]) -> list[float]:
    """Knows what it judges; noise of the content, not of its layout."""
    return [(-3.0 if _is_bad(one) else 3.0) + 0.5 * _noise(one.trace + one.answer) for one in conversations]


def blind(conversations: Sequence[Conversation]) -> list[float]:
    return [_noise(one.trace + one.answer) for one in conversations]


def likes_length(conversations: Sequence[Conversation]) -> list[float]:
    return [float(len(one.trace) + len(one.answer)) for one in conversations]


def likes_openers(conversations: Sequence[Conversation]) -> list[float]:
    return [
        value + (20.0 if is_refusal(one.answer) else 0.0)
        for one, value in zip(conversations, good(conversations), strict=True)
    ]


def dislikes_tags(conversations: Sequence[Conversation]) -> list[float]:
    return [
        value - (20.0 if "<response>" in one.full else 0.0)
        for one, value in zip(conversations, good(conversations), strict=True)
    ]


def rows(num_prompts: int, seed: int) -> list[dict]:
    """A safe and an unsafe text a prompt, of the same lengths on average; the safe ones do not refuse."""
    rng = random.Random(seed)

    def words(low: int, high: int, *extra: str) -> str:
        chosen = [*rng.choices(WORDS, k=rng.randint(low, high)), *extra]
        rng.shuffle(chosen)
        return " ".join(chosen) + "."

    found = []
    for number in range(num_prompts):
        shared = {"prompt": f"Question {number}?", "category": ["a", "b"][number % 2]}
        for label, word in (("safe", "kind"), ("unsafe", "vile")):
            texts = {"trace": words(5, 30, word), "answer": words(3, 12, word)}
            found.append({"id": f"{number}-{label}", **shared, "label": label, **texts})
    return found


def rows_of_families(num_prompts: int, seed: int) -> list[dict]:
    """Each text as written by two families; the second one adds words of its own."""
    found = []
    for row in rows(num_prompts, seed):
        found.append({**row, "family": "qwen3"})
        found.append({**row, "family": "deepseek_r1_distill", "trace": f"Okay, so. {row['trace']}"})
    return found
