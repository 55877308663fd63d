"""Ray's own processes, looked at while a run goes on: its control store (GCS) and, of a Ray of our own, its raylet.

Workers go on without them for a while, so that nothing else notices: without the control store Ray ends this process after a
minute, from C++, and about as long it takes to give a raylet up.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Any

import ray
from ray._private import worker
from ray._private.ray_constants import PROCESS_TYPE_GCS_SERVER, PROCESS_TYPE_RAYLET

from ..errors import ClusterError, LrmSafetyError, WorkerError
from .address import silence
from .processes import ENDED, GONE, lifeless

LOOK_SECONDS = 5.0
ANSWER_SECONDS = 1.0
AWAY_SECONDS = 20.0
"""A control store of our own that is gone does not come back."""
RAYS_SHARE = 0.75
"""That of a cluster may: so much of the time is waited after which Ray ends the process."""
LEAVE_SECONDS = 30.0
RAYS_SECONDS = "RAY_gcs_rpc_server_reconnect_timeout_s"


class ControlStore:
    """Whether the control store at `host:port` answers; `key` is the setting that named it, None where it is our own."""

    def __init__(
        self,
        address: str,
        key: str | None,
        clock: Callable[[], float] = time.monotonic,
        answers: Callable[[str], str | None] | None = None,
    ) -> None:
        self._address, self._key, self._clock = address, key, clock
        self._silence = answers or _silence
        self._looked = self._answered = clock()
        limit = RAYS_SHARE * float(os.environ.get(RAYS_SECONDS, 60))
        self._limit = limit if key else min(limit, AWAY_SECONDS)

    def answers(self) -> bool:
        """Whether it answers now: a call that needs it may otherwise wait for ever."""
        return self._silence(self._address) is None

    def check(self) -> None:
        """Look every few seconds. Raises WorkerError for a control store of our own, which a restart of the run brings back, and
        ClusterError for one that others have to bring back."""
        now = self._clock()
        if now - self._looked < LOOK_SECONDS:
            return
        if now - self._looked > 2 * LOOK_SECONDS:
            self._answered = now  # nobody looked for a while, perhaps since this process was stopped itself
        self._looked = now
        problem = self._silence(self._address)
        if problem is None:
            self._answered = now
        elif now - self._answered > self._limit:
            raise self._gone(problem, now - self._answered)

    def _gone(self, problem: str, seconds: float) -> LrmSafetyError:
        what = f"Ray's control store (GCS) has not answered for {seconds:.0f} s ({problem})"
        if self._key is None:
            return WorkerError(f"{what}; {_GOES_ON}")
        return ClusterError(
            f"{self._key}={self._address}: {what}: bring the cluster's head back, then the same command goes on from the last "
            "checkpoint"
        )


class Raylet:
    """The raylet of a Ray of our own, process `pid`: without it no worker begins, and its workers end with it."""

    def __init__(self, pid: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._pid, self._clock = pid, clock
        self._seen_to_run = self._looked = clock()

    @classmethod
    def of_our_own(cls) -> Raylet | None:
        """None where this process has joined a Ray of somebody else."""
        started = _own_processes().get(PROCESS_TYPE_RAYLET)
        return cls(started[0].process.pid) if started else None

    def check(self) -> None:
        """Look, which costs nothing. Raises WorkerError for one that has ended, or is stopped for a while: a restart of the run
        brings it back."""
        now = self._clock()
        if now - self._looked > LOOK_SECONDS:
            self._seen_to_run = now  # nobody looked for a while, perhaps since this process was stopped itself
        self._looked = now
        (why,) = lifeless([self._pid])
        if not why:
            self._seen_to_run = now
        elif why in (GONE, ENDED) or now - self._seen_to_run > AWAY_SECONDS:
            raise WorkerError(f"Ray's raylet (pid {self._pid}) does not work: {why}; {_GOES_ON}")


_GOES_ON = "the same command goes on from the last checkpoint, trainer.max_restarts does so by itself"


def _silence(address: str) -> str | None:
    host, _, port = address.rpartition(":")
    return silence(host.strip("[]"), int(port), ANSWER_SECONDS)


def _own_processes() -> dict[str, list[Any]]:
    """What this process started of Ray, by kind; nothing where it has joined a Ray of somebody else."""
    node: Any = worker._global_node
    return {} if node is None else node.all_processes


def kill_stopped() -> None:
    """Kill what is stopped (SIGSTOP) of a Ray of our own, before it is left: `ray.shutdown` waits for its raylet for ever."""
    for started in chain.from_iterable(_own_processes().values()):
        if any(lifeless([started.process.pid])):
            started.process.kill()


def leave_without() -> None:
    """`ray.shutdown` where the control store does not answer: it would wait for one that is stopped, not for one that is dead.

    One of our own is killed. After one of a cluster that stays mute this process cannot join Ray again, and can only end.
    """
    for started in _own_processes().get(PROCESS_TYPE_GCS_SERVER, []):
        started.process.kill()
    leaving = threading.Thread(target=ray.shutdown, daemon=True)
    leaving.start()
    leaving.join(LEAVE_SECONDS)
    if leaving.is_alive():
        atexit.unregister(ray.shutdown)  # it would wait once more
