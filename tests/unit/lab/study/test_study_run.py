"""Running steps: what is done stays done, a failure is told in one line, a signal reaches the step, a folder has one owner."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from lrm_safety.errors import ConfigError, WorkerError
from lrm_safety.interruption import DeadlineReached, StopRequested
from lrm_safety.lab.study.run import StepRecord, inherited_lock, run_steps
from lrm_safety.lab.study.steps import Step, fingerprint_of
from lrm_safety.settings.study import StudyRunSettings, StudySettings


def show(folder: Path, *, seed: int = 0) -> Step:
    """A real command that takes a moment and makes no file of its own."""
    return Step(
        f"show, seed {seed}", ("train", "experiment=miniature", f"seed={seed}", "--cfg", "job"), folder / "there"
    )


def bad(folder: Path, reason: str = "seed=-1") -> Step:
    return Step("train rl, seed 0", ("train", "experiment=miniature", reason), folder / "never")


def run(folder: Path, steps: list[Step], **settings: float) -> str:
    console = Console(file=io.StringIO(), width=200)
    study = StudySettings(run=StudyRunSettings(directory=str(folder)), **settings)  # type: ignore[arg-type]
    with inherited_lock(folder) as lock:
        run_steps(steps, {step.name: "x" for step in steps}, StepRecord(folder), study, console, lock)
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


def test_a_failing_step_gives_its_own_error_line_and_not_an_older_one(tmp_path: Path) -> None:
    line = r"`train rl, seed 0` failed \(seed=-1: must be at least 0\); its log is"
    with pytest.raises(WorkerError, match=line) as caught:
        run(tmp_path, [bad(tmp_path), show(tmp_path)])
    assert "\n" not in str(caught.value)
    assert StepRecord(tmp_path).done == {}
    with pytest.raises(WorkerError, match=r"failed \(it made no never\)"):
        run(tmp_path, [Step("train rl, seed 0", show(tmp_path).arguments, tmp_path / "never")])


def test_a_step_that_hangs_is_ended_and_tried_again(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"it took over step_timeout_seconds=0\.01"):
        run(tmp_path, [show(tmp_path)], step_timeout_seconds=0.01, retries=1)
    with pytest.raises(WorkerError, match=r"seed=-1"):
        run(tmp_path, [bad(tmp_path)], retries=2)
    assert (tmp_path / "logs" / "train-rl-seed-0.log").read_text().count("error: seed=-1") == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """The step is a real process that waits for ever unless it is asked to end."""
    waiting = "import pathlib, sys, time; pathlib.Path(sys.argv[-1]).touch(); time.sleep(600)"
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{waiting}' {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    def kill() -> None:
        deadline = time.monotonic() + 60
        while not (tmp_path / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=kill)
    thread.start()
    began = time.monotonic()
    with pytest.raises(StopRequested) as stop:
        run(tmp_path, [show(tmp_path)])
    thread.join()
    assert stop.value.signal_number == number and time.monotonic() - began < 60
    with inherited_lock(tmp_path):
        pass  # nobody who inherited the lock is left


def test_a_step_that_leaves_at_its_deadline_ends_the_study_so_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not begun again, though retries are left: the job that both are in is about to end."""
    calls = tmp_path / "calls"
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho x >> {calls}\nexit 75\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(DeadlineReached, match="the deadline of step `show, seed 0`") as left:
        run(tmp_path, [show(tmp_path)], retries=3)
    assert left.value.exit_code == 75 and calls.read_text() == "x\n"


@pytest.mark.parametrize(("status", "error"), [(1, WorkerError), (75, DeadlineReached)])
@pytest.mark.parametrize("b_ends", ["at once", "when asked to"])
def test_what_ends_well_beside_a_step_that_does_not_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, error: type[BaseException], b_ends: str
) -> None:
    """Step a ends once b has, so that one look finds both; or once b waits for a signal, after which b is as good as done."""
    program, made = tmp_path / "python", tmp_path / "b.made"
    waits = {
        "at once": f"trap '' TERM; touch {tmp_path}/ready",
        "when asked to": f"trap 'exit 0' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done",
    }
    program.write_text(
        f"""#!/bin/sh
if [ $3 = b ]; then touch {made}; {waits[b_ends]}; exit 0; fi
while ! [ -e {tmp_path}/ready ]; do sleep 0.05; done; sleep 0.1; exit {status}
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    monkeypatch.setattr("lrm_safety.lab.study.run.POLL_SECONDS", 5.0)
    steps = [Step("a", ("a",), tmp_path / "a.made"), Step("b", ("b",), made)]
    with pytest.raises(error):
        run(tmp_path, steps, concurrency=2)
    assert set(StepRecord(tmp_path).done) == {"b"}


@pytest.mark.parametrize(("concurrency", "ends"), [(1, ["a", "b", "c"]), (2, ["b", "a", "c"])])
def test_a_step_waits_for_what_it_needs_and_for_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, concurrency: int, ends: list[str]
) -> None:
    """Step a ends after b has, where b runs beside it; where it does not, a gives up waiting. c needs both."""
    program, told = tmp_path / "python", tmp_path / "told"
    program.write_text(
        f"""#!/bin/sh
name=$3; echo "<$name" >> {told}
if [ $name = a ]; then for _ in $(seq {100 if concurrency > 1 else 1}); do grep -q ">b" {told} && break; sleep 0.1; done; fi
touch {tmp_path}/$name.made; echo ">$name" >> {told}
"""
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    needed = {"a": (), "b": (), "c": ("a", "b")}
    steps = [Step(name, (name,), tmp_path / f"{name}.made", needs) for name, needs in needed.items()]
    shown = run(tmp_path, steps, concurrency=concurrency)
    assert [line[1] for line in told.read_text().splitlines() if line[0] == ">"] == ends
    assert told.read_text().endswith("<c\n>c\n")
    assert [line[:7] for line in shown.splitlines()] == ["[1/3] a", "[2/3] b", "[3/3] c"]
    assert set(StepRecord(tmp_path).done) == set(needed)


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    with inherited_lock(tmp_path), pytest.raises(ConfigError, match="is still running there"), inherited_lock(tmp_path):
        pass
    with inherited_lock(tmp_path):
        pass


def test_other_settings_need_another_folder(tmp_path: Path) -> None:
    record = StepRecord(tmp_path)
    record.add("show, seed 0", "one")
    StepRecord(tmp_path).match({"show, seed 0": "one", "show, seed 1": "new"})
    made = r"step `show, seed 0` was made by other settings, or by an earlier version; choose another run\.name"
    with pytest.raises(ConfigError, match=made):
        StepRecord(tmp_path).match({"show, seed 0": "other"})
    assert (
        fingerprint_of({"a": 1, "b": [2]}) == fingerprint_of({"b": [2], "a": 1}) != fingerprint_of({"a": 1, "b": [3]})
    )


def test_a_broken_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text(json.dumps({"show": "x"})[:-3])
    with pytest.raises(ConfigError, match=r"steps\.json: cannot be read.*; delete it"):
        StepRecord(tmp_path)
