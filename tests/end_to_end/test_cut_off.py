"""A run that over-samples on two engines is killed and goes on: every prompt is learned from once, by new enough weights."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Command, all_metric_lines, checkpoints

from lrm_safety.batch_record import problems
from lrm_safety.settings import AlgorithmSettings

pytestmark = pytest.mark.timeout(1800)


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_what_was_cut_off_is_learned_from_once(
    command: Callable[..., Command], tmp_path: Path, max_staleness: int
) -> None:
    """16 of 24 prompts are a batch, in 2 updates."""
    run = tmp_path / "run"
    arguments = (
        "train",
        *TINY,
        f"algorithm.max_staleness={max_staleness}",
        "algorithm.oversampling=1.5",
        "rollout.dispatch=as_slots_free",
        "rollout.max_num_seqs=8",
        "rollout.max_num_batched_tokens=256",
        "cluster.rollout.num_workers=2",
        "cluster.policy.num_workers=1",
        "schedule.max_updates=12",
        "run.directory=run",
    )
    killed = command(*arguments)
    killed.wait_until(lambda: "update 6/12" in killed.stdout, 900)
    killed.children()
    killed.signal(signal.SIGKILL)
    killed.wait(30)

    last = command(*arguments)
    assert last.wait(900) == 0, last.output
    assert last.survivors() == []
    state = json.loads((run / "checkpoints" / checkpoints(run)[-1] / "state.json").read_text())["prompt_source"]
    assert len(state["carried"]) == 8
    algorithm = AlgorithmSettings(
        rollout_batch_size=16, mini_batch_size=8, max_staleness=max_staleness, oversampling=1.5
    )
    assert list(problems(run, algorithm, state["num_prompts"], state["seed"], updates=12)) == []
    lines = [line for line in all_metric_lines(run) if "train/loss" in line]
    assert [line["update"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert {line["rollout/num_cut"] for line in lines} == {8.0}
    late = [line["rollout/late_fraction"] for line in lines]
    assert late[0] == 0 and late[1:] == [0.5] * 5, "8 are left over each time, and have no more than one batch to come"
    if max_staleness:
        assert all("rollout/dropped_tokens" not in line for line in lines)
        assert max(line["rollout/stale_fraction"] for line in lines) > 0
    else:
        assert {line["rollout/version_lag"] for line in lines} == {0}
        assert all(0 <= line["rollout/dropped_tokens"] <= 8 * 64 for line in lines)
        assert max(line["rollout/dropped_tokens"] for line in lines) > 0
