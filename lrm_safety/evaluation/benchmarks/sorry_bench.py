"""SORRY-Bench (Xie et al. 2025, gated, a licence of its own): ten unsafe instructions in each of 44 categories.

Protocol: the instruction alone, one response. The base style has 440 prompts (450 in 45 categories in the version of June
2024); each of 20 further styles says them otherwise: dialects, persuasion, encodings, translations. SORRY-Bench judges with a
fine-tuned Mistral-7B whether an answer fulfils the request; here the configured judges do. Known contamination: group
`in_star1`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...datasets.serialised import plain_text
from ...errors import ConfigError, DataError
from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows, star1_group

REVISIONS = {"202503": None, "202406": "b34822276edde97592eda99c0b56d306f8830469"}


@benchmark("sorry_bench", kind="safety", scoring="judges")
def load(
    style: str = "base",
    version: str = "202503",
    data: str | None = None,
    star1: str | None = None,
    revision: str | None = None,
) -> Questions:
    """The instructions in one style.

    Args:
        style: the value of `prompt_style`, such as base, slang or misspellings.
        version: 202503 or 202406, on the hub.
        data: question.jsonl, or another file with rows of that style. Default: LRM_SAFETY_DATA, then the hub.
        star1: STAR-1.json, for the group `in_star1`; where its default cannot be had the group is `unknown`.
        revision: commit on the hub. None is published for 202503, so the default is what the hub has now, and the results
            name it; of 202406 it is the commit in REVISIONS.

    Raises:
        ConfigError: an unknown version, or a style that no row has.
        DataError: a file that is absent or wrong, or several turns; a stated `star1` included.
    """
    version = str(version)
    if version not in REVISIONS:
        raise ConfigError(f"version={version}: must be one of {', '.join(REVISIONS)}")
    hub_id = f"sorry-bench/sorry-bench-{version}"
    found, source = rows(
        "sorry_bench",
        "question.jsonl",
        data,
        {"question_id": (int, str), "category": (int, str), "prompt_style": str, "turns": (list, str)},
        hub_rows(hub_id, split="train", revision=revision or REVISIONS[version]),
    )
    in_star1 = star1_group(star1)
    kept = []
    for number, row in enumerate(found, start=1):
        if row["prompt_style"] == style:
            text = _only_turn(row, f"{source}, row {number}, field turns")
            groups = {"category": str(row["category"]), "in_star1": in_star1(text)}
            name = f"sorry-bench-{style}-{row['question_id']}"
            kept.append(Question(id=name, prompt=text, request=text, groups=groups))
    if not kept:
        known = ", ".join(sorted({row["prompt_style"] for row in found}))
        raise ConfigError(f"style={style}: no row of {source} has it; it has {known}")
    return questions(kept, source)


def _only_turn(row: Mapping[str, Any], where: str) -> str:
    """The instruction; a CSV file has the text of the list."""
    turns = row["turns"]
    turns = [plain_text(turns, where)] if isinstance(turns, str) else turns
    if len(turns) != 1 or not isinstance(turns[0], str) or not turns[0].strip():
        raise DataError(f"{where}: must be a list of one text")
    only: str = turns[0]
    return only
