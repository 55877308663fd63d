"""Runs of the command line in processes of their own, as a user starts them, and what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from child_environment import child_environment
from safetensors.torch import load_file

from lrm_safety.settings.paths import configuration_directory

COMMAND_SECONDS = 300
"""Limit of one command; generous, since a loaded machine starts Ray and vLLM several times slower."""
TINY = (
    "experiment=miniature",
    "algorithm.rollout_batch_size=16",
    "algorithm.mini_batch_size=8",
    "rollout.max_response_tokens=64",
    "rollout.stream_chunk_size=8",
    "trainer.lr=3e-4",
    "evaluation.every_updates=0",
    "checkpoint.best_metric=null",
    "checkpoint.every_updates=2",
    "tracking.console=plain",
)
"""A run of two updates an iteration, in seconds besides its start."""
REPEATED = (
    *TINY,
    "schedule.max_updates=10",
    "tracking.wandb=offline",
    "tracking.log_text=true",
    "tracking.diagnosis_min_records=2",
)
"""The run that is interrupted in every way; its end must not depend on that."""


class Command:
    """`lrm-safety ARGUMENTS` in its own process group, with stdout and stderr in files; `prefix` is a command that starts it."""

    def __init__(
        self, folder: Path, arguments: Sequence[str], *, prefix: Sequence[str] = (), **environment: str
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.stdout")))
        self._files = (folder / f"{number}.stdout", folder / f"{number}.stderr")
        self.began = time.monotonic()
        with self._files[0].open("wb") as out, self._files[1].open("wb") as err:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-m", "lrm_safety", *arguments],
                cwd=folder,
                env={**child_environment(), **environment},
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._seen: dict[int, psutil.Process] = {}

    @property
    def stdout(self) -> str:
        return self._files[0].read_text()

    @property
    def stderr(self) -> str:
        return self._files[1].read_text()

    @property
    def output(self) -> str:
        """Both, for messages of failed assertions."""
        return f"{self.stdout}\n--- stderr ---\n{self.stderr}"

    @property
    def error_lines(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("error:")]

    def wait(self, seconds: float = COMMAND_SECONDS) -> int:
        """The exit status; a negative number is the signal that ended the process."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"not finished after {seconds} s:\n{self.output}")

    def wait_until(self, condition: Callable[[], Any], seconds: float = COMMAND_SECONDS) -> Any:
        """The first true value of `condition`, asked ten times a second while the command runs."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if value := condition():
                return value
            if self.process.poll() is not None:
                pytest.fail(f"ended too early with {self.process.returncode}:\n{self.output}")
            time.sleep(0.1)
        pytest.fail(f"{condition} stayed false for {seconds} s:\n{self.output}")

    def children(self) -> list[psutil.Process]:
        """Every process below the command at this moment; remembered for `survivors`."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            found = []
        self._seen |= {process.pid: process for process in found}
        return found

    def worker(self, name: str) -> psutil.Process | None:
        """A process that Ray calls `ray::NAME...`, for instance the actor class PolicyWorker."""
        for process in self.children():
            try:
                if any(part.startswith(f"ray::{name}") for part in process.cmdline()):
                    return process
            except psutil.NoSuchProcess:
                continue
        return None

    def survivors(self, seconds: float = 60.0) -> list[str]:
        """Processes once seen below the command that are still there after so long."""
        _, alive = psutil.wait_procs(list(self._seen.values()), timeout=seconds)
        return [f"{process.pid} {process.name()}" for process in alive if process.status() != psutil.STATUS_ZOMBIE]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the command alone, as a scheduler does."""
        os.kill(self.process.pid, number)

    def close(self) -> None:
        """Leave nothing running, whatever the test found."""
        self.children()
        for process in self._seen.values():
            with contextlib.suppress(psutil.NoSuchProcess):  # is_running() guards against a reused pid
                if process.is_running():
                    process.kill()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)


class Sweep:
    """A finished multirun."""

    def __init__(self, directory: Path, status: int, output: str, sightings: list[list[tuple[int, str]]]) -> None:
        self.directory, self.status, self.output = directory, status, output
        self.sightings = [{(pid, name) for pid, name in one} for one in sightings]

    def run(self, seed: int) -> Path:
        """The folder of one of its runs."""
        return self.directory / f"seed-{seed}"


def title(process: psutil.Process) -> str:
    try:
        return (process.cmdline() or [""])[0]
    except psutil.NoSuchProcess:
        return ""


def is_forked(process: psutil.Process) -> bool:
    """Whether it has its parent's name: a worker or raylet that starts a program is two of one name until the program runs."""
    try:
        parent = process.parent()
    except psutil.NoSuchProcess:
        return False
    name = title(process)
    return parent is not None and name == title(parent) and (name.startswith("ray::") or name.endswith("/raylet"))


def checkpoints(run: Path) -> list[str]:
    """Names of the checkpoints in place."""
    return sorted(path.name for path in run.glob("checkpoints/update-*"))


def all_metric_lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def metric_lines(run: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the machine's speed or on having been interrupted."""
    ignored = ("time", "speed/", "memory/", "run/")
    lines = all_metric_lines(run)
    return [{name: value for name, value in line.items() if not name.startswith(ignored)} for line in lines]


def rollout_hashes(run: Path) -> dict[str, list[tuple[int, str, str]]]:
    """(request, prompt, response) of every sampled rollout, by file."""
    return {
        path.name: [
            (row["request_id"], row["prompt_hash"], row["response_hash"])
            for row in map(json.loads, path.read_text().splitlines())
        ]
        for path in sorted(run.glob("rollouts/update-*.jsonl"))
    }


def assert_same_weights(run: Path, other: Path) -> None:
    """Both exports hold the same tensors to the last bit."""
    one, two = (load_file(folder / "export" / "model.safetensors") for folder in (run, other))
    assert one.keys() == two.keys()
    differing = [name for name in one if not torch.equal(one[name], two[name])]
    assert not differing, f"{len(differing)} of {len(one)} tensors differ, such as {differing[:3]}"


def assert_same_run(run: Path, other: Path) -> None:
    """Weights, metrics, findings and samples are the same to the last bit."""
    assert_same_weights(run, other)
    assert metric_lines(run) == metric_lines(other)
    assert (run / "findings.jsonl").read_text() == (other / "findings.jsonl").read_text()
    assert rollout_hashes(run) == rollout_hashes(other) != {}


def write_traces(folder: Path) -> Path:
    """The miniature's forbidden prompts, each with a trace that plans to refuse and an answer that does."""
    prompts = configuration_directory().parent / "lrm_safety" / "miniature" / "assets" / "prompts" / "train.jsonl"
    rows = [row for row in map(json.loads, prompts.read_text().splitlines()) if row["kind"] == "forbidden"][:64]
    for row in rows:
        row["response"] = "<think>\nThe rules forbid it.\nPlan: refuse.\n</think>\n\nI can not help with that."
    path = folder / "traces.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
