"""Finding and reading a benchmark's data, and the questions made of it."""

import csv
import json

import pytest

from lrm_safety.errors import DataError
from lrm_safety.evaluation.benchmarks.question import Asked, Question, Questions, questions
from lrm_safety.evaluation.benchmarks.sources import data_file, normalised, read, rows, star1_questions

FIELDS = {"text": str, "level": (int, str)}


@pytest.fixture(autouse=True)
def no_data_folder(monkeypatch):
    monkeypatch.delenv("LRM_SAFETY_DATA", raising=False)


def one_line(caught) -> str:
    assert "\n" not in str(caught.value)
    return str(caught.value)


def no_hub():
    raise AssertionError("the hub must not be asked")


def test_a_path_given_wins_over_the_folder(tmp_path, monkeypatch):
    (tmp_path / "folder" / "set").mkdir(parents=True)
    in_folder = tmp_path / "folder" / "set" / "a.jsonl"
    given = tmp_path / "b.jsonl"
    in_folder.write_text('{"text": "folder", "level": 1}\n')
    given.write_text('{"text": "given", "level": "2"}\n')
    monkeypatch.setenv("LRM_SAFETY_DATA", str(tmp_path / "folder"))
    assert data_file("set", "a.jsonl") == in_folder
    assert data_file("set", "a.jsonl", str(given)) == given
    assert rows("set", "a.jsonl", None, FIELDS, no_hub, "owner/set") == (
        [{"text": "folder", "level": 1}],
        str(in_folder),
    )
    assert rows("set", "a.jsonl", str(given), FIELDS, no_hub, "owner/set") == (
        [{"text": "given", "level": "2"}],
        str(given),
    )


def test_a_path_may_start_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.csv").touch()
    assert data_file("set", "a.csv", "~/mine.csv") == tmp_path / "mine.csv"


def test_an_absent_file_is_named_with_its_mend(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"data=.*none\.csv: no such file") as caught:
        data_file("set", "a.csv", str(tmp_path / "none.csv"))
    one_line(caught)
    with pytest.raises(DataError, match=r"star1=.*none\.json: no such file"):
        star1_questions(str(tmp_path / "none.json"))
    with pytest.raises(DataError, match=r"set LRM_SAFETY_DATA to a folder that holds set/a\.csv, or data="):
        data_file("set", "a.csv")
    monkeypatch.setenv("LRM_SAFETY_DATA", str(tmp_path))
    with pytest.raises(DataError, match=r"set/a\.csv: no such file; LRM_SAFETY_DATA must name"):
        data_file("set", "a.csv")
    with pytest.raises(DataError, match=r"set/a\.csv: no such file"):  # a set that the hub does not have
        rows("set", "a.csv", None, FIELDS, None, "owner/set")


@pytest.mark.parametrize("folder", [None, "without the file"])
def test_the_hub_is_asked_where_there_is_no_file(folder, tmp_path, monkeypatch):
    if folder:
        monkeypatch.setenv("LRM_SAFETY_DATA", str(tmp_path))
    found = [{"text": "from the hub", "level": 3}]
    assert rows("set", "a.csv", None, FIELDS, lambda: iter(found), "owner/set") == (found, "owner/set")


@pytest.mark.parametrize(
    "error", [ConnectionError("cannot reach\nsecond line"), ValueError("no such split"), OSError(), FileNotFoundError()]
)
def test_a_failure_of_the_hub_names_every_mend(error):
    def hub():
        raise error

    with pytest.raises(DataError) as caught:
        rows("set", "a.csv", None, FIELDS, hub, "owner/set")
    message = one_line(caught)
    assert message.startswith("owner/set: cannot be had from the hub")
    assert "second line" not in message
    for mend in ("hf auth login", "LRM_SAFETY_DATA", "set/a.csv", "data="):
        assert mend in message


def test_rows_of_the_hub_are_checked_too():
    with pytest.raises(DataError, match=r"^owner/set, row 0: has no field level"):
        rows("set", "a.csv", None, FIELDS, lambda: [{"text": "x"}], "owner/set")


def test_one_table_in_three_formats(tmp_path):
    table = [{"text": 'He said "hi",\nthen left', "level": "1"}, {"text": "¿Qué?\u2028x", "level": "2"}]
    (tmp_path / "a.json").write_text(json.dumps(table), encoding="utf-8")
    (tmp_path / "a.jsonl").write_text("\n\n".join(json.dumps(row, ensure_ascii=False) for row in table), "utf-8")
    with (tmp_path / "a.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "level"])
        writer.writeheader()
        writer.writerows(table)
    for suffix in ("json", "jsonl", "csv"):
        assert list(read(tmp_path / f"a.{suffix}")) == table


def test_csv_fields_longer_than_the_default_limit(tmp_path):
    (tmp_path / "a.csv").write_text(f"text\n{'x' * 200_000}\n")
    assert [len(row["text"]) for row in read(tmp_path / "a.csv")] == [200_000]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n\n{"text": ', r"a\.jsonl, line 3: is not JSON"),
        ("a.json", b'[{"text": "a"', r"a\.json: is not JSON"),
        ("a.json", b'{"text": "a"}', r"a\.json: must be a list of rows"),
        ("a.jsonl", '{"text": "é"}'.encode("latin-1"), r"a\.jsonl: cannot be read"),
        ("a.csv", "text\né\n".encode("latin-1"), r"a\.csv: cannot be read"),
    ],
)
def test_a_broken_file_is_named(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        list(read(tmp_path / name))
    one_line(caught)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ([{"text": "a", "level": 1}, {"level": 1}], r"row 1: has no field text"),
        ([{"text": 5, "level": 1}], r"row 0, field text: is int, not str"),
        ([{"text": None, "level": 1}], r"row 0, field text: is NoneType, not str"),
        ([{"text": "a", "level": 1.5}], r"row 0, field level: is float, not int or str"),
        ([{"text": " \n", "level": 1}], r"row 0, field text: is blank"),
        (["only text"], r"row 0: is no object with fields"),
        ([], r"holds no row"),
    ],
)
def test_a_wrong_row_is_named(table, message, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(table))
    with pytest.raises(DataError, match=message) as caught:
        rows("set", "a.json", str(tmp_path / "a.json"), FIELDS, None, "owner/set")
    assert "a.json" in one_line(caught)


def test_a_short_csv_row_is_a_wrong_row(tmp_path):
    (tmp_path / "a.csv").write_text("text,level\na,1\nb\n")
    with pytest.raises(DataError, match=r"row 1, field level: is NoneType"):
        rows("set", "a.csv", str(tmp_path / "a.csv"), FIELDS, None, "owner/set")


def test_prompts_are_compared_without_case_and_white_space(tmp_path):
    assert normalised("  How\tDO\n I?  ") == "how do i?"
    (tmp_path / "star1.json").write_text(json.dumps([{"question": "How DO  I?"}, {"question": "b"}]))
    assert star1_questions(str(tmp_path / "star1.json")) == {"how do i?", "b"}


def test_star1_has_a_thousand_questions(data_root, monkeypatch):
    monkeypatch.setenv("LRM_SAFETY_DATA", str(data_root))
    assert len(star1_questions()) == 1000


ROW = Question("1", "shown", "bare", target="t")


def test_a_plain_question_is_the_same_in_every_repeat():
    assert ROW.ask(0) == ROW.ask(5) == Asked("shown", "t")
    assert ROW.vote(3, "x") == "x"


def test_questions_keep_their_order_and_can_be_limited():
    made = questions([ROW, Question("2", "b", "b"), Question("3", "c", "c")], "somewhere")
    assert [row.id for row in made] == ["1", "2", "3"] and len(made) == 3
    limited = made.limited(2)
    assert [row.id for row in limited] == ["1", "2"] and limited.source == "somewhere"
    assert made.limited(None) == made and len(made.limited(9)) == 3


def test_the_fingerprint_is_of_ids_prompts_and_targets_in_order():
    def fingerprint(*kept):
        return Questions(kept, "anywhere").fingerprint

    other = Question("2", "b", "b")
    variants = [
        fingerprint(ROW, other),
        fingerprint(other, ROW),
        fingerprint(ROW),
        fingerprint(ROW, Question("3", "b", "b")),
        fingerprint(ROW, Question("2", "B", "b")),
        fingerprint(ROW, Question("2", "b", "b", target="t")),
        fingerprint(Question("1s", "hown", "bare", target="t"), other),  # boundaries count
    ]
    assert len(set(variants)) == len(variants) and all(len(one) == 64 for one in variants)
    assert Questions((ROW,), "a").fingerprint == Questions((ROW,), "b").fingerprint


def test_a_repeated_id_is_named():
    with pytest.raises(DataError, match=r"file\.csv: id 2 comes twice"):
        questions([ROW, Question("2", "a", "a"), Question("2", "b", "b")], "file.csv")
