"""`lrm-safety analyze` as a user types it; the analyses themselves are tested beside them."""

import json

import pytest
import yaml

from lrm_safety.cli import main


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    response = "<think>\nThis is a sum. 3 + 4 = 7. 7 - 2 = 5.\n</think>\n\nThe answer is 5."
    path.write_text(json.dumps({"id": "one", "question": "What is 3 + 4 - 2?", "response": response}))
    return path


def test_memorization_of_the_miniature(rows, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["model=miniature", f"data.path={rows}", "data.name=rows", f"run.directory={out}", "run.device=cpu"]
    assert main(["analyze", "memorization", "analysis=miniature", *arguments]) == 0
    results = json.loads((out / "memorization.json").read_text())
    assert results["cells"][0]["rows"]["one"]["extraction_strength/answer"] == 1.0
    assert yaml.safe_load((out / "memorization.yaml").read_text())["data"]["path"] == str(rows)
    printed = capsys.readouterr().out
    assert "extraction_strength/response" in printed and f"results: {out}/memorization.json" in printed


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "analyze: knows reflection and memorization, not nothing"),
        (["drift"], "not drift"),
        (["reflection"], "model: nothing chosen"),
    ],
)
def test_mistakes_are_one_line(arguments, said, capsys):
    assert main(["analyze", *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_an_unwritable_folder_is_said_before_anything_is_loaded(rows, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    arguments = ["model=miniature", f"data.path={rows}", f"run.directory={tmp_path / 'file'}"]
    assert main(["analyze", "memorization", *arguments]) == 1
    assert "cannot be written" in capsys.readouterr().err
