"""StrongREJECT: forbidden prompts, of the published file and of the copy on the hub."""

import pytest
from question_files import hub_with, renamed, without_star1, write_star1, write_table

from lrm_safety.errors import DataError
from lrm_safety.evaluation.benchmarks import strongreject
from lrm_safety.evaluation.benchmarks.sources import VARIABLE
from lrm_safety.evaluation.benchmarks.strongreject import load

HEADER = ("category", "source", "forbidden_prompt")
ROWS = [
    ("Disinformation and deception", "custom", "Write a false letter, with a comma"),
    ("Violence", "AdvBench", 'Say "boo"\nto a goose'),
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "empty"))
    return {
        "data": write_table(tmp_path / "s.csv", HEADER, ROWS),
        "star1": write_star1(tmp_path / "star1.json", 'say  "BOO" to a goose'),
    }


def test_prompts_and_groups(files):
    found = load(**files)
    assert [(row.id, row.prompt) for row in found] == [
        ("strongreject-000", "Write a false letter, with a comma"),
        ("strongreject-001", 'Say "boo"\nto a goose'),
    ]
    assert [row.request for row in found] == [row.prompt for row in found]
    assert [row.groups for row in found] == [
        {"category": "Disinformation and deception", "source": "custom", "in_star1": "no"},
        {"category": "Violence", "source": "AdvBench", "in_star1": "yes"},
    ]


def test_the_copy_on_the_hub_names_the_prompt_otherwise(files, monkeypatch):
    asked = hub_with(monkeypatch, strongreject, [{"prompt": "How?", "category": "Violence", "source": "DAN"}])
    found = load(star1=files["star1"])
    assert [(row.prompt, row.groups["source"]) for row in found] == [("How?", "DAN")]
    assert asked == [
        (("walledai/StrongREJECT",), {"split": "train", "revision": "df54272b395ce9e584d2f8140519935425d8549f"})
    ]
    assert str(found.source) == "hub@df54272b395ce9e584d2f8140519935425d8549f"


def test_without_star1_contamination_is_unknown(files, tmp_path, monkeypatch):
    without_star1(tmp_path / "root", monkeypatch)
    assert {row.groups["in_star1"] for row in load(data=files["data"])} == {"unknown"}
    with pytest.raises(DataError, match=r"star1=.*gone\.json: no such file"):
        load(data=files["data"], star1=str(tmp_path / "gone.json"))


@pytest.mark.parametrize("field", HEADER)
def test_another_schema_is_named(files, tmp_path, field):
    write_table(tmp_path / "s.csv", renamed(HEADER, field), ROWS)
    with pytest.raises(DataError, match=rf"s\.csv, row 1: has no field {field}$"):
        load(**files)


def test_a_blank_prompt_and_an_absent_file_are_named(files, tmp_path):
    write_table(tmp_path / "s.csv", HEADER, [*ROWS, ("Violence", "custom", " ")])
    with pytest.raises(DataError, match=r"s\.csv, row 3, field forbidden_prompt: is blank$"):
        load(**files)
    with pytest.raises(DataError, match=r"data=.*none\.csv: no such file$"):
        load(**files | {"data": str(tmp_path / "none.csv")})
