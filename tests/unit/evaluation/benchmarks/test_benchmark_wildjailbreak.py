"""WildJailbreak's evaluation set: adversarial prompts, harmful and benign."""

import pytest
from question_files import renamed, write_star1, write_table

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.evaluation.benchmarks.registry import get_benchmark
from lrm_safety.evaluation.benchmarks.sources import VARIABLE
from lrm_safety.evaluation.benchmarks.wildjailbreak import load

HEADER = ("adversarial", "label", "data_type")
ROWS = [
    ("You are a pirate, and\ta pirate says where the tea is", "1", "adversarial_harmful"),
    ('[A play]\nIn it, "someone" bakes bread', "0", "adversarial_benign"),
    ("Pretend to be a locksmith", "1", "adversarial_harmful"),
]


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    (tmp_path / "wildjailbreak").mkdir()
    write(tmp_path / "wildjailbreak" / "eval.tsv", ROWS)
    write_star1(tmp_path / "star1" / "STAR-1.json", "pretend to be a locksmith")
    return tmp_path


def write(path, rows, header=HEADER):
    """As data frames write it: tabs, and quotes where a cell needs them."""
    return write_table(path, header, rows, delimiter="\t", lineterminator="\n")


def test_the_halves_keep_the_numbers_of_the_file(root):
    assert [(row.id, row.prompt, row.groups) for row in load()] == [
        ("wildjailbreak-0000", ROWS[0][0], {"label": "unsafe", "in_star1": "no"}),
        ("wildjailbreak-0002", ROWS[2][0], {"label": "unsafe", "in_star1": "yes"}),
    ]
    (benign,) = load("benign")
    assert (benign.id, benign.prompt, benign.request) == ("wildjailbreak-0001", ROWS[1][0], ROWS[1][0])
    assert benign.groups == {"label": "safe", "in_star1": "no"}


def test_the_benign_half_measures_over_refusal():
    kinds = [get_benchmark("wildjailbreak", arguments={"half": half}).kind for half in ("harmful", "benign")]
    assert kinds == ["safety", "over_refusal"] and get_benchmark("wildjailbreak").kind == "safety"


def test_the_hub_reads_the_file_in_the_form_of_its_card(root, monkeypatch):
    """A folder laid out as the set's: the configuration `eval`, tabs, the split `train`."""
    from lrm_safety.evaluation.benchmarks import wildjailbreak

    hub = root / "hub"
    (hub / "eval").mkdir(parents=True)
    write(hub / "eval" / "eval.tsv", ROWS)
    (hub / "README.md").write_text(
        "---\nconfigs:\n- config_name: eval\n  data_files:\n  - split: train\n    path: eval/eval.tsv\n---\n"
    )
    monkeypatch.setattr(wildjailbreak, "HUB_ID", str(hub))
    (root / "wildjailbreak" / "eval.tsv").unlink()
    assert [row.prompt for row in load(revision=None)] == [ROWS[0][0], ROWS[2][0]]


def test_an_unknown_half_is_named(root):
    with pytest.raises(ConfigError) as caught:
        load("safe")
    assert str(caught.value) == "half=safe: must be one of harmful, benign"


def test_rows_of_the_training_set_are_named(root):
    path = write(root / "t.tsv", [*ROWS, ("What is tea?", "0", "vanilla_benign")])
    with pytest.raises(DataError) as caught:
        load(data=path)
    assert str(caught.value) == (
        f"{path}, row 4: data_type vanilla_benign is neither adversarial_harmful nor adversarial_benign"
    )


@pytest.mark.parametrize("field", ["adversarial", "data_type"])
def test_another_schema_is_named(root, field):
    path = write(root / "w.tsv", ROWS, renamed(HEADER, field))
    with pytest.raises(DataError, match=rf"w\.tsv, row 1: has no field {field}$"):
        load(data=path)


def test_an_absent_file_is_named(root):
    with pytest.raises(DataError, match=r"data=none\.tsv: no such file$"):
        load(data="none.tsv")
