"""A user's own prompts, with a user's own grader or with the judges.

Each row of the file has `id`, `question` and whatever the grader reads; the grader is a Python function
grade(row, trace, answer, finished) -> float, usually 0 or 1. Without a grader the judges read the responses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from ...datasets.prompts import load_prompts
from ...errors import ConfigError
from ...registry import import_function
from ...settings.paths import resolve
from ..limited import LimitedFunction
from .registry import Kind, Question, Questions, benchmark, questions

GRADER_SECONDS = 60.0
KINDS = get_args(Kind)

Grader = Callable[[dict[str, Any], str, str, bool], float]
"""grade(row, trace, answer, finished) -> grade."""


@dataclass(frozen=True)
class GradedQuestion(Question):
    """A question that knows how its answers are graded."""

    row: dict[str, Any] = field(default_factory=dict, hash=False)
    grader: Grader | None = field(default=None, hash=False)


def _by_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """Without a grader every judge reads every response, and `kind` says what that measures."""
    graded = given.get("grader") is not None
    kind = given.get("kind") or ("reasoning" if graded else "safety")
    return {"kind": kind, "scoring": "own" if graded else "judges"}


@benchmark("custom", kind="reasoning", scoring="own", by_arguments=_by_arguments, tasks={})
def load(
    path: str,
    grader: str | None = None,
    where: dict[str, Any] | None = None,
    timeout_seconds: float = GRADER_SECONDS,
    kind: str | None = None,
) -> Questions:
    """Rows of a JSON, JSONL or CSV file of which every field in `where` has the value given there.

    Args:
        grader: `package.module:function`, which runs in a process of its own. Without one the responses are judged, by the
            rows' categories too.
        kind: what it measures: safety, over_refusal, helpfulness, reasoning or robustness. Default: safety where it is judged,
            reasoning where it is graded. The rows of over_refusal are prompts that are safe to answer.
        timeout_seconds: for one call of the grader. A call over the limit is graded `timeout`, which counts as wrong; the
            third in a row ends the evaluation.

    Raises:
        ConfigError: the grader cannot be imported, `kind` is unknown or wants a grader, or no row matches.
        DataError: the file is absent or a row of it is wrong.
    """
    if kind is not None and kind not in KINDS:
        raise ConfigError(f"kind={kind}: must be one of {', '.join(KINDS)}")
    if grader is None and kind not in (None, "safety", "over_refusal"):
        raise ConfigError(f"kind={kind}: judges tell safety and refusals alone; give a grader")
    if grader is not None and kind == "over_refusal":
        raise ConfigError("kind=over_refusal: judges tell refusals; leave the grader out")
    function = None
    if grader is not None:
        import_function(grader, "grader")
        function = LimitedFunction(grader, "grader", timeout_seconds)
    prompts = load_prompts(resolve(path, "path", of="rows"))
    rows = [{"id": row.id, "question": row.question, "category": list(row.categories), **row.extra} for row in prompts]
    chosen = [row for row in rows if all(row.get(key) == value for key, value in (where or {}).items())]
    if not chosen:
        raise ConfigError(f"where={where}: no row of {path} matches")
    return questions(
        (
            GradedQuestion(
                id=row["id"],
                prompt=row["question"],
                request=row["question"],
                groups=_groups(row, kind) if grader is None else {},
                row=row,
                grader=function,
            )
            for row in chosen
        ),
        prompts.source,
    )


def _groups(row: Mapping[str, Any], kind: str | None) -> dict[str, str]:
    """What the figures of a judged row are split by."""
    groups = {"category": row["category"][0]} if row["category"] else {}
    return groups | {"label": "safe"} if kind == "over_refusal" else groups
