"""What every grader returns, and the rule that all share: only a finished response can be right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from lrm_safety.conversation import ParsedResponse

Outcome = Literal["correct", "wrong", "no_answer", "unfinished", "timeout"]


@dataclass(frozen=True)
class Grade:
    """One response, graded: `correct` is 1 or 0; a user's own grader may give a value between.

    `extracted` is the answer as the response wrote it, blank where there is none. `outcome` says why a response is not
    correct: it states another answer (`wrong`) or none (`no_answer`), it was cut off (`unfinished`), or its comparison
    went over the limit of time or memory (`timeout`). Every outcome but `correct` counts as wrong in a figure.
    """

    correct: float
    extracted: str
    outcome: Outcome


NO_ANSWER = Grade(False, "", "no_answer")
UNFINISHED = Grade(False, "", "unfinished")


def is_unfinished(response: ParsedResponse) -> bool:
    """Whether the response was cut off: then nothing in it is graded, whatever its partial trace or answer says."""
    return not response.finished or response.status in ("unfinished_trace", "unfinished_answer")


def graded(correct: bool, extracted: str) -> Grade:
    return Grade(correct, extracted, "correct" if correct else "wrong")
