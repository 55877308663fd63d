"""Reserve the cluster's resources before any actor starts: one reservation for all groups, which Ray grants as a whole or not."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import ray
from ray._private.state import available_resources_per_node
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from ..errors import ClusterError, WorkerError, first_line
from ..monitoring.progress import RESOURCES_GRANTED, WAITING_FOR_RESOURCES
from ..settings import ClusterSettings, GroupSettings
from .every_node import this_node_id
from .layout import BundleSet, Node, fewer_workers, lay_out, never, resized

GRANT_SECONDS = 5.0
"""What the nodes have free is granted at once; what another run has just taken is not."""
ELSEWHERE_SECONDS = 60.0
"""How long a place is looked for in a run that goes on; one that is started again waits as long as its configuration says."""
QUIET_SECONDS = 3.0
"""How long is waited before it is said: what an ended run held comes back in a moment."""
SAY_AGAIN_SECONDS = 60.0

_NODE_ID = "ray.io/node-id"
"""The label by which Ray knows a node."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Where the workers of one group go: worker i in bundle `first_bundle` + i, on node `nodes[i]`."""

    placement_group: PlacementGroup
    cpus_per_worker: float
    gpus_per_worker: float
    nodes: tuple[str, ...]
    """Ray's ids of the nodes, one for each worker that there is room for, in the cluster's order of nodes."""
    first_bundle: int = 0
    resources: Mapping[str, float] = field(default_factory=dict)
    """Custom resources that each worker reserves besides."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those that a node must have."""
    strategy: str = "PACK"
    check: Callable[[str], None] = lambda node: None
    """Raises ClusterError where a node, by Ray's id, lacks what a worker of the group needs."""

    @property
    def num_workers(self) -> int:
        """Workers that there is room for."""
        return len(self.nodes)


def nodes_of(placement: Placement) -> set[str]:
    """Ray's ids of the nodes on which the bundles are reserved."""
    return set(placement.nodes)


def hosts_of(nodes: Sequence[str]) -> dict[int, str]:
    """Name and address of each node, by index; nothing where the cluster has one node only."""
    hosts = {one["NodeID"]: f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']})" for one in ray.nodes()}
    return {index: hosts.get(node, node) for index, node in enumerate(nodes)} if len(hosts) > 1 else {}


def is_lost(node: str) -> bool:
    """Whether Ray has given a node up."""
    return not any(one["NodeID"] == node and one["Alive"] for one in ray.nodes())


def worker_resources(name: str, cluster: ClusterSettings, tensor_parallel_size: int = 1) -> tuple[float, float]:
    """(CPUs, GPUs) that one worker of a group reserves; a tensor-parallel engine takes all its GPUs in one actor."""
    group: GroupSettings = getattr(cluster, name)
    num_gpus = group.gpus_per_worker * (tensor_parallel_size if name == "rollout" else 1)
    return group.cpus_per_worker, num_gpus


def bundle_sets(names: list[str], cluster: ClusterSettings, tensor_parallel_size: int = 1) -> list[BundleSet]:
    """What is reserved for the named groups; what colocated groups reserve adds up."""
    sets: list[list[str]] = [[name for name in together if name in names] for together in cluster.colocate]
    colocated = {name for together in sets for name in together}
    sets += [[name] for name in names if name not in colocated]
    result = []
    for together in filter(None, sets):
        bundle: dict[str, float] = {}
        for name in together:
            cpus, gpus = worker_resources(name, cluster, tensor_parallel_size)
            for resource, amount in _bundle(cpus, gpus, getattr(cluster, name).resources).items():
                bundle[resource] = bundle.get(resource, 0.0) + amount
        if not bundle:
            raise ClusterError(f"cluster.{together[0]}: its workers reserve nothing; set cpus_per_worker above 0")
        group: GroupSettings = getattr(cluster, together[0])
        least = group.min_workers or group.num_workers
        strategy = group.strategy or cluster.strategy
        result.append(BundleSet(tuple(together), bundle, group.num_workers, strategy, group.node_labels, least))
    return result


def _bundle(cpus: float, gpus: float, resources: Mapping[str, float]) -> dict[str, float]:
    """In Ray's ten-thousandths, of which it takes the whole ones; without what is 0, which it refuses."""
    asked = {"CPU": cpus, "GPU": gpus, **resources}
    whole = {resource: math.floor(amount * 1e4 + 1e-6) / 1e4 for resource, amount in asked.items()}
    return {resource: amount for resource, amount in whole.items() if amount > 0}


def reserve(
    names: list[str],
    cluster: ClusterSettings,
    tensor_parallel_size: int = 1,
    on_wait: Callable[[], None] = lambda: None,
) -> dict[str, Placement]:
    """Placement of every named group, reserved together; `on_wait` is called about once a second meanwhile and may raise.

    A layout that the cluster's nodes can never hold is refused at once, unless nodes are still to come
    (`cluster.expected_nodes`, or one that was lost and may return). What is only busy is waited for; where it is not free
    within `cluster.placement_timeout_seconds`, smaller layouts are tried, down to each group's `min_workers`. Raises ClusterError
    with what was asked for and what the cluster has; nothing stays reserved then, nor while waiting: of two runs that cannot both
    have their resources one has them all.
    """
    sets = bundle_sets(names, cluster, tensor_parallel_size)
    began = time.monotonic()
    say_at, has_said = began + QUIET_SECONDS, False
    sizes: list[int] | None = [one.count for one in sets]
    suspects: list[str] = []  # nodes of a layout that Ray did not grant, each left out of one of the next tries
    while sizes is not None:
        on_wait()
        asked = resized(sets, sizes)
        nodes = _nodes()
        # None was lost, which may return, and as many as are expected have joined.
        are_all = len(nodes) == len(ray.nodes()) and len(nodes) >= (cluster.expected_nodes or 0)
        if are_all and (reason := never(sets, nodes)):
            raise ClusterError(f"cluster={cluster.name}: {reason}")
        is_late = time.monotonic() > began + cluster.placement_timeout_seconds
        left_out = suspects.pop() if suspects and not is_late else None
        places, short = lay_out(asked, [node for node in nodes if node.id != left_out], home=this_node_id())
        if places and (group := _granted(asked, places, on_wait)):
            if asked != sets:
                _logger.warning("not all workers have a place: %s", _fewer(sets, asked))
            if has_said:
                _logger.warning("%s after %.0f seconds", RESOURCES_GRANTED, time.monotonic() - began)
            return _placements(group, asked, places, cluster, tensor_parallel_size)
        if left_out is not None:
            continue
        now = time.monotonic()
        if now > began + cluster.placement_timeout_seconds:
            # What had a place and was not granted has been taken by another run: none is to blame, so all lack it.
            sizes = fewer_workers(sizes, [one.least for one in sets], short or range(len(sets)))
            continue
        # It may be draining, or have its free GPUs in pieces; Ray does not tell which.
        suspects = sorted({node for one in places for node in one})
        if now > say_at:
            lacking = "; ".join(str(sets[position]) for position in short) or "another run took what was free"
            _logger.warning(
                "%s, %.0f of at most %g seconds (cluster.placement_timeout_seconds): %s; %s",
                WAITING_FOR_RESOURCES,
                now - began,
                cluster.placement_timeout_seconds,
                lacking,
                _state(nodes, cluster),
            )
            say_at, has_said = now + SAY_AGAIN_SECONDS, True
        # Runs that ask for the same do so at different moments.
        time.sleep(min(random.uniform(0.5, 1.0), max(0.05, began + cluster.placement_timeout_seconds - now)))
    raise ClusterError(
        f"cluster={cluster.name}: resources not free within cluster.placement_timeout_seconds="
        f"{cluster.placement_timeout_seconds:g}; asked for {'; '.join(map(str, sets))}; {_state(nodes, cluster)}; raise "
        "cluster.placement_timeout_seconds to wait longer for other jobs, or run fewer at once (of a sweep: "
        f"hydra.launcher.concurrency), or lower {_lower(sets, nodes)}"
    )


def _lower(sets: Sequence[BundleSet], nodes: Sequence[Node]) -> str:
    """The keys that ask for less of what is lacking: of what is not free in sum, or else, where it only lies in pieces, of all that
    is asked for."""
    asked = {kind: sum(one.count * one.bundle.get(kind, 0.0) for one in sets) for one in sets for kind in one.bundle}
    lacking = [
        kind for kind, amount in asked.items() if amount > sum(node.free.get(kind, 0.0) for node in nodes) + 1e-6
    ]
    keys = {"CPU": "cpus_per_worker", "GPU": "gpus_per_worker"}
    return " or ".join(["num_workers", *(keys.get(kind, f"resources.{kind}") for kind in lacking or asked)])


def _nodes() -> list[Node]:
    """The living nodes."""
    free = available_resources_per_node()
    return [
        Node(one["NodeID"], one["NodeManagerHostname"], one["Labels"], one["Resources"], free.get(one["NodeID"], {}))
        for one in ray.nodes()
        if one["Alive"]
    ]


def _granted(
    sets: Sequence[BundleSet], places: Sequence[Sequence[str]], on_wait: Callable[[], None]
) -> PlacementGroup | None:
    """The reservation of all sets on these nodes; None where Ray does not grant it at once, and nothing is reserved then."""
    bundles = [dict(one.bundle) for one, nodes in zip(sets, places, strict=True) for _ in nodes]
    pins = [{_NODE_ID: node} for nodes in places for node in nodes]
    # Unique: a name may be given once in a Ray session.
    name = f"{'+'.join(name for one in sets for name in one.names)}-{time.time_ns()}"
    group = placement_group(bundles, strategy="PACK", bundle_label_selector=pins, name=name)
    deadline = time.monotonic() + GRANT_SECONDS
    try:
        while not group.wait(timeout_seconds=1):
            on_wait()
            if time.monotonic() > deadline:
                release([group])
                return None
    except BaseException:
        release([group])
        raise
    return group


def _placements(
    group: PlacementGroup,
    sets: Sequence[BundleSet],
    places: Sequence[Sequence[str]],
    cluster: ClusterSettings,
    tensor_parallel_size: int,
) -> dict[str, Placement]:
    found, first = {}, 0
    for one, nodes in zip(sets, places, strict=True):
        for name in one.names:
            resources = worker_resources(name, cluster, tensor_parallel_size)
            settings: GroupSettings = getattr(cluster, name)
            found[name] = Placement(
                group, *resources, tuple(nodes), first, settings.resources, settings.node_labels, one.strategy
            )
        first += one.count
    return found


def elsewhere(placement: Placement, name: str, on_wait: Callable[[], None], others: Collection[str] = ()) -> Placement:
    """A place for one worker of a group, reserved apart, since its node is lost; `others` are the nodes of the group's other
    workers. A node that `placement.check` refuses is passed over.

    Raises WorkerError where there is none within `ELSEWHERE_SECONDS`: a run that starts again may wait longer, or be smaller.
    """
    unfit = set(others) if placement.strategy == "STRICT_SPREAD" else set()
    why = ""
    bundle = _bundle(placement.cpus_per_worker, placement.gpus_per_worker, placement.resources)
    wanted = [BundleSet((name,), bundle, 1, labels=placement.labels)]
    deadline = time.monotonic() + ELSEWHERE_SECONDS
    while time.monotonic() < deadline:
        on_wait()
        places, _ = lay_out(wanted, [node for node in _nodes() if node.id not in unfit], home=this_node_id())
        if places:
            [node] = places[0]
            try:
                placement.check(node)
            except ClusterError as error:
                unfit.add(node)
                why = f"; {first_line(error)}"
                continue
            if group := _granted(wanted, places, on_wait):
                return replace(placement, placement_group=group, nodes=(node,), first_bundle=0)
        time.sleep(1)
    raise WorkerError(f"{name}: no other node has room for a worker whose node is lost: {wanted[0]}{why}")


def granted(cluster: ClusterSettings, placements: Mapping[str, Placement]) -> ClusterSettings:
    """The layout with as many workers of each group as have a place."""
    return replace(
        cluster,
        **{name: replace(getattr(cluster, name), num_workers=place.num_workers) for name, place in placements.items()},
    )


def release(groups: list[PlacementGroup]) -> None:
    """Give the resources back."""
    for group in groups:
        remove_placement_group(group)


def _fewer(wanted: Sequence[BundleSet], asked: Sequence[BundleSet]) -> str:
    """The sets that are smaller than they were wanted."""
    return ", ".join(
        f"{few.count} of {all_of.count} of {'+'.join(few.names)} start (cluster.{few.names[0]}.min_workers)"
        for all_of, few in zip(wanted, asked, strict=True)
        if few.count < all_of.count
    )


def _state(nodes: Sequence[Node], cluster: ClusterSettings) -> str:
    """What the cluster has, and what is free of it."""
    total, free = (
        {kind: sum(room.get(kind, 0.0) for room in rooms) for kind in ("CPU", "GPU")}
        for rooms in ([node.total for node in nodes], [node.free for node in nodes])
    )
    joined = f"{len(nodes)} of {cluster.expected_nodes} nodes have joined; " if cluster.expected_nodes else ""
    return f"{joined}the cluster has {total}, free {free}"
