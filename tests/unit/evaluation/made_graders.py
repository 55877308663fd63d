"""Graders of a user's own. They run in processes of their own, which import this file: beside a test it would take seconds."""

from __future__ import annotations

import json
import os
from typing import Any

CALLS = "LRM_SAFETY_TEST_GRADER_CALLS"
"""Names the file in which `remember` writes down what it was called with."""


def begins_with_yes(row: dict[str, Any], trace: str, answer: str, finished: bool) -> float:
    return float(finished and answer.startswith("yes"))


def is_yes(row: dict[str, Any], trace: str, answer: str, finished: bool) -> float:
    return float(finished and answer == "yes.")


def remember(row: dict[str, Any], trace: str, answer: str, finished: bool) -> float:
    """Grades by the row's number."""
    with open(os.environ[CALLS], "a") as calls:
        calls.write(json.dumps([row, trace, answer, finished]) + "\n")
    return row["number"] / 10
