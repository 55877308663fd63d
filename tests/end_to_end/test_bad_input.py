"""Every mistake a user can make ends in one line that names the key or the file, without a traceback and without Ray."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import ray
from running import REPEATED, TINY, Command
from test_runs import ASSETS

from lrm_safety.cli import main

SECONDS = 15
"""Even a loaded machine names a mistake within so long; starting Ray and the models alone takes longer."""


@pytest.fixture
def refuse(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Run a command that must fail, in this process; returns its one error line."""
    monkeypatch.chdir(tmp_path)
    had_ray = ray.is_initialized()

    def run(*arguments: str) -> str:
        began = time.monotonic()
        status = main(["train", *arguments])
        output = capfd.readouterr()
        assert time.monotonic() - began < SECONDS
        assert status == 1
        assert ray.is_initialized() == had_ray
        assert "Traceback" not in output.out + output.err
        lines = [line for line in output.err.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, output.err
        return lines[0]

    return run


MINIATURE = "experiment=miniature"
CASES = {
    "unknown key": ([MINIATURE, "trainer.learning_rate=1"], ["trainer.learning_rate", "trainer.lr"]),
    "mistyped value": ([MINIATURE, "trainer.lr=fast"], ["trainer.lr", "fast"]),
    "out of range": ([MINIATURE, "algorithm.gamma=1.5"], ["algorithm.gamma=1.5", "at most 1"]),
    "unknown choice": ([MINIATURE, "algorithm.baseline=mean"], ["algorithm.baseline=mean", "group_mean"]),
    "unknown experiment": (["experiment=miniatur"], ["conf/experiment/miniatur", "did you mean miniature?"]),
    "nothing chosen": ([], ["nothing chosen", "experiment=miniature"]),
    "k1 in the loss": (
        [MINIATURE, "algorithm.kl.placement=loss", "algorithm.kl.estimator=k1"],
        ["algorithm.kl.estimator=k1", "k2 or k3"],
    ),
    "mini-batch that does not divide": (
        [MINIATURE, "algorithm.mini_batch_size=24"],
        ["algorithm.mini_batch_size=24", "divide"],
    ),
    "more prompts than there are": (
        [MINIATURE, "algorithm.rollout_batch_size=1024", "algorithm.mini_batch_size=512"],
        ["algorithm.rollout_batch_size=1024", "800 prompts", "train.jsonl"],
    ),
    "no such model": ([MINIATURE, "model.path=./absent"], ["model.path=./absent", "no such file or folder"]),
    "no such model on the hub": ([MINIATURE, "model.path=nobody/absent"], ["nobody/absent"]),
    "no such data": ([MINIATURE, "data.path=absent.jsonl"], ["data.path=absent.jsonl"]),
    "a file where the run's folder belongs": (
        [MINIATURE, f"run.directory={ASSETS / 'build.json'}"],
        ["run.directory=", "build.json", "cannot be written"],
    ),
    "prompt over the limit": (
        [MINIATURE, "rollout.max_prompt_tokens=8"],
        ["rollout.max_prompt_tokens=8", "train.jsonl", "row 1"],
    ),
    "reward that cannot be imported": (
        ["reward=python_example", MINIATURE, "++reward.models.function.function=no_such_module:score"],
        ["reward.models.function.function=no_such_module:score", "PYTHONPATH"],
    ),
    "info of a sweep": (["-m", MINIATURE, "seed=0,1", "--info", "defaults"], ["--info", "-m"]),
    "one bad run of a sweep": (["-m", MINIATURE, "seed=0,1", "algorithm.gamma=1,2"], ["algorithm.gamma=2"]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_named(refuse: Callable[..., str], name: str) -> None:
    arguments, expected = CASES[name]
    line = refuse(*arguments)
    for part in expected:
        assert part in line


def test_a_torn_model_is_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(ASSETS / "policy", model)
    weights = model / "model.safetensors"
    with weights.open("r+b") as file:
        file.truncate(weights.stat().st_size // 2)
    line = refuse(MINIATURE, "model.path=model")
    assert str(weights) in line and "torn" in line


def test_data_with_a_broken_row_is_named(refuse: Callable[..., str], tmp_path: Path) -> None:
    rows = [json.dumps({"id": str(i), "question": f"question {i}"}) for i in range(20)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows)[:-9] + "\n")
    line = refuse(MINIATURE, "data.path=data.jsonl")
    assert "data.jsonl" in line and "line 20" in line


@pytest.fixture
def with_checkpoints(uninterrupted: Path, tmp_path: Path) -> tuple[str, ...]:
    """The finished run in a folder of the test's own, and the command that made it."""
    shutil.copytree(uninterrupted, tmp_path / "run")
    return (*REPEATED, "seed=0", "run.directory=run")


CHANGES = {
    "learning rate": (["trainer.lr=1e-5"], ["trainer.lr: 0.0003 -> 1e-05"]),
    "algorithm": (["algorithm.gamma=0.9"], ["algorithm.gamma: 1 -> 0.9"]),
    "model": (["model.path={other_model}"], ["model.path: ", "other_model"]),
    "data": (["data.path=other.jsonl"], ["data.path: ", "other.jsonl", "data_fingerprint: "]),
    "seed": (["seed=5"], ["seed: 0 -> 5"]),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", CHANGES)
def test_a_checkpoint_of_another_run_is_refused(
    refuse: Callable[..., str], with_checkpoints: tuple[str, ...], tmp_path: Path, name: str
) -> None:
    shutil.copytree(ASSETS / "policy", tmp_path / "other_model")
    rows = (ASSETS / "prompts" / "train.jsonl").read_text().splitlines()
    (tmp_path / "other.jsonl").write_text("\n".join(rows[:100]) + "\n")
    changes, expected = CHANGES[name]
    line = refuse(*with_checkpoints, *(change.format(other_model="other_model") for change in changes))
    for part in (*expected, "checkpoint.allow_changes=true", "update-000010"):
        assert part in line


def test_data_that_changed_under_its_name_is_refused(refuse: Callable[..., str], tmp_path: Path) -> None:
    """The path is the same, the rows are not: only the fingerprint tells."""
    from lrm_safety.checkpoints import CheckpointStore
    from lrm_safety.preparation import prepare
    from lrm_safety.settings.compose import compose_settings

    data = tmp_path / "data.jsonl"
    rows = (ASSETS / "prompts" / "train.jsonl").read_text().splitlines()
    data.write_text("\n".join(rows[:64]) + "\n")
    arguments = [*TINY, "data.path=data.jsonl", "run.directory=run", "schedule.max_updates=6"]
    run = prepare(compose_settings(arguments)[0], tmp_path / "run")
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    store.commit(store.begin(2), 2, state={}, config=run.identity, data_fingerprint=run.prompts.fingerprint)
    data.write_text("\n".join(rows[64:128]) + "\n")
    line = refuse(*arguments)
    assert "data_fingerprint: " in line and "data.path: " not in line


@pytest.mark.timeout(900)
def test_resume_never_refuses_a_used_folder(refuse: Callable[..., str], with_checkpoints: tuple[str, ...]) -> None:
    line = refuse(*with_checkpoints, "checkpoint.resume=never")
    assert "checkpoint.resume=never" in line and "update-000010" in line and "run.name" in line


def test_the_status_of_the_process_tells(command: Callable[..., Command]) -> None:
    started = command("train", MINIATURE, "trainer.learning_rate=1")
    assert started.wait() == 1
    assert started.stderr.startswith("error: unknown key") and len(started.stderr.splitlines()) == 1
    assert command("tain").wait() == 2


def test_a_reward_that_is_not_a_number_stops_the_run_and_saves_its_rollouts(
    command: Callable[..., Command], tmp_path: Path
) -> None:
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "spoiled_reward.py").write_text(
        "calls = []\n"
        "def score(conversations):\n"
        "    calls.append(len(conversations))\n"
        "    return [float('nan') if len(calls) > 2 else 1.0 for _ in conversations]\n"
    )
    started = command(
        "train",
        *TINY,
        "reward=python_example",
        "++reward.models.function.function=spoiled_reward:score",
        "tracking.wandb=disabled",
        "tracking.log_text=false",
        "schedule.max_updates=6",
        "algorithm.kl.placement=none",
        "cluster.policy.num_workers=1",
        "run.directory=run",
        PYTHONPATH=str(tmp_path / "modules"),
    )
    assert started.wait() == 1, started.output
    assert len(started.error_lines) == 1 and "Traceback" not in started.output
    assert "reward.models.function.function=spoiled_reward:score" in started.error_lines[0]
    assert "nan" in started.error_lines[0]
    # Two chunks make an iteration, so the first iteration was learned from and the second was not.
    (file,) = (tmp_path / "run" / "rollouts").glob("offending-*.jsonl")
    assert file.name == "offending-000002.jsonl" and str(file.name) in started.stdout
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["request_id"] for row in rows] == list(range(16))
    assert all(row["response_ids"] and row["prompt_ids"] for row in rows)
    assert not any("trace" in row or "answer" in row for row in rows), "text is private unless tracking.log_text is on"
    assert started.survivors() == []


def test_a_reward_function_that_raises_is_told_with_its_file_and_line(
    command: Callable[..., Command], tmp_path: Path
) -> None:
    """Out of a worker, an actor of Ray."""
    (tmp_path / "mine.py").write_text("def length(conversations):\n    return [one.tracee for one in conversations]\n")
    started = command(
        "train",
        *TINY,
        "reward=python_example",
        "++reward.models.function.function=mine:length",
        "tracking.wandb=disabled",
        "schedule.max_updates=6",
        "algorithm.kl.placement=none",
        "cluster.policy.num_workers=1",
        "run.directory=run",
    )
    assert started.wait() == 1, started.output
    lines = started.stderr[started.stderr.index("error: ") :].splitlines()
    assert "AttributeError: 'Conversation' object has no attribute 'tracee'" in lines[0]
    assert "mine.py:2 in length: return [one.tracee for one in conversations]" in started.stderr
    assert lines[-1] == "the whole traceback: run/error.txt" and "Traceback" not in started.output
    assert 'mine.py", line 2, in length' in (tmp_path / "run" / "error.txt").read_text()
    (start,) = json.loads((tmp_path / "run" / "environment.json").read_text())["starts"]
    assert start["exit_status"] == 1 and start["ended"] >= start["started"]
    assert {*chain(*start["hosts"].values())} == {os.uname().nodename}
