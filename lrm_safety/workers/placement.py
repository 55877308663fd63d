"""Reserve the cluster's resources before any actor starts: one placement group per set of colocated groups."""

from __future__ import annotations

import time
from dataclasses import dataclass

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from ..errors import ClusterError
from ..settings import ClusterSettings, GroupSettings


@dataclass(frozen=True)
class Placement:
    """Where the workers of one group go: worker i in bundle i."""

    placement_group: PlacementGroup
    cpus_per_worker: float
    gpus_per_worker: float


def nodes_of(placement: Placement) -> set[str]:
    """Ray's ids of the nodes on which the bundles are reserved."""
    return set(placement_group_table(placement.placement_group)["bundles_to_node_id"].values())


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


def reserve(names: list[str], cluster: ClusterSettings, tensor_parallel_size: int = 1) -> dict[str, Placement]:
    """Placement of every named group.

    Raises ClusterError with what was asked for and what the cluster has when the resources are not there within
    `cluster.placement_timeout_seconds`; nothing stays reserved then.
    """
    wanted = bundle_sets(names, cluster, tensor_parallel_size)
    reserved: list[PlacementGroup] = []
    deadline = time.monotonic() + cluster.placement_timeout_seconds
    try:
        for together, bundles in wanted:
            # Unique: a name may be given once in a Ray session.
            name = f"{'+'.join(together)}-{time.time_ns()}"
            group = placement_group(bundles, strategy=cluster.strategy, name=name)
            reserved.append(group)
        for group in reserved:
            if not group.wait(timeout_seconds=max(0.1, deadline - time.monotonic())):
                raise ClusterError(_shortage(wanted, cluster))
    except BaseException:
        release(reserved)
        raise
    placements = {}
    for group, (together, _) in zip(reserved, wanted, strict=True):
        for name in together:
            placements[name] = Placement(group, *worker_resources(name, cluster, tensor_parallel_size))
    return placements


def release(groups: list[PlacementGroup]) -> None:
    """Give the resources back."""
    for group in groups:
        remove_placement_group(group)


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
