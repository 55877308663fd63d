"""A Ray cluster of one head node, for tests that submit jobs to it: ports of its own, since others may run on this machine."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from child_environment import child_environment

RAY = str(Path(sys.executable).parent / "ray")
START_SECONDS = 120


@dataclass
class Head:
    """A running head node, started by `ray start`."""

    process: subprocess.Popen[bytes]
    address: str
    """Of the control store: for `ray start` of further nodes, and for drivers."""
    dashboard: str
    agent: str
    """Of the node's own agent, whom Kubernetes asks for the node's health."""
    environment: dict[str, str]
    """What its processes were started with: clients need its RAY_AUTH_* too."""
    authentication: dict[str, str]
    """The RAY_AUTH_* among them."""
    folder: Path
    """Ray's session, logs included."""

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)


@contextmanager
def ray_head(variables: Mapping[str, str], num_cpus: int) -> Iterator[Head]:
    """The head node, ready for jobs; killed with everything below it at the end.

    It listens on the machine's outward address too, so it has a token of its own: without one whoever reaches the machine
    could run code while the tests do.
    """
    port, dashboard, client, agent = free_ports(4)
    # Ray puts sockets there, and the path of a socket must be short.
    folder = Path(tempfile.mkdtemp(prefix="ray-"))
    # Jobs find `lrm-safety` where the cluster's processes do.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    environment = {**child_environment(), "PATH": path, **authentication, **variables}
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={port}"]
    command += [f"--num-cpus={num_cpus}", f"--dashboard-port={dashboard}", f"--temp-dir={folder}"]
    command += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}", "--disable-usage-stats"]
    with (folder / "start.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    addresses = (f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{agent}")
    head = Head(process, *addresses, environment, authentication, folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        ready = [RAY, "job", "list", "--address", head.dashboard]
        while subprocess.run(ready, env=environment, capture_output=True).returncode:
            assert process.poll() is None and time.monotonic() < deadline, (folder / "start.log").read_text()
            time.sleep(1)
        yield head
    finally:
        # Never `ray stop`, which ends every Ray of the machine.
        everything = [*head.children(), psutil.Process(process.pid)]
        for one in reversed(everything):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everything, timeout=30)
        process.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    listeners = [socket.socket() for _ in range(count)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
