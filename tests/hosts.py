"""Hosts in namespaces of the kernel: machines of a cluster for tests, with an address, a name, processes, /dev/shm and a disk each.

    with Hosts(3) as hosts:
        hosts.start_ray([Node(1), Node(2, labels={"role": "train"}), Node(2)])
        done = hosts.submit(["lrm-safety", "train", *overrides, f"run.directory={hosts.shared}/run"], checkout)
        hosts[2].cut()     # its link goes down; `mend` brings it back
        hosts[1].vanish()  # all its processes end at once

Needs root: ask `why_not()` first and skip with what it says. Hosts reach each other, and nothing else; several clusters can live
at once, because a subnet is known only to its own hosts. `shared` is one folder for all, `local` the same path with a disk of
each host's own. Processes of all hosts are seen from outside by their outer ids (`Host.processes`), for who injects faults.

Everything is gone at the end: a host is a process namespace, which the kernel ends with its first process, and that one ends with
the thread that started it, also when it is killed. Only a folder may stay behind then, which the next `Hosts` removes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import psutil
from child_environment import child_environment

BIN = Path(sys.executable).parent
START_SECONDS = 120
FOLDER = "lrmh-"
"""Folders of clusters: this, then the process that made it. Short, since Ray's sockets lie below."""
INIT = "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); print(1, flush=True)\nwhile True: signal.pause()"
"""The first process of a host, which reaps what others leave."""


@dataclass(frozen=True)
class Node:
    """What a host offers to Ray."""

    num_cpus: int
    labels: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, float] = field(default_factory=dict)
    arguments: Sequence[str] = ()
    """Further arguments of `ray start`."""


def why_not() -> str | None:
    """Why no hosts can be made here; None: they can."""
    if os.geteuid():
        return "hosts in network namespaces need root"
    for tool in ("ip", "nsenter", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            return f"hosts in network namespaces need the program {tool} (Debian: iproute2, util-linux)"
    bridge = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "ip", "link", "add", "br0", "type", "bridge"]
    tried = subprocess.run(bridge, capture_output=True, text=True)
    return f"this kernel makes no network namespaces: {tried.stderr.strip()}" if tried.returncode else None


class Host:
    """One host of a cluster."""

    def __init__(self, cluster: Hosts, number: int) -> None:
        self.cluster, self.number = cluster, number
        self.name, self.address = f"node{number}", f"{cluster.subnet}.{number}"
        mounts = (
            f"hostname {self.name} && mount -t tmpfs -o size={cluster.shm} tmpfs /dev/shm && mount --bind "
            f"{cluster.folder}/hosts /etc/hosts && mount -t tmpfs tmpfs {cluster.local} && ip link set lo up"
        )
        self._first, self.pid = _hold("--mount", "--uts", "--pid", "--mount-proc", setup=mounts)
        cluster.switch(f"ip link add {self.name} type veth peer name eth0 netns {self.pid}")
        cluster.switch(f"ip link set {self.name} master br0 up")
        for line in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "route add default dev eth0"):
            self.run(["ip", *line.split()]).check_returncode()

    def command(self, arguments: Sequence[str]) -> list[str]:
        """What runs `arguments` on this host."""
        return ["nsenter", "-t", str(self.pid), "--net", "--mount", "--uts", "--pid", "--", *arguments]

    def run(self, arguments: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end; options of subprocess.run."""
        return subprocess.run(
            self.command(arguments),
            **{"env": self.cluster.environment, "capture_output": True, "text": True, **options},
        )

    def popen(self, arguments: Sequence[str], log: IO[bytes] | int, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command here. A signal to the returned process does not reach the command: see `processes`."""
        return subprocess.Popen(
            self.command(arguments), stdout=log, stderr=log, **{"env": self.cluster.environment, **options}
        )

    def processes(self, title: str = "") -> list[psutil.Process]:
        """The processes of this host whose command line begins with `title`, e.g. `ray::PolicyWorker`."""
        mine = os.readlink(f"/proc/{self.pid}/ns/pid")
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(OSError, psutil.Error):
                inside = os.readlink(f"/proc/{process.pid}/ns/pid") == mine and process.pid != self.pid
                if inside and " ".join(process.cmdline()).startswith(title):
                    found.append(process)
        return found

    def cut(self) -> None:
        """Nothing gets here or away any more; the processes live on."""
        self.cluster.switch(f"ip link set {self.name} down")

    def mend(self) -> None:
        """Undo `cut`."""
        self.cluster.switch(f"ip link set {self.name} up")

    def vanish(self) -> None:
        """End every process of this host at once, as a machine that loses its power."""
        self._first.kill()
        self._first.wait()


class Hosts:
    """A cluster of `number` hosts (see the module), `hosts[0]` the first, as a context manager."""

    def __init__(self, number: int, *, subnet: str = "10.78.0", shm: str = "1g", **variables: str) -> None:
        """`subnet`: the first three numbers of their addresses; `shm`: size of each /dev/shm; `variables`: of every process."""
        self.subnet, self.shm, self._number = subnet, shm, number
        self.authentication = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        self.environment = {**child_environment(), "PATH": path, **self.authentication, **variables}
        self._hosts: list[Host] = []
        self._nodes: list[Node] = []

    def __getitem__(self, index: int) -> Host:
        return self._hosts[index]

    def __iter__(self) -> Iterator[Host]:
        return iter(self._hosts)

    def __enter__(self) -> Self:
        _remove_abandoned()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER}{os.getpid()}-", dir="/tmp"))
        self.shared, self.local, self.logs = (self.folder / name for name in ("shared", "local", "logs"))
        for folder in (self.shared, self.local, self.logs):
            folder.mkdir()
        names = [f"{self.subnet}.{number} node{number}" for number in range(1, self._number + 1)]
        (self.folder / "hosts").write_text("\n".join(["127.0.0.1 localhost", *names, ""]))
        self._first, self._switch = _hold(setup="ip link add br0 type bridge && ip link set br0 up")
        try:
            for number in range(1, self._number + 1):
                self._hosts.append(Host(self, number))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for host in self._hosts:
            host.vanish()
        self._first.kill()
        self._first.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def switch(self, command: str) -> None:
        """Run a command of `ip` in the namespace of the switch that joins the hosts."""
        subprocess.run(["nsenter", "-t", str(self._switch), "--net", "--", *command.split()], check=True)

    @property
    def ray_address(self) -> str:
        return f"{self[0].address}:6379"

    @property
    def dashboard(self) -> str:
        return f"http://{self[0].address}:8265"

    def start_ray(self, nodes: Sequence[Node]) -> None:
        """Ray on every host, the head on the first; returns when all have joined."""
        self._nodes = list(nodes)
        head = f"--head --port=6379 --dashboard-host={self[0].address} --temp-dir={self.local}/r --disable-usage-stats"
        self._start_node(0, head.split())
        self._wait_for("the head", ["bash", "-c", f"exec 3<>/dev/tcp/{self[0].address}/6379"])
        for index in range(1, len(nodes)):
            self._start_node(index, [f"--address={self.ray_address}"])
        count = f"""
import sys
from ray._raylet import GcsClient
nodes = GcsClient(address="{self.ray_address}").get_all_node_info().values()
sys.exit(sum(node.state == 0 for node in nodes) != {len(nodes)})
"""
        self._wait_for(f"all {len(nodes)} nodes", [sys.executable, "-c", count])
        self._wait_for("Ray's jobs", [str(BIN / "ray"), "job", "list", "--address", self.dashboard])

    def _start_node(self, index: int, arguments: Sequence[str]) -> None:
        node, host = self._nodes[index], self[index]
        command = [str(BIN / "ray"), "start", "--block", f"--node-ip-address={host.address}", *arguments]
        command += [f"--num-cpus={node.num_cpus}", f"--resources={json.dumps(dict(node.resources))}", *node.arguments]
        if node.labels:
            command.append(f"--labels={','.join(f'{key}={value}' for key, value in node.labels.items())}")
        with (self.logs / f"{host.name}.log").open("ab") as log:
            host.popen(command, log)

    def _wait_for(self, what: str, succeeds: Sequence[str]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self[0].run(succeeds).returncode:
            logs = "\n".join(file.read_text() for file in self.logs.iterdir())
            assert time.monotonic() < deadline, f"{what} did not start within {START_SECONDS} s:\n{logs[-4000:]}"
            time.sleep(0.3)

    def submit(self, entrypoint: Sequence[str], checkout: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """`ray job submit` from the first host, to its end; the working directory is the checkout of the code."""
        command = [str(BIN / "ray"), "job", "submit", "--address", self.dashboard, "--working-dir", str(checkout)]
        return self[0].run([*command, *options, "--", *entrypoint])


def _hold(*namespaces: str, setup: str) -> tuple[subprocess.Popen[bytes], int]:
    """A process that holds a network namespace and others; it and the id of its child, the first process inside."""
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", *namespaces, "--fork", "--kill-child", "sh", "-c"]
    inside = [f'{setup} && exec "$@"', "sh", sys.executable, "-I", "-c", INIT]
    first = subprocess.Popen([*command, *inside], stdout=subprocess.PIPE)
    assert first.stdout is not None
    assert first.stdout.readline(), f"could not set up a namespace: {setup}"
    return first, psutil.Process(first.pid).children()[0].pid


def _remove_abandoned() -> None:
    """Folders of clusters whose process was killed; their hosts ended with it."""
    for folder in Path("/tmp").glob(f"{FOLDER}*-*"):
        if not psutil.pid_exists(int(folder.name.removeprefix(FOLDER).split("-")[0])):
            shutil.rmtree(folder, ignore_errors=True)
