"""SORRY-Bench: unsafe instructions by category, in one style."""

import csv
import json

import pytest
from question_files import hub_with, write_star1

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks import sorry_bench
from lrm_safety.evaluation.benchmarks.sorry_bench import load
from lrm_safety.evaluation.benchmarks.sources import VARIABLE

ROWS = [
    {"question_id": 1, "category": "1", "turns": ["Write the meanest tea label."], "prompt_style": "base"},
    {"question_id": 2, "category": "25", "turns": ["['How', 'is', 'tea', 'stolen']?"], "prompt_style": "base"},
    {"question_id": 1, "category": "1", "turns": ["Yo, a mean tea label."], "prompt_style": "slang"},
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    return {
        "data": write(tmp_path, ROWS),
        "star1": write_star1(tmp_path / "star1.json", "Write the meanest TEA label."),
    }


def write(folder, found):
    (folder / "question.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(folder / "question.jsonl")


def test_the_base_style(files):
    assert [(row.id, row.prompt, row.request, row.groups) for row in load(**files)] == [
        (
            "sorry-bench-base-1",
            "Write the meanest tea label.",
            "Write the meanest tea label.",
            {"category": "1", "in_star1": "yes"},
        ),
        (
            "sorry-bench-base-2",
            "['How', 'is', 'tea', 'stolen']?",
            "['How', 'is', 'tea', 'stolen']?",
            {"category": "25", "in_star1": "no"},
        ),
    ]


def test_another_style(files):
    assert [(row.id, row.prompt) for row in load("slang", **files)] == [
        ("sorry-bench-slang-1", "Yo, a mean tea label.")
    ]
    with pytest.raises(ConfigError) as caught:
        load("morse", **files)
    assert str(caught.value) == f"style=morse: no row of {files['data']} has it; it has base, slang"


def test_a_table_holds_the_text_of_the_list(files, tmp_path):
    with (tmp_path / "s.csv").open("w", newline="") as file:
        csv.writer(file).writerows([list(ROWS[0]), ["7", "3", "['Write, please.']", "base"]])
    (row,) = load(**files | {"data": str(tmp_path / "s.csv")})
    assert (row.id, row.prompt, row.groups["category"]) == ("sorry-bench-base-7", "Write, please.", "3")


@pytest.mark.parametrize("turns", [[], ["One.", "Two."], [1], [" "]])
def test_anything_but_one_turn_is_named(files, tmp_path, turns):
    write(tmp_path, [ROWS[2], ROWS[0] | {"turns": turns}])
    with pytest.raises(DataError, match=r"question\.jsonl, row 2, field turns: must be a list of one text$"):
        load(**files)


@pytest.mark.parametrize(
    ("version", "revision"), [("202503", None), ("202406", "b34822276edde97592eda99c0b56d306f8830469")]
)
def test_the_hub_is_asked_for_the_version_at_its_commit(files, monkeypatch, version, revision):
    asked = hub_with(monkeypatch, sorry_bench, ROWS)
    assert len(load(version=version, star1=files["star1"])) == 2
    assert asked == [((f"sorry-bench/sorry-bench-{version}",), {"split": "train", "revision": revision})]


def test_an_unknown_version_is_named(files):
    with pytest.raises(ConfigError) as caught:
        load(version="2024", **files)
    assert str(caught.value) == "version=2024: must be one of 202503, 202406"
    assert len(load(version=202406, **files)) == 2, "as YAML reads it"


@pytest.mark.parametrize("field", sorted(ROWS[0]))
def test_another_schema_is_named(files, tmp_path, field):
    write(tmp_path, [{name: value for name, value in ROWS[0].items() if name != field}])
    with pytest.raises(DataError, match=rf"question\.jsonl, row 1: has no field {field}$"):
        load(**files)


def test_an_id_that_comes_twice_and_an_absent_file_are_named(files, tmp_path):
    write(tmp_path, [ROWS[0], ROWS[0]])
    with pytest.raises(DataError, match=r"question\.jsonl: id sorry-bench-base-1 comes twice; ids must differ$"):
        load(**files)
    with pytest.raises(DataError, match=r"data=none\.jsonl: no such file$"):
        load(**files | {"data": "none.jsonl"})
