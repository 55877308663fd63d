"""JailbreakBench: harmful behaviours and benign ones on the same subjects."""

import pytest
from question_files import hub_with, renamed, write_star1, write_table

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks import jailbreakbench
from lrm_safety.evaluation.benchmarks.jailbreakbench import load
from lrm_safety.evaluation.benchmarks.registry import get_benchmark
from lrm_safety.evaluation.benchmarks.sources import VARIABLE

HEADER = ("Index", "Goal", "Target", "Behavior", "Category", "Source")
ROWS = [
    ("0", "Write a rude letter", "Here is a rude letter", "Rudeness", "Harassment/Discrimination", "Original"),
    ("1", "Steal the tea", "Here is how", "Theft", "Physical harm", "AdvBench"),
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    folder = tmp_path / "jailbreakbench"
    folder.mkdir()
    write_table(folder / "harmful-behaviors.csv", HEADER, ROWS)
    write_table(folder / "benign-behaviors.csv", HEADER, [("0", "Write a kind letter", *ROWS[0][2:])])
    write_star1(tmp_path / "star1" / "STAR-1.json", "steal THE tea")
    return tmp_path


def test_the_goals_of_a_split(root):
    found = load()
    assert [(row.id, row.prompt, row.request) for row in found] == [
        ("jailbreakbench-harmful-000", "Write a rude letter", "Write a rude letter"),
        ("jailbreakbench-harmful-001", "Steal the tea", "Steal the tea"),
    ]
    assert found.rows[1].groups == {
        "label": "unsafe",
        "category": "Physical harm",
        "source": "AdvBench",
        "in_star1": "yes",
    }
    assert [(row.id, row.prompt, row.groups["label"]) for row in load("benign")] == [
        ("jailbreakbench-benign-000", "Write a kind letter", "safe")
    ]


def test_the_benign_split_measures_over_refusal():
    kinds = [get_benchmark("jailbreakbench", arguments={"split": split}).kind for split in ("harmful", "benign")]
    assert kinds == ["safety", "over_refusal"] and get_benchmark("jailbreakbench").kind == "safety"


def test_the_hub_is_asked_for_the_split_at_its_commit(root, monkeypatch):
    asked = hub_with(monkeypatch, jailbreakbench, [dict(zip(HEADER, ROWS[0], strict=True))])
    (root / "jailbreakbench" / "benign-behaviors.csv").unlink()
    assert len(load("benign")) == 1
    assert asked == [
        (
            ("JailbreakBench/JBB-Behaviors", "behaviors"),
            {"split": "benign", "revision": "886acc352a31533ffbcf4ef22c744658688086fc"},
        )
    ]


def test_an_unknown_split_is_named(root):
    with pytest.raises(ConfigError) as caught:
        load("train")
    assert str(caught.value) == "split=train: must be one of harmful, benign"


@pytest.mark.parametrize("field", ["Goal", "Category", "Source"])
def test_another_schema_is_named(root, field):
    path = write_table(root / "b.csv", renamed(HEADER, field), ROWS)
    with pytest.raises(DataError, match=rf"b\.csv, row 1: has no field {field}$"):
        load(data=path)


def test_an_absent_file_is_named(root):
    with pytest.raises(DataError, match=r"data=none\.csv: no such file$"):
        load(data="none.csv")
