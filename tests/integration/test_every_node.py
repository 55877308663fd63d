"""Nodes that differ: what a run says before it starts an actor, and what doctor says of the cluster.

Three nodes on one machine: the head, one that is alone with its disk, its name and a wrong clock, and one without our package.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from ray_head import RAY, START_SECONDS, Head, ray_head

pytestmark = pytest.mark.timeout(600)

OWN_NAMES = ["unshare", "--mount", "--uts"]
AS_ROOT = ["unshare", "--user", "--map-root-user", "--mount", "--uts"]
"""For who is not root, where the kernel allows it."""
WRONG_CLOCK = "import time\n_time = time.time\ntime.time = lambda: _time() + 7.0\n"
NO_PACKAGE = """import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "lrm_safety":
            raise ModuleNotFoundError("No module named 'lrm_safety'")
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stands here is not on the second node, which has an empty disk at the same place."""
    return Path(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def cluster(disk: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    apart = next(
        (one for one in (OWN_NAMES, AS_ROOT) if subprocess.run([*one, "true"], capture_output=True).returncode == 0),
        None,
    )
    if apart is None:
        pytest.skip("this user may not make namespaces")
    with ray_head({}, num_cpus=1) as head, contextlib.ExitStack() as stack:
        for number, sources, command in (
            (2, WRONG_CLOCK, [*apart, "sh", "-c", f'hostname node2; mount -t tmpfs tmpfs {disk}; exec "$@"', "sh"]),
            (3, NO_PACKAGE, []),
        ):
            folder = tmp_path_factory.mktemp(f"node{number}")
            (folder / "sitecustomize.py").write_text(sources)
            stack.enter_context(node(head, number, folder, command))
        yield head


@contextlib.contextmanager
def node(head: Head, number: int, folder: Path, command: list[str]) -> Iterator[None]:
    """A further node of the cluster, whose processes import the sitecustomize of `folder`; ended at the end."""
    start = [
        RAY,
        "start",
        "--block",
        f"--address={head.address}",
        f"--node-ip-address=127.0.0.{number}",
        "--num-cpus=1",
    ]
    with (folder / "start.log").open("wb") as log:
        environment = head.environment | {"PYTHONPATH": f"{folder}:{head.environment.get('PYTHONPATH', '')}"}
        process = subprocess.Popen([*command, *start], env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + START_SECONDS
        while "runtime started" not in (folder / "start.log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "start.log").read_text()
            time.sleep(0.2)
        yield
    finally:
        everything = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
        for one in reversed(everything):
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(everything, timeout=30)
        process.wait(30)


def lrm_safety(cluster: Head, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "lrm_safety", *arguments]
    return subprocess.run(command, cwd=folder, env=cluster.environment, capture_output=True, text=True, timeout=300)


def test_a_run_names_what_its_nodes_lack_before_it_starts_an_actor(
    cluster: Head, disk: Path, repository_root: Path
) -> None:
    shutil.copytree(repository_root / "lrm_safety/miniature/assets/policy", disk / "model")
    done = lrm_safety(
        cluster,
        *("sft", "model=miniature", "data=miniature_supervised", "sft=miniature", f"model.path={disk / 'model'}"),
        *(f"cluster.address={cluster.address}", "cluster.strategy=STRICT_SPREAD", "cluster.policy.num_workers=3"),
        *("cluster.policy.cpus_per_worker=1", f"run.directory={disk / 'run'}"),
        folder=disk,
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    for line, expected in zip(
        lines,
        (
            r"error: lrm_safety: on .*\(127\.0\.0\.3\) nothing of ours can be called: there is no Python module lrm_safety; ",
            rf"error: run.directory={disk}/run: on node2 it is not the folder that the controller on .* writes to; ",
            rf"error: model.path={disk}/model: on node2 it is absent; copy it there",
            r"error: clock: on node2 it is 7\.0 s ahead of that of .*; let all nodes keep the time",
        ),
        strict=True,
    ):
        assert re.search(expected, line), (expected, done.stderr)
    assert not (disk / "run/.nodes").exists() and not (disk / "run/checkpoints").exists()


def test_doctor_asks_every_node(cluster: Head, disk: Path) -> None:
    arguments = ["doctor", "--cluster", "--json", "--address", cluster.address, "--directory", str(disk / "runs")]
    done = lrm_safety(cluster, *arguments, folder=disk)
    assert done.returncode == 1, done.stderr
    assert not (disk / "runs").exists()
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    levels = {row["name"]: row["level"] for row in rows}
    faults = {row["name"]: row for row in rows if row["level"] == "fail"}
    head, other = sorted({*rows[0]["nodes"]} - {"node2"}, key=lambda name: "127.0.0.3" in name)
    assert rows[0]["name"] == "cluster" and rows[0]["found"].startswith("3 nodes, 3 CPUs")
    assert {name: row["nodes"] for name, row in faults.items()} == {
        "lrm_safety": [other],
        "shared storage": ["node2"],
        "clock": ["node2"],
    }
    assert all(row["mend"] for row in faults.values())
    assert levels["token mode"] == levels["ports of Ray"] == levels["between nodes"] == levels["vllm"] == "ok"
    assert [row["nodes"] for row in rows if row["name"] in ("object store", "import of vllm")] == [[head, "node2"]] * 2
    (link,) = (row["found"] for row in rows if row["name"] == "between nodes")
    assert re.match(r"\d+\.\d [GM]bit/s in one TCP stream, .* medians of 1 pairs of 3", link), link
