"""Graders of a user's own. They run in processes of their own, which import this file: beside a test it would take seconds."""

from __future__ import annotations

from typing import Any


def begins_with_yes(row: dict[str, Any], trace: str, answer: str, finished: bool) -> float:
    return float(finished and answer.startswith("yes"))


def is_yes(row: dict[str, Any], trace: str, answer: str, finished: bool) -> float:
    return float(finished and answer == "yes.")
