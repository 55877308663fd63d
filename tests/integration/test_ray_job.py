"""Jobs on a real Ray cluster of this machine: exit codes, logs, and whose code runs."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

START_SECONDS = 120
RAY = str(Path(sys.executable).parent / "ray")


def free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


@pytest.fixture(scope="module", params=["disabled", "token"])
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and variables of a cluster without, and of one with token authentication."""
    port, dashboard, client, agent = free_ports(4)  # its own: other clusters may run on this machine
    # Jobs find `lrm-safety` where the cluster's processes do.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = {"RAY_AUTH_MODE": request.param, "PATH": path}
    if request.param == "token":
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    # Ray puts sockets there, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}", "--num-cpus=1"]
    command += [f"--dashboard-port={dashboard}", f"--temp-dir={folder}", f"--ray-client-server-port={client}"]
    command += [f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]
    address = f"http://127.0.0.1:{dashboard}"
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        ready = [RAY, "job", "list", "--address", address]
        while subprocess.run(ready, env=os.environ | variables, capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "start.log").read_text()
            time.sleep(1)
        yield address, variables
    finally:
        # Never `ray stop`, which ends every Ray of the machine.
        everything = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in reversed(everything):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everything, timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def launch(root: Path, address: str, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "launchers/ray_job.py", "--address", address, *arguments]
    return subprocess.run(command, cwd=root, env=os.environ | variables, capture_output=True, text=True, timeout=180)


def test_jobs_print_their_log_and_return_their_exit_code(
    repository_root: Path, cluster: tuple[str, dict[str, str]]
) -> None:
    address, variables = cluster
    key = secrets.token_hex(8)
    done = launch(repository_root, address, variables | {"WANDB_API_KEY": key}, "help")
    assert done.returncode == 0, done.stderr
    assert "usage: lrm-safety COMMAND" in done.stdout
    assert key not in done.stdout + done.stderr

    failed = launch(repository_root, address, variables, "train", "experiment=no such experiment")
    assert failed.returncode == 1
    assert "no such experiment" in failed.stdout

    assert re.fullmatch(r"job raysubmit_\w+ failed with exit code 1", failed.stderr.splitlines()[-1])

    left = launch(repository_root, address, variables, "--no-wait", "help")
    assert left.returncode == 0
    assert re.search(r"submitted raysubmit_\w+: lrm-safety help", left.stdout)


def test_the_code_of_the_checkout_runs_not_the_installed_one(
    repository_root: Path, cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, variables = cluster
    (tmp_path / "conf").mkdir()
    (tmp_path / "lrm_safety").mkdir()
    (tmp_path / "lrm_safety/__init__.py").touch()
    (tmp_path / "lrm_safety/cli.py").write_text("def main():\n    print('other code')\n    return 7\n")
    ran = launch(repository_root, address, variables, "--working-dir", str(tmp_path), "train")
    assert "other code" in ran.stdout
    assert ran.returncode == 7


def test_a_missing_token_is_one_line(repository_root: Path, cluster: tuple[str, dict[str, str]]) -> None:
    address, variables = cluster
    if variables["RAY_AUTH_MODE"] == "disabled":
        pytest.skip("this cluster asks for none")
    refused = launch(repository_root, address, {"RAY_AUTH_MODE": "disabled"}, "help")
    assert refused.returncode == 1
    assert "wants its token" in refused.stderr and len(refused.stderr.splitlines()) == 1
