"""Running steps: what is done stays done, a failure is told in one line, other settings are refused."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from lrm_safety.errors import ConfigError, WorkerError
from lrm_safety.settings.study import StudyRunSettings, StudySettings
from lrm_safety.study.run import finished_steps, run_steps
from lrm_safety.study.steps import Step


def show(folder: Path, name: str = "show", *, seed: int = 0) -> Step:
    """A real command that takes a moment and makes no file of its own."""
    return Step(
        f"{name}, seed {seed}", ("train", "experiment=miniature", f"seed={seed}", "--cfg", "job"), folder / "there"
    )


def run(folder: Path, steps: list[Step], **settings: float) -> str:
    console = Console(file=io.StringIO(), width=200)
    study = StudySettings(run=StudyRunSettings(directory=str(folder)), **settings)  # type: ignore[arg-type]
    run_steps(steps, finished_steps(steps, folder), study, console)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_a_done_step_is_not_done_again(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert "[1/1] show, seed 0\n" in run(tmp_path, [show(tmp_path)])
    log = tmp_path / "logs" / "show-seed-0.log"
    first = log.stat().st_mtime_ns
    assert "seed: 0" in log.read_text()
    assert "[1/1] show, seed 0: done before" in run(tmp_path, [show(tmp_path)])
    assert log.stat().st_mtime_ns == first


def test_a_step_whose_product_is_gone_is_done_again(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    run(tmp_path, [show(tmp_path)])
    (tmp_path / "there").unlink()
    with pytest.raises(WorkerError, match=r"`show, seed 0` failed \(it made no there\)"):
        run(tmp_path, [show(tmp_path)])


def test_a_failing_step_gives_its_own_error_line(tmp_path: Path) -> None:
    bad = Step("train rl, seed 0", ("train", "experiment=miniature", "seed=-1"), tmp_path / "never")
    with pytest.raises(
        WorkerError, match=r"`train rl, seed 0` failed \(seed=-1: must be at least 0\); its log is"
    ) as caught:
        run(tmp_path, [bad, show(tmp_path)])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "steps.json").exists()


def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"took over step_timeout_seconds=0\.01"):
        run(tmp_path, [show(tmp_path)], step_timeout_seconds=0.01)


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text(json.dumps({"show, seed 0": ["train", "seed=1"]}))
    with pytest.raises(ConfigError, match=r"step `show, seed 0` was made by other settings; choose another run\.name"):
        finished_steps([show(tmp_path)], tmp_path)
