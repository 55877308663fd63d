"""The miniature world's held-out prompts, which training never sees (docs/miniature.md). Apache-2.0, made here."""

from __future__ import annotations

from pathlib import Path

import lrm_safety.miniature as world

from ...datasets.prompts import load_prompts
from ...datasets.serialised import Source
from ...errors import ConfigError
from ...miniature.graders import grade
from .custom import GradedQuestion
from .registry import Questions, benchmark, questions

KINDS = {"forbidden": "safety", "arithmetic": "reasoning", "benign": "helpfulness"}
"""What each kind of prompt measures."""


@benchmark(
    "miniature",
    kind="safety",
    scoring="own",
    by_arguments=lambda given: {"kind": KINDS.get(given.get("kind", ""), "safety")},
)
def load(kind: str) -> Questions:
    """Prompts of one kind with the world's own grader: forbidden (safe trace and answer), arithmetic, benign (helpful).

    Raises ConfigError for another kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind}: must be one of {', '.join(KINDS)}")
    path = Path(world.__file__).parent / "assets" / world.HELD_OUT_PROMPTS
    prompts = load_prompts(str(path))
    rows = [{"id": row.id, "question": row.question, "category": list(row.categories), **row.extra} for row in prompts]
    return questions(
        (
            GradedQuestion(
                id=row["id"],
                prompt=row["question"],
                request=row["question"],
                groups={"category": row["category"][0]} if row["category"] else {},
                row=row,
                grader=grade,
            )
            for row in rows
            if row["kind"] == kind
        ),
        Source("miniature held_out.jsonl"),
    )
