"""A user's own prompts and grader."""

import csv
import json

import pytest

from lrm_safety.datasets.serialised import Source
from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.custom import load
from lrm_safety.evaluation.benchmarks.registry import BENCHMARKS, get_benchmark

ROWS = [
    {"id": "a", "question": "Tea or coffee?", "kind": "drink", "category": ["kitchen"], "wanted": "tea"},
    {"id": "b", "question": "Cat or dog?", "kind": "pet", "wanted": "cat", "level": 2},
]
GRADER = """
def grade(row, trace, answer, finished):
    return float(finished and row["wanted"] in answer)

NUMBER = 3
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    (tmp_path / "grader_of_the_custom_test.py").write_text(GRADER)
    monkeypatch.syspath_prepend(str(tmp_path))
    return {"path": write(tmp_path, ROWS), "grader": "grader_of_the_custom_test:grade"}


def write(folder, found):
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return str(folder / "prompts.jsonl")


def test_rows_carry_every_field_to_the_grader(files):
    found = load(**files)
    assert [(row.id, row.prompt, row.request) for row in found] == [
        ("a", "Tea or coffee?", "Tea or coffee?"),
        ("b", "Cat or dog?", "Cat or dog?"),
    ]
    assert str(found.source) == files["path"]
    assert found.rows[0].row == ROWS[0] and found.rows[1].row == ROWS[1] | {"category": []}
    grades = [row.grader(row.row, "", "tea", True) for row in found]
    assert grades == [1.0, 0.0] and found.rows[0].grader(found.rows[0].row, "", "tea", False) == 0.0


def test_where_chooses_rows_that_match_in_every_field(files):
    assert [row.id for row in load(**files, where={"kind": "pet"})] == ["b"]
    assert [row.id for row in load(**files, where={"kind": "pet", "level": 2})] == ["b"]
    assert len(load(**files, where={})) == 2
    for where in ({"kind": "pet", "level": 3}, {"colour": "red"}):
        with pytest.raises(ConfigError) as caught:
            load(**files, where=where)
        message = str(caught.value)
        assert message.startswith("where=") and files["path"] in message and "\n" not in message


def test_a_csv_will_do(files, tmp_path):
    with (tmp_path / "p.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "question", "wanted"), ("1", "Red or blue?", "blue")])
    (row,) = load(str(tmp_path / "p.csv"), files["grader"])
    assert row.row["wanted"] == "blue" and row.grader(row.row, "", "blue", True) == 1.0


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("grader_of_the_custom_test", "must be written package.module:function"),
        ("grader_of_the_custom_test.grade", "must be written package.module:function"),
        ("grader_of_the_custom_test:absent", "has no function absent"),
        ("no_such_module_anywhere:grade", "cannot import no_such_module_anywhere"),
        ("grader_of_the_custom_test:NUMBER", "has no function NUMBER"),
        (":grade", "must be written package.module:function"),
        ("..relative:grade", "must be written package.module:function"),
        ("misspelt_grader:grade", "SyntaxError"),
    ],
)
def test_a_grader_that_cannot_be_had_is_named(files, tmp_path, path, said):
    (tmp_path / "misspelt_grader.py").write_text("def grade(row trace): return 1")
    with pytest.raises(ConfigError) as caught:
        load(files["path"], path)
    message = str(caught.value)
    assert message.startswith(f"grader={path}: ") and said in message and "\n" not in message


def test_wrong_files_are_named(files, tmp_path):
    with pytest.raises(ConfigError, match=r"path=.*none\.jsonl: no such file"):
        load(str(tmp_path / "none.jsonl"), files["grader"])
    with pytest.raises(DataError, match=r"prompts\.jsonl, row 1: no field 'question'"):
        load(write(tmp_path, [{"id": "a", "text": "Why?"}]), files["grader"])
    with pytest.raises(DataError, match=r"row 2: field 'id' repeats 'a'"):
        load(write(tmp_path, [ROWS[0], ROWS[0]]), files["grader"])
    (tmp_path / "prompts.jsonl").write_text('{"id": ')
    with pytest.raises(DataError, match=r"prompts\.jsonl, line 1: not valid JSON"):
        load(**files)


def test_without_a_grader_the_judges_read_it(files):
    arguments = {"path": files["path"]}
    declared = get_benchmark("custom", arguments=arguments)
    assert (declared.kind, declared.judged) == ("safety", True)
    found = declared.load_checked(arguments, "key")
    assert [(row.request, row.groups, row.grader) for row in found] == [
        ("Tea or coffee?", {"category": "kitchen"}, None),
        ("Cat or dog?", {}, None),
    ]
    refused = get_benchmark("custom", arguments=arguments | {"kind": "over_refusal"})
    assert (refused.kind, refused.judged) == ("over_refusal", True)
    # The figures of over-refusal count the prompts that are labelled safe.
    assert all(row.groups["label"] == "safe" for row in load(files["path"], kind="over_refusal"))
    graded = get_benchmark("custom", arguments=files | {"kind": "helpfulness"})
    assert (graded.kind, graded.scoring) == ("helpfulness", "own")
    assert get_benchmark("custom", arguments=files).kind == "reasoning"


@pytest.mark.parametrize(
    ("kind", "graded", "message"),
    [
        ("harm", False, r"^kind=harm: must be one of safety, over_refusal, helpfulness, reasoning, robustness$"),
        ("reasoning", False, r"^kind=reasoning: judges tell safety and refusals alone; give a grader$"),
        ("over_refusal", True, r"^kind=over_refusal: judges tell refusals; leave the grader out$"),
    ],
)
def test_kinds_that_nothing_can_tell(files, kind, graded, message):
    with pytest.raises(ConfigError, match=message):
        load(files["path"], files["grader"] if graded else None, kind=kind)


OUTSIDE = """
from lrm_safety.evaluation.benchmarks.registry import Question, questions
from lrm_safety.evaluation.benchmarks.registry import benchmark

@benchmark("mine", kind="safety", scoring="judges", samples=2)
def load(size: int = 2):
    "A judged set of one file."
    return questions((Question(id=str(n), prompt=f"Do {n}?", request=f"Do {n}?") for n in range(size)), "mine")

@benchmark("listed", kind="safety", scoring="judges")
def listed():
    return ["Do it?"]

def undeclared():
    pass
"""


def test_a_benchmark_from_outside_the_package(tmp_path, monkeypatch):
    (tmp_path / "benchmark_from_outside.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    declared = get_benchmark("benchmark_from_outside:load")
    assert (declared.kind, declared.default_samples, declared.judged) == ("safety", 2, True)
    assert [row.id for row in declared.load_checked({"size": 3}, "key")] == ["0", "1", "2"]
    assert "mine" not in BENCHMARKS, "known by its import path, not by its name"
    with pytest.raises(
        ConfigError,
        match=r"^task=benchmark_from_outside:undeclared: is a function, and must be a Benchmark; write @benchmark\(",
    ):
        get_benchmark("benchmark_from_outside:undeclared")
    with pytest.raises(ConfigError, match=r"^key: listed returned a list, and must return Questions$"):
        get_benchmark("benchmark_from_outside:listed").load_checked({}, "key")
    assert declared.load_checked({}, "key").source == Source("mine")
    with pytest.raises(ConfigError, match=r"^key\.sise: unknown option of mine; known: size$"):
        declared.load_checked({"sise": 3}, "key")
