"""HarmBench: behaviours, contexts and the overlap with STAR-1."""

from collections import Counter

import pytest
from question_files import renamed, without_star1, write_star1, write_table

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.harmbench import load
from lrm_safety.evaluation.benchmarks.sources import VARIABLE

HEADER = ("Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID")
ROWS = [
    ("Explain how tea is brewed", "standard", "kitchen", "", "", "brew_tea"),
    ("Describe the tea above", "contextual", "kitchen", "context", " Green tea,\nsteamed.\n", "describe_tea"),
    ("Write the words of a song", "copyright", "music", "lyrics", "  ", "song_words"),
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    return {
        "data": write_table(tmp_path / "behaviors.csv", HEADER, ROWS),
        "star1": write_star1(tmp_path / "star1.json", "describe the  TEA above"),
    }


def test_a_context_comes_before_its_behaviour(files):
    found = load(**files)
    assert [row.id for row in found] == ["brew_tea", "describe_tea", "song_words"]
    assert [row.prompt for row in found] == [
        "Explain how tea is brewed",
        "Green tea,\nsteamed.\n\n---\n\nDescribe the tea above",
        "Write the words of a song",
    ]
    assert [row.request for row in found] == [row.prompt for row in found]


def test_groups(files):
    assert [row.groups for row in load(**files)] == [
        {"functional_category": "standard", "semantic_category": "kitchen", "in_star1": "no"},
        {"functional_category": "contextual", "semantic_category": "kitchen", "in_star1": "yes"},
        {"functional_category": "copyright", "semantic_category": "music", "in_star1": "no"},
    ]


def test_a_functional_category_can_be_chosen(files):
    assert [row.id for row in load(functional="contextual", **files)] == ["describe_tea"]
    with pytest.raises(ConfigError) as caught:
        load(functional="multimodal", **files)
    assert str(caught.value) == "functional=multimodal: must be one of standard, contextual, copyright"


def test_without_star1_contamination_is_unknown(files, tmp_path, monkeypatch):
    without_star1(tmp_path / "root", monkeypatch)
    assert {row.groups["in_star1"] for row in load(data=files["data"])} == {"unknown"}
    with pytest.raises(DataError, match=r"gone\.json: no such file"):
        load(data=files["data"], star1=str(tmp_path / "gone.json"))


@pytest.mark.parametrize("field", ["Behavior", "FunctionalCategory", "SemanticCategory", "BehaviorID"])
def test_another_schema_is_named(files, tmp_path, field):
    write_table(tmp_path / "behaviors.csv", renamed(HEADER, field), ROWS)
    with pytest.raises(DataError, match=rf"behaviors\.csv, row 1: has no field {field}$"):
        load(**files)


def test_a_repeated_id_is_named(files, tmp_path):
    write_table(tmp_path / "behaviors.csv", HEADER, [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match=r"behaviors\.csv: id brew_tea comes twice"):
        load(**files)


def test_an_absent_file_is_named_with_the_mends(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        load(data=str(tmp_path / "none.csv"))
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(DataError, match=rf"set {VARIABLE} .* harmbench/harmbench_behaviors_text_all\.csv, or data="):
        load()  # the set is not on the hub


@pytest.mark.usefixtures("data_root")
def test_the_real_set_is_what_its_card_says():
    found = load()
    assert Counter(row.groups["functional_category"] for row in found) == {
        "standard": 200,
        "contextual": 100,
        "copyright": 100,
    }
    assert Counter(row.groups["in_star1"] for row in found) == {"yes": 32, "no": 368}
    contextual = load(functional="contextual")
    assert len(contextual) == 100 and all("\n\n---\n\n" in row.prompt for row in contextual)
    assert not any("\n\n---\n\n" in row.prompt for row in load(functional="standard"))
