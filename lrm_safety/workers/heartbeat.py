"""The actor's side of the watchdog: a thread that tells the controller where the work is, and stacks that can be asked for.

A beat is a datagram: it costs microseconds and waits for nothing, so that it still comes where a call through Ray would hang
with the rest; one that is lost does no harm. (A Ray method of its own concurrency group would move all other methods off the
main thread, and a push to a monitor actor costs ten times as much.)
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import socket
import threading
import time
from dataclasses import asdict, dataclass
from typing import Any

import ray

from ..progress import PROGRESS, Reading

BEAT_SECONDS = 1.0
STACKS = "lrm_safety-stacks"
"""Name of the file in memory that faulthandler writes into: it needs no folder, and ends with the process."""
DUMP_SIGNAL = signal.SIGUSR2

Address = tuple[str, int]


@dataclass(frozen=True)
class Beat:
    """What an actor says once a second."""

    actor: str
    """Its name in Ray, unlike that of one that it replaced."""
    pid: int
    host: str
    node_id: str
    """Ray's."""
    reading: Reading

    def pack(self, token: str) -> bytes:
        """As a datagram."""
        return json.dumps([token, asdict(self)]).encode()

    @classmethod
    def unpack(cls, datagram: bytes, token: str) -> Beat | None:
        """None for a datagram of somebody else."""
        try:
            told, fields = json.loads(datagram)
            return cls(**{**fields, "reading": Reading(**fields["reading"])}) if told == token else None
        except (ValueError, TypeError, KeyError):
            return None


def begin(worker: Any, actor: str, address: Address, token: str) -> None:
    """Beat from now on, and write all threads' stacks into memory on `DUMP_SIGNAL`; sent to a worker through `__ray_call__`."""
    faulthandler.register(DUMP_SIGNAL, file=os.memfd_create(STACKS), all_threads=True)
    node_id = str(ray.get_runtime_context().get_node_id())
    threading.Thread(target=_beat, args=(actor, node_id, address, token), name="heartbeat", daemon=True).start()


def _beat(actor: str, node_id: str, address: Address, token: str) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    host = socket.gethostname()
    with socket.socket(family, socket.SOCK_DGRAM) as controller:
        while True:
            beat = Beat(actor, os.getpid(), host, node_id, PROGRESS.read())
            # Where there is no way at present, what the controller makes of the silence is its own affair.
            with contextlib.suppress(OSError):
                controller.sendto(beat.pack(token), address)
            time.sleep(BEAT_SECONDS)
