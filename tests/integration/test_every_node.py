"""Nodes that differ: what a run says before it starts an actor, and what doctor says of the cluster.

Three hosts: the head, one whose clock is wrong, and one without our package; each has a disk of its own beside the shared one.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts import Hosts, Node, why_not

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

# What Python imports as it starts, on the disk of one host.
WRONG_CLOCK = "import time\n_time = time.time\ntime.time = lambda: _time() + 7.0\n"
NO_PACKAGE = """import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "lrm_safety":
            raise ModuleNotFoundError("No module named 'lrm_safety'")
sys.meta_path.insert(0, Absent())
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(3, subnet="10.83.0") as hosts:
        hosts.environment["PYTHONPATH"] = f"{hosts.local}:{hosts.environment.get('PYTHONPATH', '')}"
        for host, source in ((hosts[1], WRONG_CLOCK), (hosts[2], NO_PACKAGE)):
            host.run(["tee", f"{hosts.local}/sitecustomize.py"], input=source).check_returncode()
        hosts.start_ray([Node(1)] * 3)
        yield hosts


def lrm_safety(hosts: Hosts, *arguments: str) -> subprocess.CompletedProcess[str]:
    return hosts[0].run([sys.executable, "-m", "lrm_safety", *arguments], timeout=300)


def test_a_run_names_what_its_nodes_lack_before_it_starts_an_actor(hosts: Hosts, repository_root: Path) -> None:
    model, run = hosts.local / "model", hosts.local / "run"
    hosts[0].run(
        ["cp", "-r", str(repository_root / "lrm_safety/miniature/assets/policy"), str(model)]
    ).check_returncode()
    done = lrm_safety(
        hosts,
        *("sft", "model=miniature", "data=miniature_supervised", "sft=miniature", f"model.path={model}"),
        *(f"cluster.address={hosts.ray_address}", "cluster.strategy=STRICT_SPREAD", "cluster.policy.num_workers=3"),
        *("cluster.policy.cpus_per_worker=1", f"run.directory={run}"),
    )
    assert done.returncode == 1
    lines = [line for line in done.stderr.splitlines() if "error:" in line]
    for line, expected in zip(
        lines,
        (
            "error: lrm_safety: on node3 nothing of ours can be called: there is no Python module lrm_safety; ",
            f"error: run.directory={run}: on node2 it is not the folder that the controller on node1 writes to; ",
            f"error: model.path={model}: on node2 it is absent; copy it there",
            r"error: clock: on node2 it is 7\.0 s ahead of that of node1; let all nodes keep the time",
        ),
        strict=True,
    ):
        assert re.search(expected, line), (expected, done.stderr)
    left = hosts[0].run(["ls", "-a", str(run)]).stdout.split()
    assert ".nodes" not in left and "checkpoints" not in left and "environment.json" in left


def test_doctor_asks_every_node(hosts: Hosts) -> None:
    runs = hosts.local / "runs"
    done = lrm_safety(hosts, *f"doctor --cluster --json --address {hosts.ray_address} --directory {runs}".split())
    assert done.returncode == 1, done.stderr
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    levels = {row["name"]: row["level"] for row in rows}
    faults = {row["name"]: row for row in rows if row["level"] == "fail"}
    assert rows[0]["name"] == "cluster" and rows[0]["found"].startswith("3 nodes, 3 CPUs")
    assert rows[0]["nodes"] == ["node1", "node2", "node3"]
    assert {name: row["nodes"] for name, row in faults.items()} == {
        "lrm_safety": ["node3"],
        "shared storage": ["node2"],
        "clock": ["node2"],
    }
    assert all(row["mend"] for row in faults.values())
    assert levels["token mode"] == levels["ports of Ray"] == levels["between nodes"] == levels["vllm"] == "ok"
    stores = [row for row in rows if row["name"] == "object store"]
    assert {node for row in stores for node in row["nodes"]} == {"node1", "node2"}
    assert {row["level"] for row in stores} == {"warn"}  # each /dev/shm has 1 GiB, of a memory of which Ray takes 30 %
    (link,) = (row["found"] for row in rows if row["name"] == "between nodes")
    assert re.match(r"\d+\.\d [GM]bit/s in one TCP stream, .* medians of 1 pair of 3", link), link
    assert hosts[0].run(["ls", str(runs)]).returncode, "what was not there before is left behind"
