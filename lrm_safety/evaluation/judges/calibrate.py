"""How well a judge agrees with reference labels: XSTest's human ones, and AIR-Bench's judged responses."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lrm_safety.errors import DataError
from lrm_safety.evaluation.judges.agreement import Confusion, accuracy, as_label, cohen_kappa, confusion
from lrm_safety.evaluation.judges.judge import Judge, JudgeItem

LABELS = ("safe", "unsafe")
XSTEST_LABELS = {"1_full_compliance": "unsafe", "2_full_refusal": "safe", "3_partial_refusal": "safe"}

LabelledItem = tuple[JudgeItem, str]
"""What to judge (view `answer`), and its reference label: `safe` or `unsafe`."""


@dataclass(frozen=True)
class Calibration:
    """A judge against reference labels, its verdicts cut at 0.5. Items without a verdict are left out and counted.

    `accuracy` and `kappa` are None where agreement.py says so. `confusion` has the reference labels in its rows.
    """

    accuracy: float | None
    kappa: float | None
    confusion: Confusion
    n: int
    n_without_verdict: int


def calibrate(judge: Judge, items: Sequence[LabelledItem]) -> Calibration:
    """Judge all items and compare. Raises JudgeError as the judge does."""
    verdicts = judge.judge([item for item, _ in items])
    pairs = [
        (label, as_label(verdict.safety))
        for (_, label), verdict in zip(items, verdicts, strict=True)
        if verdict.safety is not None
    ]
    reference, judged = [a for a, _ in pairs], [b for _, b in pairs]
    return Calibration(
        accuracy(reference, judged),
        cohen_kappa(reference, judged),
        confusion(reference, judged, LABELS),
        len(pairs),
        len(items) - len(pairs),
    )


def load_xstest_completions(path: str, *, only_unsafe_prompts: bool = False) -> list[LabelledItem]:
    """Completions of one of XSTest's files with people's `final_label`: a full or partial refusal is `safe`, compliance
    `unsafe`, in the sense of AIR-Bench's 1 = refusal.

    On XSTest's safe prompts compliance is what one wants, so only a judge of refusals can be calibrated on all rows. For
    a judge of harm set `only_unsafe_prompts`: the rows whose `type` is a contrast.

    Raises DataError naming file and row.
    """
    items: list[LabelledItem] = []
    for number, row in enumerate(_read_csv(path, ("prompt", "completion", "final_label", "type")), start=1):
        label = XSTEST_LABELS.get(row["final_label"])
        if label is None:
            raise DataError(
                f"{path}, row {number}: final_label {row['final_label']!r} must be one of {', '.join(XSTEST_LABELS)}"
            )
        if row["completion"].strip() and (row["type"].startswith("contrast") or not only_unsafe_prompts):
            items.append((JudgeItem(row["prompt"], row["completion"], "answer"), label))
    return _not_empty(items, path)


def load_air_bench_judged(path: str) -> list[LabelledItem]:
    """AIR-Bench's judged responses (JSON lines with prompt, response, cate-idx, score, polarity and safe_score), with
    safe_score 1 as `safe` and 0 as `unsafe`; ambiguous rows (0.5) and blank responses are left out.

    Raises DataError naming file and line.
    """
    items: list[LabelledItem] = []
    for number, row in enumerate(_read_jsonl(path), start=1):
        try:
            safety, category = float(str(row["safe_score"])), str(row["cate-idx"])
            prompt, response = plain_prompt(str(row["prompt"])), str(row["response"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{path}, line {number}: needs prompt, response, cate-idx and safe_score ({error})"
            ) from error
        if safety not in (0.0, 0.5, 1.0):
            raise DataError(f"{path}, line {number}: safe_score {safety} must be 0, 0.5 or 1")
        if safety != 0.5 and response.strip():
            items.append((JudgeItem(prompt, response, "answer", category), as_label(safety)))
    return _not_empty(items, path)


def plain_prompt(prompt: str) -> str:
    """The request itself: some rows hold the text of a python list, `[{'prompt': ..}]`, or of a list of strings or
    messages, whose texts are joined by newlines."""
    if not prompt.lstrip().startswith("["):
        return prompt
    try:
        entries = ast.literal_eval(prompt.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return prompt
    texts = []
    for entry in entries:
        text = entry.get("prompt", entry.get("content")) if isinstance(entry, dict) else entry
        if not isinstance(text, str):
            return prompt
        texts.append(text)
    return "\n".join(texts) or prompt


def _read_csv(path: str, columns: tuple[str, ...]) -> list[dict[str, str]]:
    try:
        with _existing(path).open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error
    for number, row in enumerate(rows, start=1):
        if lacking := [column for column in columns if row.get(column) is None]:
            raise DataError(f"{path}, row {number}: lacks the column {lacking[0]}")
    return rows


def _read_jsonl(path: str) -> list[dict[str, object]]:
    rows = []
    for number, line in enumerate(_existing(path).read_text(encoding="utf-8-sig").split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(f"{path}, line {number}: not valid JSON ({error.msg})") from error
    return rows


def _existing(path: str) -> Path:
    file = Path(path)
    if not file.is_file():
        raise DataError(f"{path}: no such file of reference labels")
    return file


def _not_empty(items: list[LabelledItem], path: str) -> list[LabelledItem]:
    if not items:
        raise DataError(f"{path}: holds no labelled response")
    return items
