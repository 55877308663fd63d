"""A look at a running Ray cluster for `lrm-safety doctor --cluster`: what every node has, and how nodes reach each other."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from ..settings import ClusterSettings
from .address import wants_token
from .every_node import EveryNode, node_names, this_node_id
from .groups import join_ray
from .links import Link, measure_links, unreachable
from .preflight import Difference, compare
from .shared_reward import shared_rewards

SHARED = "shared storage"
ANSWER_SECONDS = 300.0
"""Limit of a node's own rows, of which one imports vLLM."""


@dataclass(frozen=True)
class Survey:
    """What was found of a cluster; nodes by their names."""

    address: str
    """Of its control store."""
    resources: dict[str, float]
    """CPUs and GPUs of all nodes."""
    wants_token: bool
    nodes: list[str]
    lost: list[str]
    """Nodes that have left since the cluster was started."""
    own: dict[str, Any]
    """What each node says of itself."""
    silent: dict[str, str]
    """Why a node said nothing."""
    differences: list[Difference]
    """In what nodes differ from this process's."""
    links: dict[tuple[str, str], Link | str]
    """How each two nodes reach each other, or why not."""
    closed: dict[str, list[str]]
    """Ray's ports on other nodes that a node cannot open."""
    shared_rewards: dict[str, str | None]
    """Groups that runs share (`reward.shared`), and what each says of itself; None: it does not answer."""


def survey(address: str | None, directory: Path | None, own: Callable[[int], Any]) -> Survey:
    """Join the cluster, ask every node, leave. `own` is called on every node with the bytes of its object store; the nodes find
    it by its name.

    Raises ClusterError where no cluster can be joined.
    """
    join_ray(ClusterSettings(address=address or (None if "RAY_ADDRESS" in os.environ else "auto")), key="--address")
    try:
        names, present = node_names(), [node for node in ray.nodes() if node["Alive"]]
        stores = {node["NodeID"]: int(node["Resources"].get("object_store_memory", 0)) for node in present}
        control = ray.get_runtime_context().gcs_address
        with EveryNode(names) as nodes:
            told, silent = nodes.ask(own, {node: (stores[node],) for node in nodes}, ANSWER_SECONDS)
            host, port = control.rsplit(":", 1)
            ports = [(host, int(port))]
            ports += [(one["NodeManagerAddress"], one[name]) for one in present for name in _PORTS]
            closed, _ = nodes.ask(unreachable, {node: (ports,) for node in told}, ANSWER_SECONDS)
            links = measure_links(nodes)
        others = [node for node in told if node != this_node_id()]
        with EveryNode(others) as nodes:
            differences = compare(nodes, {node: {} for node in others}, directory, f"{SHARED}={directory}")
        return Survey(
            address=control,
            resources={kind: ray.cluster_resources().get(kind, 0.0) for kind in ("CPU", "GPU")},
            wants_token=wants_token(control),
            nodes=sorted(names.values()),
            lost=sorted(str(node["NodeManagerHostname"]) for node in ray.nodes() if not node["Alive"]),
            own={names[node]: answer for node, answer in told.items()},
            silent={names[node]: why for node, why in silent.items()},
            differences=differences,
            links={(names[one], names[other]): link for (one, other), link in links.items()},
            closed={names[node]: ports for node, ports in closed.items() if ports},
            shared_rewards=shared_rewards(),
        )
    finally:
        ray.shutdown()


_PORTS = ("NodeManagerPort", "ObjectManagerPort")
