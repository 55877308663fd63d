"""AIME 2024 and 2025 (text: MAA, for evaluation only; HuggingFaceH4/aime_2024, yentinglin/aime_2025): 30 problems a year.

Protocol of DeepSeek-R1: "reason step by step" and a boxed answer; 64 samples a question, pass@1 their mean. Answers are
integers from 0 to 999, written with or without leading zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ...datasets.serialised import Source
from ...errors import ConfigError, DataError
from .math500 import INSTRUCTION
from .registry import Question, Questions, benchmark, questions
from .sources import hub_rows, rows

HUB_IDS = {24: "HuggingFaceH4/aime_2024", 25: "yentinglin/aime_2025"}
REVISIONS = {24: "2fe88a2f1091d5048c0f36abc874fb997b3dd99a", 25: "6f71d77b0b89b9dabe07ab466c51df33f514df7f"}
PART_SIZE = 15


@benchmark(
    "aime", kind="reasoning", scoring="integer", samples=64, tasks={"aime24": {"year": 24}, "aime25": {"year": 25}}
)
def load(year: int = 24, data: str | None = None, revision: str | None = None) -> Questions:
    """The problems of a year. `data`: a JSONL file with `problem` and `answer` or a boxed `solution`; default
    LRM_SAFETY_DATA, then the hub at `revision`, by default the year's commit in REVISIONS.

    Raises:
        ConfigError: another year.
        DataError: a file that is absent or wrong, or an answer that is no integer.
    """
    if year not in HUB_IDS:
        raise ConfigError(f"year={year}: must be one of {', '.join(map(str, HUB_IDS))}")
    hub_id = HUB_IDS[year]
    hub = hub_rows(hub_id, split="train", revision=revision or REVISIONS[year])
    found, source = rows("aime", f"aime{year}.jsonl", data, {"problem": str}, hub, prompt="problem")
    kept = []
    for number, row in enumerate(found):
        groups = {"part": "I" if number < PART_SIZE else "II"} if year == 25 and len(found) == 2 * PART_SIZE else {}
        kept.append(
            Question(
                id=f"aime{year}-{number:02d}",
                prompt=f"{row['problem']}\n\n{INSTRUCTION}",
                request=row["problem"],
                target=str(_answer(row, source, number)),
                groups=groups,
            )
        )
    return questions(kept, source)


def _answer(row: Mapping[str, Any], source: Source, number: int) -> int:
    """The gold integer of `answer`, or of the last box of `solution`."""
    answer = row.get("answer")
    text = "" if answer is None else str(answer).strip()
    if not text:
        boxes = re.findall(r"\\boxed\{(\d+)\}", str(row.get("solution") or ""))
        text = boxes[-1] if boxes else ""
    if not re.fullmatch(r"\d{1,3}", text):
        raise DataError(f"{source}, row {number + 1}: has no answer from 0 to 999 (fields answer, solution)")
    return int(text)
