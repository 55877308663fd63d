"""A user's own prompts with a user's own grader.

Each row of the file has `id`, `question` and whatever the grader reads; the grader is a Python function
grade(row, trace, answer, finished) -> float, usually 0 or 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from lrm_safety.datasets import load_prompts
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.benchmarks.question import Question, Questions, questions
from lrm_safety.evaluation.limited import LimitedFunction
from lrm_safety.rewards.function import import_function
from lrm_safety.settings.paths import resolve

KIND = "reasoning"
DEFAULT_SAMPLES = 1
GRADER_SECONDS = 60.0

Grader = Callable[[dict[str, Any], str, str, bool], float]
"""grade(row, trace, answer, finished) -> grade."""


@dataclass(frozen=True)
class GradedQuestion(Question):
    """A question that knows how its answers are graded."""

    row: dict[str, Any] = field(default_factory=dict, hash=False)
    grader: Grader | None = field(default=None, hash=False)


def load(
    path: str, grader: str, where: dict[str, Any] | None = None, timeout_seconds: float = GRADER_SECONDS
) -> Questions:
    """Rows of a JSON, JSONL or CSV file of which every field in `where` has the value given there.

    Args:
        grader: `package.module:function`, which runs in a process of its own.
        timeout_seconds: for one call of it. A call over the limit is graded `timeout`, which counts as wrong; the third in
            a row ends the evaluation.

    Raises:
        ConfigError: the grader cannot be imported, or no row matches.
        DataError: the file is absent or a row of it is wrong.
    """
    import_function(grader, "grader")
    function = LimitedFunction(grader, "grader", timeout_seconds)
    prompts = load_prompts(resolve(path, "path"))
    rows = [{"id": row.id, "question": row.question, "category": list(row.categories), **row.extra} for row in prompts]
    chosen = [row for row in rows if all(row.get(key) == value for key, value in (where or {}).items())]
    if not chosen:
        raise ConfigError(f"where={where}: no row of {path} matches")
    return questions(
        (
            GradedQuestion(id=row["id"], prompt=row["question"], request=row["question"], row=row, grader=function)
            for row in chosen
        ),
        prompts.source,
    )
