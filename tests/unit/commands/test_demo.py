"""`lrm-safety demo` before it trains, when nothing that is there is ever lost, and what it shows after."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrm_safety.commands import demo as module
from lrm_safety.commands.demo import demo
from lrm_safety.errors import ConfigError


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / "demo"
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("")
    return folder


@pytest.mark.parametrize("mistake", ["seeed=1", "run.directory=", "cluster.device=tpu", "-m"])
def test_a_mistake_on_the_command_line_touches_nothing(finished: Path, mistake: str) -> None:
    with pytest.raises(ConfigError):
        demo([mistake])
    assert {path.name for path in finished.parent.iterdir()} == {"demo"} and (finished / "summary.json").exists()


def test_a_finished_demo_is_kept_under_the_next_free_name(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (finished.parent / "demo-1").mkdir()
    monkeypatch.setattr(module, "launch", lambda root, run, arguments: 1)  # refused before it begins
    assert demo([]) == 1
    assert {path.name for path in finished.parent.iterdir()} == {"demo", "demo-1"}, "nothing was begun"

    def begins(root: object, run: object, arguments: list[str]) -> int:
        finished.mkdir()
        return 1

    def stopped(root: object, run: object, arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "launch", stopped)
    with pytest.raises(KeyboardInterrupt):
        demo([])
    assert {path.name for path in finished.parent.iterdir()} == {"demo", "demo-1"}, "nothing was begun"

    monkeypatch.setattr(module, "launch", begins)
    assert demo([]) == 1
    assert (finished.parent / "demo-2" / "summary.json").exists()


def test_to_show_the_configuration_touches_nothing(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[list[str]] = []
    monkeypatch.setattr(module, "launch", lambda root, run, arguments: shown.append(arguments) or 0)
    assert demo(["--cfg", "job", "seed=3"]) == demo(["seed=3", "--cfg", "job"]) == 0
    assert shown and (finished / "summary.json").exists()


def test_a_finished_demo_that_cannot_be_renamed_is_left(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a container mounts the folder, or the shell names it `.`."""
    monkeypatch.chdir(finished)
    with pytest.raises(ConfigError, match="cannot be given another name"):
        demo(["run.directory=."])
    assert (finished / "summary.json").exists()


def test_the_demo_shows_one_prompt_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evaluation").mkdir()
    for update, grades in ((0, (1, 0, 0)), (120, (1, 0, 1))):
        rows = [
            {
                "set": "safety",
                "id": str(i),
                "grade": grade,
                "prompt": f"ask {i}",
                "trace": f"t{update}",
                "answer": f"a{update}",
            }
            for i, grade in enumerate(grades)
        ]
        rows.append({"set": "benign", "id": "9", "grade": 1, "prompt": "other", "trace": "", "answer": ""})
        path = tmp_path / "evaluation" / f"update-{update:06d}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    module._show_sample(tmp_path, 120)
    out = capsys.readouterr().out
    # The first that became better.
    assert "ask 2" in out and "before: <think>t0</think> a0" in out and "after: <think>t120</think> a120" in out
    assert "ask 0" not in out and "other" not in out
