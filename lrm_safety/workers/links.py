"""How nodes reach each other: one TCP stream between the Ray addresses of each two, and the ports of Ray itself.

Every node is in one pair at a time, so that n nodes take n - 1 rounds of about half a second; where time is over before, each
has been measured with as many others.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from statistics import median

import ray

from .every_node import EveryNode

NUM_PINGS = 20
STREAM_SECONDS = 0.2
"""How long is sent in each direction."""
SOCKET_SECONDS = 5.0
"""Limit of one step on a socket."""
ANSWER_SECONDS = 60.0
ALL_SECONDS = 60.0
"""After it no further round is begun."""
_CHUNK = bytes(1 << 18)
_MORE, _END = b"\x01", b"\x00"


@dataclass(frozen=True)
class Link:
    """What a TCP stream between two nodes brought."""

    round_trip_seconds: float
    """Median of `NUM_PINGS` single bytes there and back."""
    bytes_per_second: float
    """Of the slower direction."""


def measure_links(nodes: EveryNode) -> dict[tuple[str, str], Link | str]:
    """The link of each two nodes by their ids, or why there is none; those of the rounds that `ALL_SECONDS` had room for."""
    places = nodes.ask(listen, {node: () for node in nodes}, ANSWER_SECONDS)[0]
    links: dict[tuple[str, str], Link | str] = {}
    deadline = time.monotonic() + ALL_SECONDS
    for pairs in takewhile(lambda _: time.monotonic() < deadline, rounds(sorted(places))):
        asked = {one: places[other] for one, other in pairs}
        measured, failures = nodes.ask(measure, asked, ANSWER_SECONDS)
        links |= {(one, other): measured.get(one, failures.get(one, "")) for one, other in pairs}
    return links


def rounds(nodes: Sequence[str]) -> Iterator[list[tuple[str, str]]]:
    """Pairs of nodes such that each two meet once and nobody is in two pairs of a round (the circle method of tournaments)."""
    ring: list[str | None] = [*nodes, *([None] if len(nodes) % 2 else [])]
    for _ in range(len(ring) - 1):
        half = len(ring) // 2
        yield [(one, other) for one, other in zip(ring[:half], reversed(ring[half:]), strict=True) if one and other]
        ring.insert(1, ring.pop())


def listen() -> tuple[str, int]:
    """Answer `measure` on this node until the process ends; returns where."""
    listener = socket.create_server((ray.util.get_node_ip_address(), 0))
    threading.Thread(target=_serve, args=(listener,), daemon=True).start()
    host, port = listener.getsockname()[:2]
    return host, port


def _serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            _prepare(connection)
            for _ in range(NUM_PINGS):
                connection.sendall(_read(connection, 1))
            _take(connection)
            connection.sendall(struct.pack("<d", _give(connection)))


def measure(host: str, port: int) -> Link | str:
    """The link from this node to one that listens, or why there is none."""
    seconds: list[float] = []
    try:
        with socket.create_connection((host, port), SOCKET_SECONDS) as connection:
            _prepare(connection)
            for _ in range(NUM_PINGS):
                began = time.perf_counter()
                connection.sendall(_MORE)
                _read(connection, 1)
                seconds.append(time.perf_counter() - began)
            there = _give(connection)
            _take(connection)
            (back,) = struct.unpack("<d", _read(connection, 8))
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    return Link(median(seconds), min(there, back))


def unreachable(addresses: Iterable[tuple[str, int]]) -> list[str]:
    """Those of the addresses to which no connection can be opened from this node, with the reason."""

    def reason(address: tuple[str, int]) -> str | None:
        try:
            socket.create_connection(address, SOCKET_SECONDS).close()
        except OSError as error:
            return f"{address[0]}:{address[1]} ({error.strerror or error})"
        return None

    with ThreadPoolExecutor(max_workers=32) as pool:
        return [why for why in pool.map(reason, addresses) if why]


def _prepare(connection: socket.socket) -> None:
    connection.settimeout(SOCKET_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _give(connection: socket.socket) -> float:
    """Send for `STREAM_SECONDS`; bytes per second until the other side has them all."""
    began, num_bytes = time.perf_counter(), 0
    while time.perf_counter() - began < STREAM_SECONDS:
        connection.sendall(_MORE)
        connection.sendall(_CHUNK)
        num_bytes += len(_CHUNK)
    connection.sendall(_END)
    _read(connection, 1)
    return num_bytes / (time.perf_counter() - began)


def _take(connection: socket.socket) -> None:
    """The other side of `_give`."""
    while _read(connection, 1) == _MORE:
        _read(connection, len(_CHUNK))
    connection.sendall(_END)


def _read(connection: socket.socket, num_bytes: int) -> bytes:
    data = bytearray(num_bytes)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if not received:
            raise ConnectionResetError("the other side hung up")
        view = view[received:]
    return bytes(data)
