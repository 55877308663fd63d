"""A run whose engines sample ahead is stopped, killed, and loses an engine with requests under way: no batch is lost."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Command, all_metric_lines, checkpoints

from lrm_safety.batch_record import problems
from lrm_safety.settings import AlgorithmSettings

pytestmark = pytest.mark.timeout(1800)

ALGORITHM = AlgorithmSettings(rollout_batch_size=16, mini_batch_size=8, max_staleness=1)
TRAIN = (
    "train",
    *TINY,
    "algorithm.max_staleness=1",
    "schedule.max_updates=16",
    "evaluation.every_updates=4",
    *(f"evaluation.benchmarks.{name}.limit=4" for name in ("safety", "arithmetic", "benign")),
    "run.directory=run",
)


def test_no_prompt_is_lost_or_learned_from_twice(command: Callable[..., Command], tmp_path: Path) -> None:
    run = tmp_path / "run"

    def reaches(started: Command, update: int) -> None:
        started.wait_until(lambda: f"update {update}/16" in started.stdout, 600)

    terminated = command(*TRAIN, "checkpoint.every_updates=0")
    reaches(terminated, 4)
    terminated.children()
    terminated.signal(signal.SIGTERM)
    assert terminated.wait(300) == 143, terminated.output
    assert "Traceback" not in terminated.output and terminated.survivors() == []
    saved = int(checkpoints(run)[-1].removeprefix("update-"))
    assert saved >= 4

    killed = command(*TRAIN)
    reaches(killed, saved + 4)
    killed.children()
    killed.signal(signal.SIGKILL)
    killed.wait(30)

    last = command(*TRAIN)
    reaches(last, saved + 6)
    engine = last.wait_until(lambda: last.worker("ContinuousWorker"), 30)
    last.children()
    os.kill(engine.pid, signal.SIGKILL)
    assert last.wait(900) == 0, last.output
    assert "rollout engine 0 died and is replaced" in last.stdout
    assert last.survivors() == []

    state = json.loads((run / "checkpoints" / checkpoints(run)[-1] / "state.json").read_text())["prompt_source"]
    found = list(problems(run, ALGORITHM, state["num_prompts"], state["seed"], updates=16))
    assert found == []
    lines = all_metric_lines(run)
    assert [line["update"] for line in lines if "evaluation/safety" in line] == [0, 4, 8, 12, 16]
    ages = [line["rollout/version_lag_mean"] for line in lines if "rollout/version_lag_mean" in line]
    assert ages[0] == 0 and max(ages) > 0.5, "the engines never sampled ahead"
