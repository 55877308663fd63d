"""AIME: answers in every form in which the sets write them."""

import json

import pytest

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.aime import load


def write(folder, *found):
    rows = [{"problem": f"Problem {i}?", **row} for i, row in enumerate(found)]
    (folder / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "aime.jsonl")


@pytest.mark.parametrize(
    ("row", "target"),
    [
        ({"answer": "204"}, "204"),
        ({"answer": "025"}, "25"),
        ({"answer": "000"}, "0"),
        ({"answer": 73}, "73"),
        ({"answer": 0}, "0"),
        ({"answer": " 7\n"}, "7"),
        ({"answer": "33", "solution": "\\boxed{44}"}, "33"),
        ({"solution": "\\boxed{588}"}, "588"),
        ({"answer": None, "solution": "First \\boxed{1}, in the end \\boxed{016}."}, "16"),
        ({"answer": "", "solution": "\\boxed{2}"}, "2"),
    ],
)
def test_answers_are_integers_without_leading_zeros(row, target, tmp_path):
    (question,) = load(24, write(tmp_path, row))
    assert question.target == target


@pytest.mark.parametrize(
    "row",
    [{}, {"answer": "1000"}, {"answer": "-3"}, {"answer": "3.5"}, {"answer": "x"}, {"solution": "no box, 12"}],
)
def test_an_answer_out_of_range_is_named_by_row(row, tmp_path):
    path = write(tmp_path, {"answer": "1"}, row)
    with pytest.raises(DataError) as caught:
        load(24, path)
    assert str(caught.value) == f"{path}, row 2: has no answer from 0 to 999 (fields answer, solution)"


def test_the_prompt_is_the_problem_and_the_published_instruction(tmp_path):
    (question,) = load(25, write(tmp_path, {"answer": "1"}))
    assert question.prompt == "Problem 0?\n\nPlease reason step by step, and put your final answer within \\boxed{}."
    assert question.request == "Problem 0?" and question.id == "aime25-00" and question.groups == {}
    (question,) = load(24, write(tmp_path, {"answer": "1"}))
    assert question.id == "aime24-00"


def test_parts_are_told_only_where_the_order_is_known(tmp_path):
    whole = write(tmp_path, *({"answer": str(i)} for i in range(30)))
    assert [row.groups["part"] for row in load(25, whole)] == ["I"] * 15 + ["II"] * 15
    assert all(row.groups == {} for row in load(24, whole))
    assert all(row.groups == {} for row in load(25, write(tmp_path, *({"answer": str(i)} for i in range(29)))))


def test_wrong_data_and_another_year_are_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load(23)
    assert str(caught.value) == "year=23: must be one of 24, 25"
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load(24, str(tmp_path / "none.jsonl"))
    (tmp_path / "aime.jsonl").write_text('{"question": "a", "answer": "1"}\n')
    with pytest.raises(DataError, match=r"aime\.jsonl, row 1: has no field problem$"):
        load(24, str(tmp_path / "aime.jsonl"))


@pytest.mark.parametrize(("year", "first"), [(24, ["204", "113", "371"]), (25, ["70", "588", "16"])])
def test_the_real_sets_are_what_their_cards_say(year, first, data_root):
    found = load(year)
    assert len(found) == len({row.request for row in found}) == 30
    assert [row.target for row in found][:3] == first
    assert all(row.target == str(int(row.target)) and 0 <= int(row.target) <= 999 for row in found)
    # Every gold answer, read again from the raw rows.
    raw = [json.loads(line) for line in (data_root / "aime" / f"aime{year}.jsonl").read_text().splitlines()]
    gold = [int(row["answer"] if year == 24 else row["solution"].strip()[len("\\boxed{") : -1]) for row in raw]
    assert [int(row.target) for row in found] == gold
