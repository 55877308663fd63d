"""Groups on several nodes of Ray, which are raylets of this machine: labels, one reservation for all, and a node that is lost."""

from __future__ import annotations

import os
import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from lrm_safety.errors import ClusterError
from lrm_safety.settings import ClusterSettings, GroupSettings
from lrm_safety.workers.group import WorkerGroup
from lrm_safety.workers.placement import nodes_of, release, reserve

IMPORTS = {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
"""By which the workers find this module."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    # For good, as a run does it: Ray reads it once in a process, and tests before and after these are in the same.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    for role in ("train", "train", "serve"):
        made.add_node(num_cpus=2, labels={"role": role})
    made.wait_for_nodes()
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


class Rank:
    """A worker without any model."""

    def node(self) -> str:
        return str(ray.get_runtime_context().get_node_id())


def layout(ranks: int, engines: int, **keys: object) -> ClusterSettings:
    policy = GroupSettings(num_workers=ranks, strategy="SPREAD", node_labels={"role": "train"})
    return ClusterSettings(policy=policy, rollout=GroupSettings(num_workers=engines), **keys)  # type: ignore[arg-type]


def labelled(role: str) -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Labels"].get("role") == role}


def test_groups_lie_where_they_are_wanted_and_ranks_follow_nodes(cluster: Cluster) -> None:
    place = reserve(["policy", "rollout"], layout(4, 2))
    group = WorkerGroup("policy", Rank, 4, place["policy"], IMPORTS, lambda index: ())
    try:
        on = group.call("node", timeout_seconds=60)
        assert on == list(place["policy"].nodes) and on[0] == on[1] != on[2] == on[3]
        assert set(on) == labelled("train") and nodes_of(place["rollout"]) == labelled("serve")
        assert group.meeting_point()[0] != "127.0.0.1", "not loopback across nodes"
    finally:
        group.end()
        release([place["policy"].placement_group])


def test_of_two_runs_that_cannot_both_run_one_has_everything(cluster: Cluster) -> None:
    """Each wants 3 of 4 places for ranks and 2 of 3 for engines: by halves both would wait for ever."""
    asked: list[float] = []
    had: list[tuple[float, float]] = []

    def ask() -> None:
        asked.append(time.monotonic())
        place = reserve(["policy", "rollout"], layout(3, 2, placement_timeout_seconds=30.0))
        granted = time.monotonic()
        time.sleep(3)
        had.append((granted, time.monotonic()))
        release([place["policy"].placement_group])

    runs = [threading.Thread(target=ask) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    (_, first_ended), (second_granted, _) = sorted(had)
    assert max(asked) < first_ended < second_granted, "they wanted it at the same time"


def test_nodes_that_are_expected_are_waited_for(cluster: Cluster) -> None:
    with pytest.raises(ClusterError, match=r"role=train\) is asked for, and there is room for 4 .*num_workers=4$"):
        reserve(["policy"], layout(6, 1))
    with pytest.raises(ClusterError, match=r"not free within .*=1; .*4 of 5 nodes have joined; the cluster has"):
        reserve(["policy"], layout(6, 1, expected_nodes=5, placement_timeout_seconds=1.0))


def test_a_worker_of_a_lost_node_is_replaced_on_another(cluster: Cluster) -> None:
    place = reserve(["policy"], layout(2, 1))
    group = WorkerGroup("policy", Rank, 2, place["policy"], IMPORTS, lambda index: ())
    try:
        first, lost = group.call("node", timeout_seconds=60)
        cluster.remove_node(next(node for node in cluster.worker_nodes if node.node_id == lost), allow_graceful=False)
        deadline = time.monotonic() + 60
        while group.is_alive(1, 5.0):
            assert time.monotonic() < deadline
        group.replace(1)
        assert group.call("node", timeout_seconds=60) == [first, first], "the only other node for ranks"
    finally:
        group.end()
        release([place["policy"].placement_group])
