"""A look at a running Ray cluster for `lrm-safety doctor --cluster`: what every node has, and how nodes reach each other."""

from __future__ import annotations

import http.client
import json
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
AGENT_SECONDS = 10.0
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
    addresses: dict[str, str]
    """Of every node."""
    declared_cpus: dict[str, float]
    """What each node was started with."""
    cores: dict[str, int]
    """What each node's host has."""
    agents: dict[str, str]
    """Why the agent of a node does not answer HTTP."""
    shared_rewards: dict[str, str | None]
    """Groups that runs share (`reward.shared`), and what each says of itself; None: it does not answer."""


def survey(
    address: str | None, directory: Path | None, own: Callable[[int], Any], come_to: Callable[[str], None]
) -> Survey:
    """Join the cluster, ask every node, leave. `own` is called on every node with the bytes of its object store; the nodes find
    it by its name. `come_to` is told what is waited for.

    Raises ClusterError where no cluster can be joined.
    """
    come_to("joining it")
    join_ray(ClusterSettings(address=address or (None if "RAY_ADDRESS" in os.environ else "auto")), key="--address")
    try:
        names, present = node_names(), [node for node in ray.nodes() if node["Alive"]]
        stores = {node["NodeID"]: int(node["Resources"].get("object_store_memory", 0)) for node in present}
        control = ray.get_runtime_context().gcs_address
        with EveryNode(names) as nodes:
            come_to("what each finds of itself, vLLM's import among it")
            told, silent = nodes.ask(own, {node: (stores[node],) for node in nodes}, ANSWER_SECONDS)
            host, port = control.rsplit(":", 1)
            ports = [(host, int(port))]
            ports += [(one["NodeManagerAddress"], one[name]) for one in present for name in _PORTS]
            come_to("Ray's ports on the other nodes")
            closed, _ = nodes.ask(unreachable, {node: (ports,) for node in told}, ANSWER_SECONDS)
            come_to("cores and Ray's agents")
            hosts, _ = nodes.ask(look_at_host, {node: (_agent(node),) for node in told}, ANSWER_SECONDS)
            come_to("bandwidth between each two")
            links = measure_links(nodes)
        come_to("versions and the folder of runs")
        others = [node for node in told if node != this_node_id()]
        with EveryNode(others) as nodes:
            differences = compare(nodes, {node: {} for node in others}, directory, f"{SHARED}={directory}")
        come_to("reward groups that runs share")
        found = Survey(
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
            addresses={names[one["NodeID"]]: one["NodeManagerAddress"] for one in present},
            declared_cpus={names[one["NodeID"]]: one["Resources"].get("CPU", 0.0) for one in present},
            cores={names[node]: cores for node, (cores, _) in hosts.items()},
            agents={names[node]: why for node, (_, why) in hosts.items() if why},
            shared_rewards=shared_rewards(),
        )
        come_to("leaving it")
        return found
    finally:
        ray.shutdown()


_PORTS = ("NodeManagerPort", "ObjectManagerPort")


def _agent(node_id: str) -> tuple[str, int] | None:
    """Where a node's agent says that it listens; None: it has not said it."""
    from ray._private.ray_constants import KV_NAMESPACE_DASHBOARD
    from ray.dashboard.consts import DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX
    from ray.experimental.internal_kv import _internal_kv_get

    told = _internal_kv_get(f"{DASHBOARD_AGENT_ADDR_NODE_ID_PREFIX}{node_id}", namespace=KV_NAMESPACE_DASHBOARD)
    if not told:
        return None
    host, port, _ = json.loads(told)
    return host, port


def look_at_host(agent: tuple[str, int] | None) -> tuple[int, str]:
    """Called on a node: its host's cores, and why its agent does not answer HTTP there; empty: it does."""
    cores = os.cpu_count() or 1
    if agent is None:
        return cores, "it has not come up"
    host, port = agent
    if port < 0:  # Ray's mark of an agent that goes on without
        return cores, "its HTTP server did not start"
    connection = http.client.HTTPConnection(host, port, timeout=AGENT_SECONDS)
    try:
        connection.request("GET", "/api/local_raylet_healthz")
        connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        return cores, f"no answer on port {port} ({error})"
    finally:
        connection.close()
    return cores, ""
