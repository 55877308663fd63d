"""`lrm-safety samples`: text only after consent, of runs and of evaluations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrm_safety.cli import main


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def row(number: int, **more: object) -> dict[str, object]:
    text = {"prompt": f"ask {number}", "trace": f"think {number}", "answer": f"say {number}"}
    return {"set": "safety", "id": f"q{number}", "status": "complete", "grade": number / 10, **text, **more}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for update in (0, 120):
        write(tmp_path / f"evaluation/update-{update:06d}.jsonl", [row(n + update) for n in range(8)])
    write(tmp_path / "rollouts/update-000119.jsonl", [row(77, shaped_reward=1.25)])
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["samples", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_text_is_shown_after_consent_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, folder)
    assert status == 0 and "show=text" in out and "id q120 | status complete | grade 12" in out
    assert not any(word in out for word in ("ask", "think", "say "))
    _, out, _ = run(capsys, folder, "show=text", "n=2")
    assert "prompt: ask 120\ntrace: think 120\nanswer: say 120\n" in out and "ask 122" not in out and "ask 0" not in out
    _, out, _ = run(capsys, folder, "show=text", "update=119")
    assert "shaped_reward 1.25" in out and "say 77" in out and "say 120" not in out


def test_rollouts_have_one_name_whatever_their_update(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, kind in enumerate(("update", "offending")):
        rollout = {key: value for key, value in row(number).items() if key != "set"}
        write(tmp_path / f"rollouts/{kind}-000004.jsonl", [rollout])
    assert "set offending | update 4 | id q1" in run(capsys, tmp_path)[1]
    status, out, _ = run(capsys, tmp_path, "set=training")
    assert status == 0 and "set training | update 4 | id q0" in out and "q1" not in out


def test_texts_hold_characters_that_end_lines_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """JSON leaves U+0085, U+2028 and U+2029 as they are, and models write them."""
    path = tmp_path / "samples.jsonl"
    path.write_text(json.dumps(row(1, answer="a\x85b\u2028c\u2029d"), ensure_ascii=False) + "\n", encoding="utf-8")
    status, out, _ = run(capsys, tmp_path, "show=text")
    assert status == 0 and "id q1 | status complete" in out and "answer: a" in out and "d\n" in out


@pytest.mark.parametrize(("answer", "shown"), [("y", True), ("yes", True), ("", False), ("no", False)])
def test_a_terminal_is_asked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, answer: str, shown: bool
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert ("say 120" in run(capsys, folder)[1]) is shown


def test_an_evaluation_without_text_says_how_to_keep_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "samples.jsonl", [{"set": "attaq", "id": "1", "status": "complete", "answer_sha256": "ab"}])
    status, out, _ = run(capsys, tmp_path, "show=text")
    assert status == 0 and "evaluation.log_text=true" in out and "set attaq | id 1" in out


def test_a_terminal_obeys_nothing_that_the_model_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "samples.jsonl", [row(1, answer="\x1b]0;title\x07 [red]plain[/red]")])
    _, out, _ = run(capsys, tmp_path, "show=text")
    assert "\x1b" not in out and "\x07" not in out and "[red]plain[/red]" in out


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "seed=1" / "samples.jsonl", [row(1)])
    assert run(capsys, tmp_path / "seed=1")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give one folder"),
        (("nothing",), "holds no samples"),
        ((".", "count=3"), "not count"),
        ((".", "staus=safe"), "unknown key staus; did you mean status?"),
        ((".", "n=many"), "n=many: must be a whole number"),
        ((".", "show=all"), "show=all: must be text"),
        ((".", "update=7"), "has samples of updates 0, 119, 120"),
        ((".", "set=other"), "no sample is of that set"),
    ],
)
def test_mistakes_are_one_line(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(folder)
    status, _, err = run(capsys, *arguments)
    assert status == 1 and message in err and len(err.splitlines()) == 1
