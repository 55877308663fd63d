"""Reserve the cluster's resources before any actor starts: one placement group per set of colocated groups."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from ..errors import ClusterError
from ..settings import ClusterSettings, GroupSettings

SMALLER_SECONDS = 3.0
"""How long a smaller layout may take: what it needs is there or not, but for what the larger one has just given back."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Where the workers of one group go: worker i in bundle i."""

    placement_group: PlacementGroup
    cpus_per_worker: float
    gpus_per_worker: float
    num_workers: int
    """Workers that there is room for."""


def nodes_of(placement: Placement) -> set[str]:
    """Ray's ids of the nodes on which the bundles are reserved."""
    return set(placement_group_table(placement.placement_group)["bundles_to_node_id"].values())


def hosts_of(placement: Placement) -> dict[int, str]:
    """Name and address of each worker's node, by index; nothing where there is one node only."""
    nodes = {one["NodeID"]: f"{one['NodeManagerHostname']} ({one['NodeManagerAddress']})" for one in ray.nodes()}
    if len(nodes) < 2:
        return {}
    bundles = placement_group_table(placement.placement_group)["bundles_to_node_id"]
    return {index: nodes.get(node, node) for index, node in bundles.items()}


def worker_resources(name: str, cluster: ClusterSettings, tensor_parallel_size: int = 1) -> tuple[float, float]:
    """(CPUs, GPUs) that one worker of a group reserves; a tensor-parallel engine takes all its GPUs in one actor."""
    group: GroupSettings = getattr(cluster, name)
    num_gpus = group.gpus_per_worker * (tensor_parallel_size if name == "rollout" else 1)
    return group.cpus_per_worker, num_gpus


def bundle_sets(
    names: list[str], cluster: ClusterSettings, tensor_parallel_size: int = 1
) -> list[tuple[list[str], list[dict[str, float]]]]:
    """The groups that share bundles, with those bundles: colocated groups add up, worker i of each in bundle i."""
    sets: list[list[str]] = [[name for name in together if name in names] for together in cluster.colocate]
    colocated = {name for together in sets for name in together}
    sets += [[name] for name in names if name not in colocated]
    result = []
    for together in filter(None, sets):
        num_bundles = getattr(cluster, together[0]).num_workers
        resources = [worker_resources(name, cluster, tensor_parallel_size) for name in together]
        cpus, gpus = sum(cpus for cpus, _ in resources), sum(gpus for _, gpus in resources)
        bundle = {key: value for key, value in (("CPU", cpus), ("GPU", gpus)) if value > 0}
        result.append((together, [dict(bundle) for _ in range(num_bundles)]))
    return result


def fewer_workers(sizes: Sequence[int], least: Sequence[int], short: Collection[int]) -> list[int] | None:
    """The next smaller layout to try: of the sets that lacked resources (`short`, by position) each has a worker less. Where these
    are as small as they may be, one of those that had theirs, the one with most to spare, makes room. None: nothing can be smaller.
    """
    can = [position for position in short if sizes[position] > least[position]]
    if not can:
        position = max(range(len(sizes)), key=lambda position: sizes[position] - least[position])
        can = [position] if sizes[position] > least[position] else []
    return [size - (position in can) for position, size in enumerate(sizes)] if can else None


def reserve(
    names: list[str],
    cluster: ClusterSettings,
    tensor_parallel_size: int = 1,
    on_wait: Callable[[], None] = lambda: None,
) -> dict[str, Placement]:
    """Placement of every named group; `on_wait` is called about once a second meanwhile and may raise.

    Where the whole layout is not granted within `cluster.placement_timeout_seconds`, smaller ones are tried, down to each group's
    `min_workers`. Raises ClusterError with what was asked for and what the cluster has when these are not granted either;
    nothing stays reserved then.
    """
    wanted = bundle_sets(names, cluster, tensor_parallel_size)
    least = [getattr(cluster, together[0]).min_workers or len(bundles) for together, bundles in wanted]
    sizes: list[int] | None = [len(bundles) for _, bundles in wanted]
    limit = cluster.placement_timeout_seconds
    while sizes is not None:
        asked = [(together, bundles[:size]) for (together, bundles), size in zip(wanted, sizes, strict=True)]
        reserved, short = _reserve(asked, cluster.strategy, limit, on_wait)
        if not short:
            if asked != wanted:
                _logger.warning("not all workers have a place: %s", _fewer(wanted, asked))
            return {
                name: Placement(group, *worker_resources(name, cluster, tensor_parallel_size), len(bundles))
                for group, (together, bundles) in zip(reserved, asked, strict=True)
                for name in together
            }
        release(reserved)
        sizes, limit = fewer_workers(sizes, least, short), SMALLER_SECONDS
    raise ClusterError(_shortage(wanted, cluster))


def _reserve(
    asked: list[tuple[list[str], list[dict[str, float]]]], strategy: str, limit: float, on_wait: Callable[[], None]
) -> tuple[list[PlacementGroup], list[int]]:
    """A placement group of each set, and the positions of those that were not granted within the limit."""
    reserved: list[PlacementGroup] = []
    deadline = time.monotonic() + limit
    try:
        for together, bundles in asked:
            # Unique: a name may be given once in a Ray session.
            reserved.append(placement_group(bundles, strategy=strategy, name=f"{'+'.join(together)}-{time.time_ns()}"))
        short = list(range(len(reserved)))
        while short and (time.monotonic() < deadline):
            on_wait()
            turn = min(1.0, max(0.1, deadline - time.monotonic()))
            short = [position for position in short if not reserved[position].wait(timeout_seconds=turn)]
    except BaseException:
        release(reserved)
        raise
    return reserved, short


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


def _fewer(wanted: list[tuple[list[str], list[dict[str, float]]]], asked: list[tuple[list[str], list[Any]]]) -> str:
    """The sets that are smaller than they were wanted."""
    return ", ".join(
        f"{len(few)} of {len(all_of)} of {'+'.join(names)} start (cluster.{names[0]}.min_workers)"
        for (names, all_of), (_, few) in zip(wanted, asked, strict=True)
        if len(few) < len(all_of)
    )


def _shortage(wanted: list[tuple[list[str], list[dict[str, float]]]], cluster: ClusterSettings) -> str:
    asked = "; ".join(f"{'+'.join(names)} {len(bundles)} x {bundles[0]}" for names, bundles in wanted)
    kinds = ("CPU", "GPU")
    total = {kind: ray.cluster_resources().get(kind, 0.0) for kind in kinds}
    free = {kind: ray.available_resources().get(kind, 0.0) for kind in kinds}
    return (
        f"cluster={cluster.name}: resources not free within cluster.placement_timeout_seconds="
        f"{cluster.placement_timeout_seconds:g}; asked for {asked} ({cluster.strategy}); the cluster has {total}, free "
        f"{free}; lower num_workers, cpus_per_worker or gpus_per_worker, or wait for other jobs"
    )
