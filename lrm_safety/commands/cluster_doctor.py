"""`lrm-safety doctor --cluster`: the rows of every node, and those of the nodes together."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from rich.console import Console

from ..files import amount
from ..monitoring.progress import START_SILENCE_SECONDS, waiting
from ..workers.cluster_survey import SHARED, Survey, survey
from ..workers.every_node import NO_ANSWER
from ..workers.links import Link
from ..workers.preflight import listed
from ..workers.shared_reward import DESCRIBE_SECONDS, how_to_end
from .doctor import GIB, Row, rows

SHM = Path("/dev/shm")
SLOW_BITS_PER_SECOND = 1e9
"""Below it weights and gradients take longer than what is computed between them."""
SHOWN = 3
"""Texts of one row, and pairs of nodes, that are shown."""


@dataclass(frozen=True)
class NodesRow(Row):
    """A row of some nodes, or, where it names none, of the cluster."""

    nodes: tuple[str, ...] = ()


def cluster_rows(address: str | None, directory: Path | None) -> Iterator[NodesRow]:
    """Every check, those of the cluster first. Raises ClusterError where no cluster can be joined."""
    with waiting(Console(stderr=True), "asking the nodes of the cluster", START_SILENCE_SECONDS) as come_to:
        found = survey(address, directory, partial(own_rows, directory), come_to)
    yield overview_row(found)
    yield token_row(found.wants_token)
    yield from silent_rows(found.silent)
    for difference in found.differences:
        name, _, value = difference.subject.partition("=")
        fault = f"{value}: {difference.fault}" if value else difference.fault
        yield NodesRow(name, fault, "fail", difference.mend, difference.nodes)
    if directory is None:
        mend = "--directory FOLDER, where runs are to be written, to see whether it is one on all nodes"
        yield NodesRow(SHARED, "not looked at", "note", mend)
    elif not any(difference.subject.startswith(SHARED) for difference in found.differences):
        yield NodesRow(SHARED, f"{directory}, the same on all nodes")
    yield from host_rows(found.addresses, found.declared_cpus, found.cores)
    yield from agent_rows(found.agents)
    yield from port_rows(found.closed)
    yield from link_rows(found.links, len(found.nodes))
    yield from shared_reward_rows(found.shared_rewards)
    yield from together(found.own)


def places(found: Sequence[NodesRow]) -> list[str]:
    """For each row where it holds, in few words; the first, of the cluster, names all nodes."""
    every = found[0].nodes

    def place(nodes: tuple[str, ...]) -> str:
        if others := [node for node in every if node not in nodes]:
            few = len(others) <= SHOWN and len(others) < len(nodes)
            return f"all but {listed(others)}" if few else listed(nodes)
        return f"all {len(every)}" if len(every) > 1 else listed(nodes)

    return [place(row.nodes) if row.nodes else "" for row in found]


def own_rows(directory: Path | None, store_bytes: int) -> list[Row]:
    """Called on every node: what doctor says there, and its object store."""
    return [*rows(directory), store_row(store_bytes, shutil.disk_usage(SHM).total if SHM.is_dir() else 0)]


def overview_row(found: Survey) -> NodesRow:
    """How large the cluster is, and which nodes have left."""
    sizes = {"node": len(found.nodes), "CPU": found.resources["CPU"], "GPU": found.resources["GPU"]}
    size = f"{', '.join(_counted(number, one) for one, number in sizes.items())} at {found.address}"
    if not found.lost:
        return NodesRow("cluster", size, nodes=tuple(found.nodes))
    mend = "`ray start` there again, where they are missed"
    return NodesRow("cluster", f"{size}; left: {listed(found.lost)}", "warn", mend, tuple(found.nodes))


def token_row(wanted: bool) -> NodesRow:
    """Whether everybody who reaches the cluster can run code on it."""
    if wanted:
        return NodesRow("token mode", "the cluster wants its token")
    mend = (
        "start Ray with RAY_AUTH_MODE=token and one RAY_AUTH_TOKEN on all nodes (docs/runbook.md), or close its ports"
    )
    return NodesRow("token mode", "none: whoever reaches the cluster runs code on it", "warn", mend)


def silent_rows(silent: Mapping[str, str]) -> Iterator[NodesRow]:
    """Nodes on which nothing of ours could be called."""
    for node, why in silent.items():
        mend = "install the same packages on every node"
        if why.startswith(NO_ANSWER):  # its process lives: it may still import
            mend = "see what keeps it busy (`top` there; Ray's workers have the lowest priority), then ask again"
        yield NodesRow("lrm_safety", f"cannot be called: {why}", "fail", mend, (node,))


def store_row(store_bytes: int, shm_bytes: int) -> Row:
    """Ray keeps its objects in /dev/shm, and where they do not fit on the disk."""
    text = f"{store_bytes / GIB:.1f} GiB"
    if store_bytes <= shm_bytes:
        return Row("object store", text)
    text += f", and /dev/shm has {shm_bytes / GIB:.1f}"
    return Row(
        "object store",
        text,
        "warn",
        "Ray uses the disk then: docker run --shm-size, or ray start --object-store-memory",
    )


def host_rows(
    addresses: Mapping[str, str], declared: Mapping[str, float], cores: Mapping[str, int]
) -> Iterator[NodesRow]:
    """Nodes that share a host, and hosts of which more CPUs are declared than they have."""
    hosts: dict[str, list[str]] = {}
    for node, address in addresses.items():
        hosts.setdefault(address, []).append(node)
    for address, nodes in hosts.items():
        if len(nodes) > 1:
            mend = "one `ray start` a host, unless it is a trial: `ray stop` there, and start one node again"
            yield NodesRow("hosts", f"{len(nodes)} nodes on one address, {address}", "warn", mend, tuple(nodes))
        has = max((cores[node] for node in nodes if node in cores), default=None)
        total = sum(declared.get(node, 0.0) for node in nodes)
        if has is not None and total > has:
            found = f"{total:g} declared on {address}, which has {has} cores"
            mend = (
                "workers take turns on the cores, which is right for a trial (docs/first_sweep.md): otherwise "
                "`ray start --num-cpus` with what the host has, or without it"
            )
            yield NodesRow("CPUs", found, "warn", mend, tuple(nodes))


def agent_rows(agents: Mapping[str, str]) -> Iterator[NodesRow]:
    """Agents of Ray that serve no HTTP: no job can be submitted through their node, and its log cannot be read."""
    if not agents:
        yield NodesRow("agents of Ray", "answer HTTP on all nodes")
    for node, why in agents.items():
        mend = (
            "another Ray or program on its host may hold port 52365: end it, or start the node with "
            "`ray start --dashboard-agent-listen-port` of a free one"
        )
        yield NodesRow("agents of Ray", why, "warn", mend, (node,))


def port_rows(closed: Mapping[str, list[str]]) -> Iterator[NodesRow]:
    """Ports of Ray that some node cannot open."""
    if not closed:
        yield NodesRow("ports of Ray", "open between all nodes")
    for node, places in closed.items():
        found = f"cannot open {listed(places)}"
        yield NodesRow("ports of Ray", found, "fail", "open all TCP ports between the nodes of the cluster", (node,))


def shared_reward_rows(groups: Mapping[str, str | None]) -> Iterator[NodesRow]:
    """Reward groups that runs share: who uses them, and which one hangs."""
    for name, told in groups.items():
        if told is not None:
            yield NodesRow(f"reward.shared={name}", told)
        else:
            mend = f"stop its runs, then: {how_to_end(name)}"
            yield NodesRow(f"reward.shared={name}", f"no answer within {DESCRIBE_SECONDS:g} s", "warn", mend)


def link_rows(links: Mapping[tuple[str, str], Link | str], num_nodes: int) -> Iterator[NodesRow]:
    """Bandwidth and round trip between each two of the nodes: the usual ones, and those that stand out."""
    broken: dict[str, list[str]] = {}
    for (one, other), link in links.items():
        if isinstance(link, str):
            broken.setdefault(link, []).extend((one, other))
    for why, nodes in broken.items():
        mend = "open all TCP ports between the nodes of the cluster"
        yield NodesRow("between nodes", f"no connection: {why}", "fail", mend, tuple(nodes))
    measured = {pair: link for pair, link in links.items() if isinstance(link, Link)}
    if not measured:
        if not links:
            yield NodesRow("between nodes", "one node, nothing to measure")
        return
    usual = median(link.bytes_per_second for link in measured.values())
    latency = median(link.round_trip_seconds for link in measured.values())
    longest = max(link.round_trip_seconds for link in measured.values())
    text = (
        f"{_bits(usual)} in one TCP stream, {latency * 1e3:.2f} ms there and back (longest {longest * 1e3:.2f}); "
        f"medians of {_counted(len(measured), 'pair')} of {num_nodes * (num_nodes - 1) // 2}"
    )
    mend = "start Ray on the faster network: `ray start --node-ip-address`"
    yield NodesRow("between nodes", text, *(("warn", mend) if usual * 8 < SLOW_BITS_PER_SECOND else ("ok", "")))
    slow = sorted(
        (link.bytes_per_second, *pair) for pair, link in measured.items() if link.bytes_per_second < usual / 2
    )
    if slow:
        pairs = ", ".join(f"{one} - {other} {_bits(rate)}" for rate, one, other in slow[:SHOWN])
        more = f" and {_counted(len(slow) - SHOWN, 'more pair')}" if len(slow) > SHOWN else ""
        worst = _common(slow)
        mend = f"look at the interface, the cable and the switch port{worst and f' of {worst}'}"
        yield NodesRow("slow pairs", f"{pairs}{more}, less than half of the usual", "warn", mend)


def _common(slow: list[tuple[float, str, str]]) -> str:
    """The node that is in all slow pairs, if there is one and they are several."""
    shared = set.intersection(*({one, other} for _, one, other in slow))
    return shared.pop() if len(shared) == 1 else ""


def _counted(number: float, what: str) -> str:
    return f"{number:g} {what}{'s' * (number != 1)}"


def _bits(bytes_per_second: float) -> str:
    return f"{amount(bytes_per_second * 8).removesuffix('bytes').replace('B', 'bit')}/s"


def together(own: Mapping[str, list[Row]]) -> Iterator[NodesRow]:
    """The nodes' own rows: one for all nodes that say the same of one thing, in the order of the first node."""
    names = list(dict.fromkeys(row.name for rows_of_node in own.values() for row in rows_of_node))
    for name in names:
        kinds: dict[tuple[str, str], dict[str, list[str]]] = {}
        for node, rows_of_node in own.items():
            for row in rows_of_node:
                if row.name == name:
                    kinds.setdefault((row.level, row.mend), {}).setdefault(row.found, []).append(node)
        for (level, mend), texts in kinds.items():
            nodes = [node for holders in texts.values() for node in holders]
            yield NodesRow(name, _texts(texts), level, mend, tuple(nodes))  # type: ignore[arg-type]


def _texts(texts: Mapping[str, list[str]]) -> str:
    """What nodes have found, each text once; with the nodes where there are several."""
    if len(texts) == 1:
        return next(iter(texts))
    shown = [f"{text} ({listed(nodes)})" for text, nodes in list(texts.items())[:SHOWN]]
    more = len(texts) - len(shown)
    return "; ".join([*shown, *([_counted(more, "other")] if more else [])])
