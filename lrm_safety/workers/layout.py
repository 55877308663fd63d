"""Which worker goes on which node: pure functions of what the groups ask for and of what the nodes have."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import permutations

_ROUNDING = 1e-6
"""Ray counts ten-thousandths; sums of fractions of ours may be off by less."""


@dataclass(frozen=True)
class Node:
    """A living node of the cluster."""

    id: str
    name: str
    labels: Mapping[str, str]
    total: Mapping[str, float]
    free: Mapping[str, float]


@dataclass(frozen=True)
class BundleSet:
    """Groups that share bundles, worker i of each in bundle i; a group alone for the most part."""

    names: tuple[str, ...]
    bundle: Mapping[str, float]
    """What each bundle reserves, by resource; their sum where groups are colocated."""
    count: int
    strategy: str = "PACK"
    labels: Mapping[str, str] = field(default_factory=dict)
    """Those that a node must have."""
    least: int = 1
    """Fewest bundles to start with."""

    def __str__(self) -> str:
        labels = f" on nodes with {_said(self.labels, self.labels)}" if self.labels else ""
        return f"{'+'.join(self.names)} {self.count} x {dict(self.bundle)} ({self.strategy}{labels})"


def lay_out(
    sets: Sequence[BundleSet], nodes: Sequence[Node], *, home: str | None = None, whole: bool = False
) -> tuple[list[list[str]], list[int]]:
    """The node of every bundle of every set, and the positions of the sets without a place; only one of the two is not empty.

    `home` is the controller's node. `whole`: as if nothing of the nodes was taken.

    PACK takes as few nodes as it can, those first that hold most, and among equal ones those that another set or the controller is
    on; STRICT_PACK one node; SPREAD the node each time that has fewest of the set; STRICT_SPREAD none twice. Bundles of a set
    are in the order of the nodes, so that neighbouring trainer ranks share a node and their rings leave it as rarely as
    possible. The sets are tried in every order, since one may take the only nodes that another could have.
    """
    nodes = sorted(nodes, key=lambda node: (_natural(node.name), node.id))
    first_short: list[int] = []
    for order in permutations(range(len(sets))):
        room = {node.id: dict(node.total if whole else node.free) for node in nodes}
        used = {home}
        found: dict[int, list[str]] = {}
        for position in order:
            chosen = _choose(sets[position], nodes, room, used)
            if chosen is not None:
                found[position] = chosen
                used.update(chosen)
        if len(found) == len(sets):
            return [found[position] for position in range(len(sets))], []
        first_short = first_short or [position for position in range(len(sets)) if position not in found]
    return [], first_short


def _choose(
    wanted: BundleSet, nodes: Sequence[Node], room: dict[str, dict[str, float]], used: Collection[str | None]
) -> list[str] | None:
    """The nodes of one set, whose resources are taken out of `room`; None, and nothing taken, where it has no place."""
    counts = {node.id: 0 for node in nodes if _has(node, wanted.labels)}
    capacity = {node: _capacity(wanted.bundle, room[node]) for node in counts}
    spread, strict = wanted.strategy.endswith("SPREAD"), wanted.strategy.startswith("STRICT")
    while (left := wanted.count - sum(counts.values())) > 0:
        able = {node: min(left, capacity[node] - count) for node, count in counts.items() if capacity[node] > count}
        if strict:
            able = {node: n for node, n in able.items() if (counts[node] == 0 if spread else n == left)}
        if not able:
            return None
        if spread:
            node = min(able, key=lambda node: (counts[node], counts[node] - capacity[node]))
            counts[node] += 1
        else:
            node = max(able, key=lambda node: (able[node], node in used, -capacity[node]))
            counts[node] += able[node]
    for node, count in counts.items():
        for resource, amount in wanted.bundle.items():
            if count:
                room[node][resource] = room[node].get(resource, 0.0) - count * amount
    return [node for node, count in counts.items() for _ in range(count)]


def fewer_workers(sizes: Sequence[int], least: Sequence[int], short: Collection[int]) -> list[int] | None:
    """The next smaller layout to try: of the sets that lacked resources (`short`, by position) each has a worker less. Where these
    are as small as they may be, one of those that had theirs, the one with most to spare, makes room. None: nothing can be smaller.
    """
    can = [position for position in short if sizes[position] > least[position]]
    if not can:
        position = max(range(len(sizes)), key=lambda position: sizes[position] - least[position])
        can = [position] if sizes[position] > least[position] else []
    return [size - (position in can) for position, size in enumerate(sizes)] if can else None


def resized(sets: Sequence[BundleSet], sizes: Sequence[int]) -> list[BundleSet]:
    """The sets with other numbers of bundles."""
    return [replace(one, count=size) for one, size in zip(sets, sizes, strict=True)]


def never(sets: Sequence[BundleSet], nodes: Sequence[Node]) -> str | None:
    """Why these nodes could not hold the smallest layout even if nothing of them was taken, with the layout that they would hold;
    None where that cannot be told."""
    smallest = resized(sets, [one.least for one in sets])
    reason = _reason(smallest, nodes)
    if reason is None and lay_out(smallest, nodes, whole=True)[0]:
        return None
    if reason is None:
        have = "; ".join(f"{node.name}: {_amounts(node.total, sets[0].bundle)}" for node in nodes)
        reason = f"{'; '.join(map(str, smallest))}: no nodes hold them together ({have})"
    sizes: list[int] | None = [one.count for one in sets]
    while sizes is not None:
        smaller = resized(sets, sizes)
        places, short = lay_out(smaller, nodes, whole=True)
        if places:
            keys = [
                f"cluster.{name}.{key}={one.count}"
                for one, asked in zip(smaller, sets, strict=True)
                for name in one.names
                for key, given in (("num_workers", asked.count), ("min_workers", asked.least))
                if one.count < given and (key == "num_workers" or asked.least < asked.count)
            ]
            return f"{reason}; this would fit: {' '.join(keys)}"
        sizes = fewer_workers(sizes, [1] * len(sets), short)
    return f"{reason}; no number of workers would fit: start such a node, or ask for what the nodes have"


def _reason(sets: Sequence[BundleSet], nodes: Sequence[Node]) -> str | None:
    for one in sets:
        group = "+".join(one.names)
        eligible = [node for node in nodes if _has(node, one.labels)]
        if not eligible:
            have = "; ".join(f"{node.name}: {_said(node.labels, one.labels) or 'none'}" for node in nodes)
            return f"no node has {group}'s node_labels {_said(one.labels, one.labels)} ({have})"
        most = [_capacity(one.bundle, node.total) for node in eligible]
        largest = "; ".join(f"{node.name}: {_amounts(node.total, one.bundle)}" for node in eligible)
        if max(most) == 0:
            return f"a worker of {group} reserves {dict(one.bundle)}, which no node has ({largest})"
        room = {"STRICT_PACK": max(most), "STRICT_SPREAD": sum(count > 0 for count in most)}.get(
            one.strategy, sum(most)
        )
        if one.count > room:
            others: dict[str, float] = {
                resource: sum(other.count * other.bundle.get(resource, 0.0) for other in sets if other is not one)
                for resource in one.bundle
            }
            taken = _amounts(others, [resource for resource, amount in others.items() if amount])
            share = f", of which the other groups take {taken}" if taken else ""
            return f"{one} is asked for, and there is room for {room} ({largest}){share}"
    for resource in {resource for one in sets for resource in one.bundle}:
        asked = sum(one.count * one.bundle.get(resource, 0.0) for one in sets)
        total = sum(node.total.get(resource, 0.0) for node in nodes)
        if asked > total + _ROUNDING:
            return f"{'; '.join(map(str, sets))}: are {asked:g} {resource}, and the cluster has {total:g}"
    return None


def _capacity(bundle: Mapping[str, float], room: Mapping[str, float]) -> int:
    """How many such bundles there is room for; a part of a GPU lies on one GPU."""
    most = []
    for resource, amount in bundle.items():
        there = room.get(resource, 0.0) + _ROUNDING
        devices = int(there) if resource == "GPU" and amount < 1 else 0
        most.append(devices * int((1 + _ROUNDING) // amount) + int((there - devices) // amount))
    return min(most)


def _has(node: Node, labels: Mapping[str, str]) -> bool:
    return all(node.labels.get(key) == value for key, value in labels.items())


def _said(labels: Mapping[str, str], asked: Collection[str]) -> str:
    """Labels that a person gave or asks for, for a person: Ray gives each node some of its own."""
    return ", ".join(f"{key}={value}" for key, value in labels.items() if key in asked or not key.startswith("ray.io/"))


def _amounts(room: Mapping[str, float], resources: Iterable[str]) -> str:
    return ", ".join(f"{room.get(resource, 0.0):g} {resource}" for resource in resources)


def _natural(name: str) -> list[str | int]:
    """A key that sorts node9 before node10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
