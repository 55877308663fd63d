"""However a run is interrupted, the same command goes on and ends where an uninterrupted run ends, to the last bit."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import REPEATED, Command, assert_same_run, checkpoints, title

from lrm_safety.weight_sync.shm import SHARED_MEMORY

pytestmark = pytest.mark.timeout(900)

TRAIN = ("train", *REPEATED, "seed=0", "run.directory=run")


def published_folders() -> dict[str, bool]:
    """Weights in shared memory by the process they belong to, with whether it lives."""
    names = (folder.name.rpartition("-")[2] for folder in SHARED_MEMORY.glob("lrm_safety-*"))
    return {name: psutil.pid_exists(int(name)) for name in names if name.isdigit()}


def test_whatever_interrupts_a_run_changes_nothing(
    command: Callable[..., Command], tmp_path: Path, uninterrupted: Path
) -> None:
    """One run through every interruption: it loses a trainer, gets SIGTERM, gets SIGKILL, restarts itself after a trainer hung.

    A stop at a chosen update and its resume are part of test_cluster.py.
    """
    run = tmp_path / "run"

    def last() -> int:
        return int(checkpoints(run)[-1].removeprefix("update-"))

    crippled = command(*TRAIN)
    crippled.wait_until(lambda: checkpoints(run))
    kill_a_rank(crippled)
    began = time.monotonic()
    assert crippled.wait() == 1, crippled.output
    assert time.monotonic() - began < 60, "the death was noticed by a time-out only"
    assert len(crippled.error_lines) == 1
    assert "policy worker" in crippled.error_lines[0] and "died" in crippled.error_lines[0]
    assert "Traceback" not in crippled.output
    assert crippled.survivors() == []

    # No checkpoint of its own accord: the one that is found afterwards was written because of the signal.
    before = last()
    terminated = command(*TRAIN, "checkpoint.every_updates=0")
    terminated.wait_until(lambda: f"update {before + 2}/10" in terminated.stdout)
    terminated.children()
    terminated.signal(signal.SIGTERM)
    assert terminated.wait(120) == 143, terminated.output
    assert "stopped by SIGTERM" in terminated.stderr
    assert "Traceback" not in terminated.output
    saved = last()
    assert saved > before
    assert terminated.survivors() == []

    killed = command(*TRAIN)
    killed.wait_until(lambda: f"resumed from update {saved}" in killed.stdout)
    delay = random.random()
    time.sleep(delay)
    workers = [child for child in killed.children() if "Worker" in title(child)]
    assert len(workers) == 5
    killed.signal(signal.SIGKILL)
    killed.wait(30)
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == [], f"killed {delay:.2f} s after the resume"

    once = ("trainer.max_restarts=1", "trainer.restart_pause_seconds=1", "cluster.silent_seconds=5")
    restarted = command(*TRAIN, *once, "run.profile_updates=[10]")
    restarted.wait_until(lambda: "resumed from update" in restarted.stdout)
    stop_a_rank(restarted)
    assert restarted.wait() == 0, restarted.output
    said = re.search(
        r"policy worker (\d) hung and was killed: no heartbeat .*; stacks of all workers in (\S+); restart 1 of 1",
        restarted.stdout,
    )
    assert said, restarted.stdout
    stacks = {file.name: file.read_text() for file in Path(said[2]).iterdir()}
    groups = {"policy-0", "policy-1", "rollout-0", "reward-0", "reference-0", "workers", "controller"}
    assert stacks.keys() == {f"{name}.txt" for name in groups}
    assert "is stopped" in stacks[f"policy-{said[1]}.txt"]
    assert restarted.survivors() == []
    assert_same_run(run, uninterrupted)
    assert_profiled(run / "profile")
    assert not (uninterrupted / "profile").exists()
    assert not any(run.glob("checkpoints/.*"))
    # Every process wrote a file of its own under the id of the first one's W&B run.
    files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
    assert len(files) == 4
    assert len({file.name for file in files}) == 1
    # Two agents of Ray's own wait a minute for a killed cluster's server before they end.
    assert killed.survivors(120) == []
    left = published_folders()
    assert str(killed.process.pid) not in left and str(restarted.process.pid) not in left


def test_ctrl_c_while_models_load_ends_everything(command: Callable[..., Command], tmp_path: Path) -> None:
    started = command(*TRAIN)
    started.wait_until(lambda: started.worker("RolloutWorker.start"))
    started.children()
    started.signal(signal.SIGINT)
    assert started.wait(120) == 130, started.output
    assert "Traceback" not in started.output
    assert started.survivors() == []
    assert checkpoints(tmp_path / "run") == []


def assert_profiled(folder: Path) -> None:
    """Of the last iteration, which ended at update 10: operators of every rank and engine, and who was called for how long."""

    def events(name: str) -> list[dict[str, Any]]:
        read = json.loads(gzip.decompress((folder / f"update-000010-{name}.json.gz").read_bytes()))
        return read["traceEvents"] if isinstance(read, dict) else read

    assert len(list(folder.iterdir())) == 4
    operators = {"policy-0": "aten::mm", "policy-1": "aten::mm", "rollout-0": "vllm::unified_attention_with_output"}
    for name, operator in operators.items():
        assert any(one["name"] == operator for one in events(name)), name
    timeline = events("ray")
    rows = {one["tid"]: one["args"]["name"] for one in timeline if one["ph"] == "M"}
    calls = [(rows[one["tid"]], one["name"], one["ts"]) for one in timeline if one["ph"] == "X"]
    who = {(row, name) for row, name, _ in calls}
    assert set(rows.values()) == {"controller", "policy-0", "policy-1", "rollout-0", "reward-0", "reference-0"}
    wanted = {("rollout-0", "generate"), ("reward-0", "score"), ("reference-0", "logprobs")}
    wanted |= {(f"policy-{rank}", name) for rank in (0, 1) for name in ("logprobs", "update", "publish")}
    assert wanted <= who and ("policy-0", "start") not in who
    begins = {name: min(ts for _, one, ts in calls if one == name) for name in ("generate", "update")}
    assert begins["generate"] < begins["update"]


def kill_a_rank(started: Command) -> None:
    rank = started.wait_until(lambda: started.worker("PolicyWorker"), 30)
    started.children()
    os.kill(rank.pid, signal.SIGKILL)


def stop_a_rank(started: Command) -> None:
    rank = started.wait_until(lambda: started.worker("PolicyWorker"), 30)
    started.children()
    os.kill(rank.pid, signal.SIGSTOP)
