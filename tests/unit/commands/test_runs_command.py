"""`lrm-safety runs` over folders in every state that a command leaves behind."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrm_safety.cli import main
from lrm_safety.commands.runs import find_runs
from lrm_safety.run_folder import Owner, at_work, owned

FORMAT_1 = Path(__file__).parents[1] / "results_of_format_1"


def made(
    folder: Path, command: str, status: int | None, *, at: str = "10:00", error: str = "", updates: int | None = None
) -> Path:
    """A folder as a command leaves it: `updates` of 120 done, safety 0.5 + updates / 1000."""
    folder.mkdir(parents=True)
    ended = None if status is None else f"2026-11-28 {at}:59 UTC"
    start = {"command": command, "started": f"2026-11-28 {at}:00 UTC", "ended": ended, "exit_status": status}
    (folder / "environment.json").write_text(json.dumps({"starts": [{"command": "lrm-safety sft"}, start]}))
    if error:
        (folder / "error.txt").write_text(error)
    if updates is not None:
        benchmarks = {"sums": {"task": "math500"}, "requests": {"task": "attaq"}}
        config = {"schedule": {"max_updates": 120}, "evaluation": {"benchmarks": benchmarks}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        lines = [
            {"update": update, "evaluation/sums": 0.1, "evaluation/requests": 0.5 + update / 1000}
            for update in (0, updates)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


TRAIN = "lrm-safety train experiment=miniature 'x=a b'"


def test_every_state_by_what_the_folder_says(tmp_path: Path) -> None:
    made(tmp_path / "whole", TRAIN, 0, at="10:06", updates=120)
    made(tmp_path / "sweep" / "seed-1", TRAIN, 143, at="10:01", updates=40)
    made(tmp_path / "again", TRAIN, 75, at="10:02", updates=60)
    made(tmp_path / "killed", TRAIN, None, at="10:03", updates=80)
    text = "Traceback (most recent call last):\n  ...\nlrm_safety.errors.RewardError: x: raised KeyError: 'y'\n"
    made(tmp_path / "bad", TRAIN, 1, at="10:04", error=text, updates=20)
    made(tmp_path / "audit", "lrm-safety audit-reward rows=miniature", 1, at="10:05")
    with owned(tmp_path / "now", ["train", "seed=1"]):
        found = {one.name: one for one in find_runs(tmp_path)}
    assert {name: one.state for name, one in found.items()} == {
        "sweep/seed-1": "stopped",
        "again": "stopped",
        "killed": "stopped",
        "bad": "failed",
        "audit": "finished",
        "whole": "finished",
        "now": "running",
    }
    assert list(found) == ["sweep/seed-1", "again", "killed", "bad", "audit", "whole", "now"], (
        "by the last that is known of each"
    )
    assert found["bad"].reason == "x: raised KeyError: 'y'"
    assert [one.command for one in found.values()] == ["train"] * 4 + ["audit-reward", "train", "train"]
    whole = found["whole"]
    assert (whole.updates, whole.planned_updates, whole.benchmark, whole.safety) == (120, 120, "requests", 0.62)
    assert (found["audit"].updates, found["audit"].safety) == (None, None)
    assert found["now"].ended is None and found["now"].started > whole.started


def test_a_run_at_work_was_last_seen_at_its_newest_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with owned(tmp_path / "long", ["train"]) as long, owned(tmp_path / "short", ["train"]):
        began = find_runs(tmp_path)
        record = json.dumps({"update": 1, "time": 1893456000.5, "train/loss": 0.1})  # 2030-01-01 00:00:00
        (long.path / "metrics.jsonl").write_text(record + "\n")
        found = find_runs(tmp_path)
        assert main(["runs", str(tmp_path)]) == 0
    assert [one.name for one in began] == ["long", "short"] and [one.name for one in found] == ["short", "long"]
    assert (found[1].state, found[1].recorded) == ("running", "2030-01-01 00:00:00 UTC")
    assert found[1].last > found[1].started == found[0].last
    assert "01-01 00:00" in capsys.readouterr().out


def test_an_evaluation_tells_its_safety(tmp_path: Path) -> None:
    folder = made(tmp_path / "evaluated", "lrm-safety evaluate model=miniature", 0)
    shutil.copy(FORMAT_1 / "results.json", folder)
    results: dict[str, Any] = json.loads((FORMAT_1 / "results.json").read_text())
    (one,) = find_runs(tmp_path)
    expected = next(name for name, entry in results["benchmarks"].items() if entry["kind"] == "safety")
    entry = results["benchmarks"][expected]
    assert (one.benchmark, one.safety) == (expected, entry["figures"][entry["primary"]]["value"])


def test_the_size_counts_what_lies_below(tmp_path: Path) -> None:
    folder = made(tmp_path / "run", TRAIN, 0)
    before = find_runs(tmp_path)[0].bytes
    (folder / "checkpoints").mkdir()
    with (folder / "checkpoints" / "weights").open("wb") as file:
        file.write(b"\1" * (1 << 20))
        os.fsync(file.fileno())
    assert find_runs(tmp_path)[0].bytes - before == pytest.approx(1 << 20, rel=0.05)


def test_torn_files_do_not_keep_the_others_from_being_listed(tmp_path: Path) -> None:
    torn = made(tmp_path / "torn", TRAIN, 0, updates=10)
    for name in ("environment.json", "metrics.jsonl", "results.json"):
        (torn / name).write_text("{\n{\n")
    made(tmp_path / "whole", TRAIN, 0, updates=10)
    assert {one.name: one.updates for one in find_runs(tmp_path)} == {"torn": None, "whole": 10}


def test_an_owner_elsewhere_works_while_its_heart_beats(tmp_path: Path) -> None:
    record = tmp_path / ".owner"
    record.write_text(json.dumps(asdict(replace(Owner.of_this_process("lrm-safety train"), system="another kernel"))))
    assert at_work(tmp_path) is not None
    os.utime(record, (0, time.time() - 600))
    assert at_work(tmp_path) is None


def test_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LRM_SAFETY_RUNS", str(tmp_path / "mine"))
    made(tmp_path / "mine" / "demo", TRAIN, 0, updates=120)
    made(
        tmp_path / "mine" / "bad", TRAIN, 1, at="11:30", error="...\nlrm_safety.errors.DataError: is torn\n", updates=3
    )
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[1:])) <= 80
    (demo,) = (line.split() for line in lines if "demo " in line)
    assert demo[:6] == ["demo", "train", "finished", "120/120", "requests", "0.620"] and demo[-2:] == ["11-28", "10:00"]
    assert lines[-1] == "bad failed: is torn"
    assert main(["runs", str(tmp_path / "mine"), "--json"]) == 0
    assert [one["state"] for one in json.loads(capsys.readouterr().out)] == ["finished", "failed"]


def test_a_run_itself_and_a_folder_without_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(tmp_path / "demo", TRAIN, 0)
    assert [one.name for one in find_runs(tmp_path / "demo")] == ["demo"]
    (tmp_path / "empty").mkdir()
    assert main(["runs", str(tmp_path / "empty")]) == 0
    assert capsys.readouterr().out == f"no run in {tmp_path / 'empty'} or below it\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent"], "runs: absent: no such folder"),
        (["--yaml"], "runs: knows FOLDER and --json, not --yaml"),
        (["a", "b"], "runs: give one folder"),
    ],
)
def test_mistakes(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["runs", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {said}") and error.count("\n") == 1
