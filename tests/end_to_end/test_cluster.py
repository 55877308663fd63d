"""A run as a Ray job on a cluster that somebody else started: the same run as on one machine."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from running import COMMAND_SECONDS, REPEATED, assert_same_run, checkpoints, own_environment

pytestmark = pytest.mark.timeout(900)

RAY = str(Path(sys.executable).parent / "ray")
START_SECONDS = 120


@dataclass
class Cluster:
    """A head node of this machine, started by `ray start`."""

    process: subprocess.Popen[bytes]
    dashboard: str
    environment: dict[str, str]

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def run(self, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            arguments, cwd=folder, env=self.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
        )


def free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    port, dashboard, client, agent = free_ports(4)
    # Ray puts sockets there, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**own_environment(), "RAY_AUTH_MODE": "disabled", "PATH": path}
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=4"]
    command += [f"--dashboard-port={dashboard}", f"--temp-dir={folder}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{dashboard}"
    started = Cluster(process, address, environment)
    try:
        deadline = time.monotonic() + START_SECONDS
        while subprocess.run(
            [RAY, "job", "list", "--address", address], env=environment, capture_output=True
        ).returncode:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "start.log").read_text()
            time.sleep(1)
        yield started
    finally:
        # Never `ray stop`, which ends every Ray of the machine.
        everything = [*started.children(), psutil.Process(process.pid)]
        for one in reversed(everything):
            if one.is_running():
                one.kill()
        psutil.wait_procs(everything, timeout=30)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def test_jobs_on_a_cluster_are_the_run_of_one_machine(
    cluster: Cluster, repository_root: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """The first job, by our launcher, stops after two updates; the second, by Ray's own, finishes the run."""
    run = tmp_path / "run"
    overrides = ["train", *REPEATED, "seed=0", f"run.directory={run}"]
    launcher = [sys.executable, "launchers/ray_job.py", "--address", cluster.dashboard]
    first = cluster.run([*launcher, *overrides, "schedule.stop_after_updates=2"], repository_root)
    assert first.returncode == 0, first.stdout + first.stderr
    assert checkpoints(run) == ["update-000002"]

    submit = [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", str(repository_root), "--"]
    second = cluster.run([*submit, "lrm-safety", *overrides], tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "resumed from update 2" in second.stdout
    assert_same_run(run, uninterrupted)

    # The jobs gave everything back: no actor lives on, and the cluster still works.
    deadline = time.monotonic() + 60
    while left := actors(cluster):
        assert time.monotonic() < deadline, left
        time.sleep(1)
    assert cluster.process.poll() is None


def actors(cluster: Cluster) -> list[str]:
    """Our workers that are still alive on the cluster."""
    titles = []
    for child in cluster.children():
        try:
            titles.append((child.cmdline() or [""])[0])
        except psutil.NoSuchProcess:
            continue
    return [title for title in titles if title.startswith("ray::") and "Worker" in title]
