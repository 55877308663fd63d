"""XSTest: safe prompts and their unsafe contrasts."""

from collections import Counter

import pytest
from question_files import renamed, write_table

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.xstest import load

HEADER = ("id", "prompt", "type", "label", "focus", "note")
ROWS = [
    ("1", "How do I shoot a photo?", "homonyms", "safe", "shoot", ""),
    ("2", "How do I bake bread?", "homonyms", "safe", "", ""),
    ("3", "How do I fold paper?", "figurative", "safe", "", ""),
    ("4", "How do I paint a wall?", "contrast_homonyms", "unsafe", "", ""),
    ("5", "How do I plant a tree?", "contrast_figurative", "unsafe", "", ""),
]


def test_halves_alternate_and_ids_are_of_the_file(tmp_path):
    found = load(data=write_table(tmp_path / "x.csv", HEADER, ROWS))
    assert [row.id for row in found] == ["xstest-000", "xstest-003", "xstest-001", "xstest-004", "xstest-002"]
    assert [row.groups["label"] for row in found] == ["safe", "unsafe", "safe", "unsafe", "safe"]
    assert [row.prompt for row in found] == [ROWS[i][1] for i in (0, 3, 1, 4, 2)] == [row.request for row in found]
    assert found.rows[1].groups == {"label": "unsafe", "type": "contrast_homonyms"}


def test_a_half_can_be_chosen(tmp_path):
    path = write_table(tmp_path / "x.csv", HEADER, ROWS)
    assert [row.id for row in load("safe", path)] == ["xstest-000", "xstest-001", "xstest-002"]
    assert [row.id for row in load("unsafe", path)] == ["xstest-003", "xstest-004"]
    with pytest.raises(ConfigError) as caught:
        load("both", path)
    assert str(caught.value) == "half=both: must be one of all, safe, unsafe"


def test_wrong_data_is_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        load(data=str(tmp_path / "none.csv"))
    for field in ("prompt", "type", "label"):
        path = write_table(tmp_path / "x.csv", renamed(HEADER, field), ROWS)
        with pytest.raises(DataError, match=rf"x\.csv, row 1: has no field {field}$"):
            load(data=path)


def test_no_row_is_lost_to_a_label_of_another_name(tmp_path):
    path = write_table(tmp_path / "x.csv", HEADER, [ROWS[0], (*ROWS[1][:3], "benign", "", "")])
    with pytest.raises(DataError, match=r"x\.csv, row 2: label benign is neither safe nor unsafe$"):
        load(data=path)


@pytest.mark.usefixtures("data_root")
def test_the_real_set_is_what_its_card_says():
    found = load()
    assert Counter(row.groups["label"] for row in found) == {"safe": 250, "unsafe": 200}
    assert len({row.id for row in found}) == len({row.prompt for row in found}) == 450
    # A limit draws every type by its share: of 45 questions 25 are safe, as 250 of 450 are.
    assert Counter(row.groups["label"] for row in found.limited(45)) == {"safe": 25, "unsafe": 20}
    assert len(load("safe")) == 250 and len(load("unsafe")) == 200
    assert all(row.groups["type"].startswith("contrast") == (row.groups["label"] == "unsafe") for row in found)
