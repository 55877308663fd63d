"""Faults of a Ray cluster of several nodes, which outlives the run: nodes on loopback addresses of their own."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from declared import fault
from hosts import Hosts, why_not
from hosts import Node as Offer
from ray_head import RAY, Head, ray_head
from scene import NotRun, Scene
from supervised_faults import RESTARTS

CPUS = 1
JOIN_SECONDS = 120
SPREAD = ("cluster.policy.cpus_per_worker=1", "cluster.strategy=STRICT_SPREAD")
ALONE = ("cluster.policy.min_workers=1", "cluster.placement_timeout_seconds=10")


class Node:
    """A further node of a cluster, `127.0.0.NUMBER`."""

    def __init__(self, head: Head, number: int) -> None:
        self.address = f"127.0.0.{number}"
        log = Path(tempfile.mkstemp(prefix=f"node{number}-")[1])
        command = [RAY, "start", "--block", f"--address={head.address}", f"--node-ip-address={self.address}"]
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [*command, f"--num-cpus={CPUS}"], env=head.environment, stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + JOIN_SECONDS
        while "runtime started" not in log.read_text():
            assert self._process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
        log.unlink()

    def vanish(self) -> None:
        """Kill everything on it, as a power cut does."""
        with contextlib.suppress(psutil.NoSuchProcess):
            everything = [
                psutil.Process(self._process.pid),
                *psutil.Process(self._process.pid).children(recursive=True),
            ]
            for process in everything:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(everything, timeout=30)


class Nodes:
    """A head and one more node, of one CPU each; a run on them has a trainer rank on each."""

    def __init__(self, scene: Scene) -> None:
        stack = contextlib.ExitStack()
        scene.cleanups.append(stack.close)
        self._stack = stack
        self.head = stack.enter_context(ray_head(scene.temporary, num_cpus=CPUS))
        self.second = self.join(2)
        scene.environment = self.head.authentication
        scene.layout = (f"cluster.address={self.head.address}", *SPREAD)
        scene.look_besides = self.left_behind

    def join(self, number: int) -> Node:
        """One more node."""
        node = Node(self.head, number)
        self._stack.callback(node.vanish)
        return node

    def left_behind(self) -> list[str]:
        """What a run still holds of the cluster."""
        left = []
        for kind, gone in (("placement-groups", "REMOVED"), ("actors", "DEAD")):
            asked = [RAY, "list", kind, "--address", self.head.dashboard, "--format", "json"]
            answer = subprocess.run(asked, env=self.head.environment, capture_output=True, text=True, check=True)
            found = json.loads(answer.stdout[answer.stdout.index("[") :])
            left += [f"{kind} {one['state']}" for one in found if one["state"] != gone]
        return left


@fault(says=r"policy worker \d on node .*127\.0\.0\.2.* died", promise="rounding", limit=240)
def lose_a_node(scene: Scene) -> None:
    """It does not come back: the rank that is left goes on alone."""
    nodes = Nodes(scene)
    scene.layout += ALONE
    scene.start(*RESTARTS)
    scene.moment()
    scene.harm("a node vanishes", nodes.second.vanish)


@fault(says=r"policy worker \d on node .*127\.0\.0\.2.* died", limit=240)
def lose_a_node_that_is_replaced(scene: Scene) -> None:
    """The run waits for it."""
    nodes = Nodes(scene)
    scene.start(*RESTARTS, "cluster.placement_timeout_seconds=180")
    scene.moment()
    scene.harm("a node vanishes, another one joins after 20 s", nodes.second.vanish)
    scene.later(20, lambda: nodes.join(3))


@fault(says=None, limit=200)
def kill_controller_on_a_cluster(scene: Scene) -> None:
    """Nobody is left who could give the resources back: the cluster does."""
    Nodes(scene)
    scene.start()
    scene.moment()
    scene.signal("controller", signal.SIGKILL)


@fault(says=r"policy worker \d .*node", promise="rounding", limit=240)
def cut_the_link_of_a_node(scene: Scene) -> None:
    """Nothing says good-bye: the processes there live on, and nobody hears of them."""
    if reason := why_not():
        raise NotRun(reason)
    stack = contextlib.ExitStack()
    scene.cleanups.append(stack.close)
    hosts = stack.enter_context(Hosts(2, subnet="10.91.7"))
    hosts.start_ray([Offer(CPUS), Offer(CPUS)])
    scene.run = hosts.shared / "run"
    scene.environment, scene.prefix = hosts.environment, tuple(hosts[0].command([]))
    scene.layout = (f"cluster.address={hosts.ray_address}", *SPREAD, *ALONE)
    scene.start(*RESTARTS)
    scene.moment()
    scene.harm("the link of a node is cut", hosts[1].cut)
