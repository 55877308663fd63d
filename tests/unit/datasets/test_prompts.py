import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from lrm_safety.datasets.prompts import load_prompts
from lrm_safety.errors import ConfigError, DataError

ROWS = [
    {"id": "7", "question": "Why is the sky blue?", "category": ["Science", "Weather"], "source": "a"},
    {"id": "9", "question": "¿Qué hora es?\u2028And now?", "category": ["Time"], "source": "b"},
    {"id": "11", "question": 'Say "hi", please', "category": [], "source": "c"},
]


def write(folder: Path, rows: list, suffix: str) -> str:
    path = folder / f"prompts{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    elif suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_rows_are_read_whole(suffix, tmp_path):
    path = write(tmp_path, ROWS, suffix)
    prompts = load_prompts(path)
    assert str(prompts.source) == path and len(prompts) == 3
    assert [row.index for row in prompts] == [0, 1, 2]
    assert [row.id for row in prompts] == ["7", "9", "11"]
    assert [row.question for row in prompts] == [row["question"] for row in ROWS]
    assert prompts[0].categories == ("Science", "Weather") and prompts[2].categories == ()
    assert prompts[1].extra == {"source": "b"}


def test_csv_with_fields_of_other_names(tmp_path):
    rows = [{"key": "x", "input": "Why, though?", "label": "violence"}, {"key": "y", "input": "a\nb", "label": ""}]
    path = write(tmp_path, rows, ".csv")
    prompts = load_prompts(path, question_field="input", id_field="key", category_field="label")
    assert [(row.id, row.question, row.categories) for row in prompts] == [
        ("x", "Why, though?", ("violence",)),
        ("y", "a\nb", ()),
    ]


def test_rows_without_an_id_are_called_after_their_position(tmp_path):
    prompts = load_prompts(write(tmp_path, [{"question": "a"}, {"question": "a"}], ".jsonl"))
    assert [row.id for row in prompts] == ["0", "1"]


def test_fingerprint_is_of_the_content_not_of_the_file(tmp_path):
    fingerprints = {load_prompts(write(tmp_path, ROWS, suffix)).fingerprint for suffix in (".json", ".jsonl", ".csv")}
    stripped = [{"question": row["question"], "id": row["id"]} for row in ROWS]
    fingerprints.add(load_prompts(write(tmp_path, stripped, ".json")).fingerprint)
    assert len(fingerprints) == 1 and len(fingerprints.pop()) == 64


def test_fingerprint_changes_with_any_question_id_order_or_row(tmp_path):
    changed = [ROWS, ROWS[::-1], ROWS[:2], [*ROWS[:2], ROWS[2] | {"id": "12"}]]
    changed += [[*ROWS[:i], ROWS[i] | {"question": ROWS[i]["question"] + " "}, *ROWS[i + 1 :]] for i in range(3)]
    fingerprints = [load_prompts(write(tmp_path, rows, ".jsonl")).fingerprint for rows in changed]
    assert len(set(fingerprints)) == len(changed)


def test_fingerprint_keeps_field_boundaries(tmp_path):
    one = load_prompts(write(tmp_path, [{"id": "a", "question": "bc"}], ".json")).fingerprint
    other = load_prompts(write(tmp_path, [{"id": "ab", "question": "c"}], ".json")).fingerprint
    assert one != other


BAD_ROWS = [
    ([{"id": "1", "question": "a"}, {"id": "2"}], r"row 2: no field 'question'; set data\.question_field to one of id"),
    ([{"question": "a"}, {"question": "  \n"}], r"row 2: field 'question' is empty"),
    ([{"question": 3}], r"row 1: field 'question' is a int"),
    ([{"question": None}], r"row 1: field 'question' is null"),
    ([{"id": 5, "question": "a"}, {"id": "5", "question": "b"}], r"row 2: field 'id' repeats '5' of row 1"),
    ([{"question": "a", "category": {"b": 1}}], r"row 1: field 'category' must be a string or a list"),
    (["just text"], r"row 1: is a JSON str"),
    (
        [{"id": "1", "question": "a"}, {"question": "b"}],
        r"row 2: has no field 'id' and was called after its position, '1'",
    ),
    (
        [{"question": "a"}, {"id": "0", "question": "b"}],
        r"row 2: field 'id' is '0', as row 1 was called after its position",
    ),
    ([], r"holds no prompts"),
]


@pytest.mark.parametrize(("rows", "message"), BAD_ROWS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_bad_rows_are_named(rows, message, suffix, tmp_path):
    path = write(tmp_path, rows, suffix)
    with pytest.raises(DataError, match=message) as caught:
        load_prompts(path)
    assert path in str(caught.value) and "\n" not in str(caught.value)


def test_torn_files_are_named_by_line(tmp_path):
    path = tmp_path / "torn.jsonl"
    path.write_text('{"question": "a"}\n\n{"question": "b"', encoding="utf-8")
    with pytest.raises(DataError, match=r"torn\.jsonl, line 3: not valid JSON"):
        load_prompts(str(path))
    path = tmp_path / "torn.json"
    path.write_text('[{"question": "a"},\n{"quest', encoding="utf-8")
    with pytest.raises(DataError, match=r"torn\.json, line 2: not valid JSON"):
        load_prompts(str(path))
    path = tmp_path / "torn.csv"
    path.write_text('question\n"cut off', encoding="utf-8")
    with pytest.raises(DataError, match=r"torn\.csv: not valid CSV"):
        load_prompts(str(path))
    path.write_text("id,question\n1,a, b\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"torn\.csv, row 1: more columns"):
        load_prompts(str(path))


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: no such file"):
        load_prompts(str(tmp_path / "none.json"))
    (tmp_path / "a.parquet").touch()
    with pytest.raises(DataError, match="unknown format"):
        load_prompts(str(tmp_path / "a.parquet"))
    (tmp_path / "object.json").write_text('{"question": "a"}')
    with pytest.raises(DataError, match="expected a list"):
        load_prompts(str(tmp_path / "object.json"))
    (tmp_path / "latin.jsonl").write_bytes('{"question": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match="not UTF-8"):
        load_prompts(str(tmp_path / "latin.jsonl"))


def test_exactly_one_source():
    for arguments in ({}, {"path": "a.json", "hub_id": "b/c"}):
        with pytest.raises(ConfigError, match=r"exactly one of data\.path and data\.hub_id"):
            load_prompts(**arguments)


def test_star1_is_what_its_card_says(data_root):
    prompts = load_prompts(str(data_root / "star1" / "STAR-1.json"))
    assert len(prompts) == 1000
    assert len({row.id for row in prompts}) == len({row.question for row in prompts}) == 1000
    categories = Counter(category for row in prompts for category in row.categories)
    assert len(categories) == 8 and categories["Illicit / Criminal Behavior"] == 381 and categories["Self-Harm"] == 85
    assert all(row.categories for row in prompts)
    assert set(prompts[0].extra) == {"response", "source", "score"}


def test_every_star1_response_splits_and_trains(data_root):
    from lrm_safety.conversation.families import get_family
    from lrm_safety.conversation.response import split_think_text

    for row in load_prompts(str(data_root / "star1" / "STAR-1.json")):
        trace, answer = split_think_text(row.extra["response"])
        assert trace and answer
        assert get_family("deepseek_r1_distill").sft_target(trace, answer).endswith(answer)


def test_attaq_and_its_overlap_with_star1(data_root):
    path = str(data_root / "attaq" / "attaq_dataset.csv")
    attaq = load_prompts(path, question_field="input", category_field="label")
    assert len(attaq) == 1402
    assert Counter(row.categories for row in attaq).most_common(1) == [(("violence",), 451)]
    star1 = {row.question for row in load_prompts(str(data_root / "star1" / "STAR-1.json"))}
    assert sum(row.question in star1 for row in attaq) == 24


def test_the_hub_reader_gives_the_same_set_as_the_file(tmp_path, monkeypatch):
    # A folder stands for a repository of the hub: the datasets library reads both the same way.
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "repository").mkdir()
    path = write(tmp_path / "repository", ROWS, ".jsonl")
    prompts = load_prompts(hub_id=str(tmp_path / "repository"))
    assert prompts.fingerprint == load_prompts(path).fingerprint
    assert prompts[0].categories == ("Science", "Weather") and prompts[0].extra == {"source": "a"}
    with pytest.raises(DataError, match=r"cannot load split 'dev' from the hub"):
        load_prompts(hub_id=str(tmp_path / "repository"), split="dev")
