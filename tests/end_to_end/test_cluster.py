"""A run as a Ray job on a cluster that somebody else started: the same run as on one machine."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from ray_head import RAY, Head, ray_head
from running import COMMAND_SECONDS, REPEATED, assert_same_run, checkpoints

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with ray_head({}, num_cpus=4) as head:
        yield head


def run_in(cluster: Head, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, env=cluster.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )


def test_jobs_on_a_cluster_are_the_run_of_one_machine(
    cluster: Head, repository_root: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """The first job, by `lrm-safety submit`, stops after two updates; the second, by Ray's own, finishes the run."""
    run = tmp_path / "run"
    overrides = ["train", *REPEATED, "seed=0", f"run.directory={run}"]
    launcher = [sys.executable, "-m", "lrm_safety", "submit", "--address", cluster.dashboard, "--"]
    first = run_in(cluster, [*launcher, *overrides, "schedule.stop_after_updates=2"], repository_root)
    assert first.returncode == 0, first.stdout + first.stderr
    assert checkpoints(run) == ["update-000002"]

    submit = [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", str(repository_root), "--"]
    second = run_in(cluster, [*submit, "lrm-safety", *overrides], tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "resumed from update 2" in second.stdout
    assert_same_run(run, uninterrupted)

    # The jobs gave everything back: no actor lives on, and the cluster still works.
    deadline = time.monotonic() + 60
    while left := actors(cluster):
        assert time.monotonic() < deadline, left
        time.sleep(1)
    assert cluster.process.poll() is None


def actors(cluster: Head) -> list[str]:
    """Our workers that are still alive on the cluster."""
    titles = []
    for child in cluster.children():
        try:
            titles.append((child.cmdline() or [""])[0])
        except psutil.NoSuchProcess:
            continue
    return [title for title in titles if title.startswith("ray::") and "Worker" in title]
