"""However a run is interrupted, the same command goes on and ends where an uninterrupted run ends, to the last bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from running import REPEATED, Command, assert_same_run, checkpoints, metric_lines, title

from lrm_safety.weight_sync.shm import SHARED_MEMORY

pytestmark = pytest.mark.timeout(900)

TRAIN = ("train", *REPEATED, "seed=0", "run.directory=run")


def published_folders() -> dict[str, bool]:
    """Weights in shared memory by the process they belong to, with whether it lives."""
    names = (folder.name.rpartition("-")[2] for folder in SHARED_MEMORY.glob("lrm_safety-*"))
    return {name: psutil.pid_exists(int(name)) for name in names if name.isdigit()}


def test_a_stop_and_a_resume_change_nothing(
    command: Callable[..., Command], tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    first = command(*TRAIN, "schedule.stop_after_updates=2")
    assert first.wait() == 0, first.output
    assert checkpoints(run) == ["update-000002"]
    assert metric_lines(run) == [line for line in metric_lines(uninterrupted) if line["update"] <= 2]
    second = command(*TRAIN)
    assert second.wait() == 0, second.output
    assert "resumed from update 2" in second.stdout
    assert_same_run(run, uninterrupted)
    # The second process wrote a file of its own under the id of the first one's W&B run.
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 2
    assert len({file.name for file in files}) == 1


def test_a_killed_controller_leaves_nothing_that_hinders_the_next(
    command: Callable[..., Command], tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    first = command(*TRAIN)
    first.wait_until(lambda: checkpoints(run))
    delay = random.random()  # two iterations of about a second each are left
    time.sleep(delay)
    workers = [child for child in first.children() if "Worker" in title(child)]
    assert len(workers) == 5
    killed = str(first.process.pid)
    first.signal(signal.SIGKILL)
    first.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == [], f"killed {delay:.2f} s after the first checkpoint"
    second = command(*TRAIN)
    assert second.wait() == 0, second.output
    assert second.survivors() == []
    assert_same_run(run, uninterrupted)
    assert not any(run.glob("checkpoints/.*"))
    # Two agents of Ray's own wait a minute for the dead cluster's server before they end.
    assert first.survivors(120) == []
    left = published_folders()
    assert killed not in left and str(second.process.pid) not in left


def test_sigterm_saves_and_the_next_command_goes_on(
    command: Callable[..., Command], tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    # No checkpoint of its own accord: the one that is found afterwards was written because of the signal.
    first = command(*TRAIN, "checkpoint.every_updates=0")
    first.wait_until(lambda: "update 2" in first.stdout or (run / "rollouts" / "update-000002.jsonl").exists())
    first.children()
    first.signal(signal.SIGTERM)
    assert first.wait(120) == 143, first.output
    assert "stopped by SIGTERM" in first.stderr
    assert "Traceback" not in first.output
    assert len(checkpoints(run)) == 1
    assert first.survivors() == []
    second = command(*TRAIN)
    assert second.wait() == 0, second.output
    assert_same_run(run, uninterrupted)


def test_ctrl_c_while_models_load_ends_everything(command: Callable[..., Command], tmp_path: Path) -> None:
    started = command(*TRAIN)
    started.wait_until(lambda: started.worker("RolloutWorker.start"))
    started.children()
    started.signal(signal.SIGINT)
    assert started.wait(120) == 130, started.output
    assert "Traceback" not in started.output
    assert started.survivors() == []
    assert checkpoints(tmp_path / "run") == []


def test_a_dead_trainer_rank_is_named_and_the_run_goes_on_from_its_checkpoint(
    command: Callable[..., Command], tmp_path: Path, uninterrupted: Path
) -> None:
    """Without restarts the run ends; with one it restarts itself. Both times the second rank dies."""
    run = tmp_path / "run"
    first = command(*TRAIN)
    first.wait_until(lambda: checkpoints(run))
    kill_a_rank(first)
    began = time.monotonic()
    assert first.wait() == 1, first.output
    assert time.monotonic() - began < 60, "the death was noticed by a time-out only"
    assert len(first.error_lines) == 1
    assert "policy worker" in first.error_lines[0] and "died" in first.error_lines[0]
    assert "Traceback" not in first.output
    assert first.survivors() == []
    assert len(checkpoints(run)) >= 1

    second = command(*TRAIN, "trainer.max_restarts=1")
    second.wait_until(lambda: "resumed from update" in second.stdout)
    kill_a_rank(second)
    assert second.wait() == 0, second.output
    assert "restart 1 of 1" in second.stdout
    assert second.survivors() == []
    assert_same_run(run, uninterrupted)


def kill_a_rank(started: Command) -> None:
    rank = started.wait_until(lambda: started.worker("PolicyWorker"), 30)
    started.children()
    os.kill(rank.pid, signal.SIGKILL)
