"""MATH500: problems, instruction and gold answers."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from lrm_safety.errors import DataError
from lrm_safety.evaluation.benchmarks.math500 import load

ROW = {
    "problem": "What is $\\frac{1}{2}+\\frac{1}{3}$?",
    "solution": "Over six: $\\boxed{\\frac{5}{6}}$.",
    "answer": "\\frac{5}{6}",
    "subject": "Prealgebra",
    "level": 2,
    "unique_id": "test/prealgebra/1.json",
}


def write(folder, *found):
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return str(folder / "test.jsonl")


def test_the_prompt_is_the_problem_and_the_published_instruction(tmp_path):
    (first, second) = load(write(tmp_path, ROW, ROW | {"level": "5", "answer": "7"}))
    assert first.prompt == (
        "What is $\\frac{1}{2}+\\frac{1}{3}$?\n\n"
        "Please reason step by step, and put your final answer within \\boxed{}."
    )
    assert first.request == ROW["problem"] and first.target == "\\frac{5}{6}"
    assert (first.id, second.id) == ("math500-000", "math500-001")
    assert first.groups == {"subject": "Prealgebra", "level": "2"} and second.groups["level"] == "5"
    assert first.ask(0) == first.ask(3) and first.ask(0).target == first.target and first.ask(0).prompt == first.prompt
    assert first.vote(0, "x") == "x"


@pytest.mark.parametrize("field", ["problem", "answer", "subject", "level"])
def test_wrong_data_is_named(field, tmp_path):
    path = write(tmp_path, ROW, {name: value for name, value in ROW.items() if name != field})
    with pytest.raises(DataError, match=rf"test\.jsonl, row 2: has no field {field}$"):
        load(path)
    with pytest.raises(DataError, match=rf"test\.jsonl, row 1, field {field}: is NoneType"):
        load(write(tmp_path, ROW | {field: None}))
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load(str(tmp_path / "none.jsonl"))


def test_broken_json_is_named_by_line(tmp_path):
    path = Path(write(tmp_path, ROW))
    path.write_text(path.read_text() + '{"problem": ')
    with pytest.raises(DataError, match=r"test\.jsonl, line 2: not valid JSON"):
        load(str(path))


def test_the_real_set_is_what_its_card_says(data_root):
    found = load()
    assert len(found) == len({row.request for row in found}) == 500
    assert Counter(row.groups["level"] for row in found) == {"1": 43, "2": 90, "3": 105, "4": 128, "5": 134}
    assert len({row.groups["subject"] for row in found}) == 7
    raw = [json.loads(line) for line in (data_root / "math500" / "test.jsonl").read_text().splitlines()]
    for row, gold in zip(found, raw, strict=True):
        assert row.request == gold["problem"] and row.target == gold["answer"]
        # The gold answer stands in a box of its own solution.
        boxed = re.sub(r"\s", "", gold["solution"].partition("\\boxed")[2])
        assert re.sub(r"\s", "", row.target).removeprefix("\\text{").removesuffix("}") in boxed or "\\fbox" in boxed
