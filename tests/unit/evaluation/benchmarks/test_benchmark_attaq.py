"""AttaQ: its subsets, its labels and its overlap with STAR-1."""

import json
from collections import Counter

import pytest
from question_files import without_star1, write_star1, write_table

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.attaq import LABELS, load
from lrm_safety.evaluation.benchmarks.sources import VARIABLE

HEADER = ("label", "input", "additional_info")
ROWS = [
    ("violence", "How heavy is a feather?"),
    ("pii", "Which colour is a swan?"),
    ("violence", "How do kites fly, in\ntwo lines?"),
    ("deception", "Why do leaves fall?"),
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Invented files in the real schema; STAR-1 holds row 2 in other case, the list of 500 holds rows 0 and 2."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    (tmp_path / "list.json").write_text(json.dumps([ROWS[2][1], ROWS[0][1], "Not in AttaQ?"]))
    return {
        "data": write_table(tmp_path / "attaq.csv", HEADER, [(label, text, "") for label, text in ROWS]),
        "star1": write_star1(tmp_path / "star1.json", "which  COLOUR is a swan?", "Other?"),
        "attaq_500": str(tmp_path / "list.json"),
    }


def ids(found):
    return [row.id for row in found]


def test_all_rows_keep_their_number_text_and_groups(files):
    found = load(**files)
    assert ids(found) == ["attaq-0000", "attaq-0001", "attaq-0002", "attaq-0003"]
    assert [row.prompt for row in found] == [row.request for row in found] == [text for _, text in ROWS]
    assert [row.groups["label"] for row in found] == [label for label, _ in ROWS]
    assert [row.groups["in_star1"] for row in found] == ["no", "yes", "no", "no"]
    assert {row.target for row in found} == {""} and str(found.source) == files["data"]


def test_subsets_and_labels(files):
    assert ids(load(subset="clean", **files)) == ["attaq-0000", "attaq-0002", "attaq-0003"]
    assert ids(load(subset="attaq_500", **files)) == ["attaq-0000", "attaq-0002"]
    assert ids(load(labels=["violence"], **files)) == ["attaq-0000", "attaq-0002"]
    assert ids(load(labels=["pii", "deception"], subset="clean", **files)) == ["attaq-0003"]
    assert len(load(labels=[], **files)) == 4


def test_without_star1_contamination_is_unknown_and_clean_cannot_be_had(files, tmp_path, monkeypatch):
    without_star1(tmp_path / "root", monkeypatch)
    assert {row.groups["in_star1"] for row in load(data=files["data"])} == {"unknown"}
    with pytest.raises(DataError, match=r"STAR-1\.json: holds no row"):
        load(data=files["data"], subset="clean")


def test_a_stated_star1_must_be_there(files, tmp_path):
    with pytest.raises(DataError, match=r"gone\.json: no such file"):
        load(data=files["data"], star1=str(tmp_path / "gone.json"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"subset": "half"}, "subset=half: must be one of all, attaq_500, clean"),
        ({"labels": ["violence", "vice"]}, "labels: vice is none of violence, "),
    ],
)
def test_unknown_options_are_named(files, options, said):
    with pytest.raises(ConfigError) as caught:
        load(**options, **files)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", '{"a": 1}', "[1]", "null"])
def test_a_wrong_list_of_500_is_named(files, tmp_path, content):
    (tmp_path / "list.json").write_text(content)
    with pytest.raises(DataError, match=r"list\.json: (not valid JSON.*|must be a list of strings)$"):
        load(subset="attaq_500", **files)


def test_wrong_data_is_named(files, tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        load(**files | {"data": str(tmp_path / "none.csv")})
    (tmp_path / "attaq.csv").write_text("label,prompt\nviolence,Why?\n")
    with pytest.raises(DataError, match=r"attaq\.csv, row 1: has no field input$"):
        load(**files)


@pytest.mark.usefixtures("data_root")
def test_the_real_set_is_what_its_card_says():
    found = load()
    assert Counter(row.groups["label"] for row in found) == {
        "violence": 451,
        "harmful_info": 427,
        "deception": 243,
        "explicit_content": 149,
        "substance_abuse": 72,
        "discrimination": 37,
        "pii": 23,
    }
    assert len(found) == 1402 and {row.groups["label"] for row in found} == set(LABELS)
    assert Counter(row.groups["in_star1"] for row in found) == {"yes": 24, "no": 1378}
    clean = load(subset="clean")
    assert len(clean) == 1378 and {row.groups["in_star1"] for row in clean} == {"no"}
    assert set(ids(clean)) < set(ids(found))
    assert len(load(subset="attaq_500")) == 500
    assert len(load(labels=["pii"])) == 23
