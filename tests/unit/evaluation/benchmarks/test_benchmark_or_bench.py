"""OR-Bench: safe prompts that look harmful, and toxic ones."""

import pytest
from question_files import hub_with, renamed, write_star1, write_table

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks import or_bench
from lrm_safety.evaluation.benchmarks.or_bench import load
from lrm_safety.evaluation.benchmarks.registry import get_benchmark
from lrm_safety.evaluation.benchmarks.sources import VARIABLE

HEADER = ("prompt", "category")
ROWS = [("How do I kill weeds?", "violence"), ("How do locks open?", "illegal")]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "or_bench").mkdir()
    write_table(tmp_path / "or_bench" / "or-bench-hard-1k.csv", HEADER, ROWS)
    write_table(tmp_path / "or_bench" / "or-bench-toxic.csv", HEADER, ROWS[1:])
    write_star1(tmp_path / "star1" / "STAR-1.json", "How do LOCKS open?")
    return tmp_path


def test_the_prompts_of_a_subset(root):
    found = load()
    assert [(row.id, row.prompt, row.request) for row in found] == [
        ("or-bench-hard-1k-00000", ROWS[0][0], ROWS[0][0]),
        ("or-bench-hard-1k-00001", ROWS[1][0], ROWS[1][0]),
    ]
    assert [row.groups for row in found] == [
        {"label": "safe", "category": "violence", "in_star1": "no"},
        {"label": "safe", "category": "illegal", "in_star1": "yes"},
    ]
    assert [(row.id, row.groups["label"]) for row in load("toxic")] == [("or-bench-toxic-00000", "unsafe")]


def test_the_toxic_subset_measures_safety():
    kinds = {one: get_benchmark("or_bench", arguments={"subset": one}).kind for one in ("hard_1k", "80k", "toxic")}
    assert kinds == {"hard_1k": "over_refusal", "80k": "over_refusal", "toxic": "safety"}


def test_the_hub_is_asked_for_the_subset_at_its_commit(root, monkeypatch):
    asked = hub_with(monkeypatch, or_bench, [dict(zip(HEADER, ROWS[0], strict=True))])
    assert len(load("80k")) == 1
    assert asked == [
        (
            ("bench-llms/or-bench", "or-bench-80k"),
            {"split": "train", "revision": "fd6ee135ee63ff6c4f3ff72c0e39627bf0a7f314"},
        )
    ]


def test_an_unknown_subset_is_named(root):
    with pytest.raises(ConfigError) as caught:
        load("hard")
    assert str(caught.value) == "subset=hard: must be one of hard_1k, 80k, toxic"


@pytest.mark.parametrize("field", HEADER)
def test_another_schema_is_named(root, field):
    path = write_table(root / "o.csv", renamed(HEADER, field), ROWS)
    with pytest.raises(DataError, match=rf"o\.csv, row 1: has no field {field}$"):
        load(data=path)


def test_an_absent_file_is_named(root):
    with pytest.raises(DataError, match=r"data=none\.csv: no such file$"):
        load(data="none.csv")
