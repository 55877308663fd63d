"""The controller's side of the heartbeats: which actor hangs, what its threads do, and its end.

An actor that hangs is killed, and from there on goes the way of one that died: an engine, a reward or a reference is replaced,
and a policy rank ends or restarts the run.

Silence alone is no hang. A beat needs the interpreter's lock, which a library may hold for minutes, and a processor, which a
loaded machine gives late. So a silent process is looked at from outside, and only one that is stopped counts as hung after
`silent_seconds`; any other has the time that its work may take without progress. Of what a process has ended Ray knows, which
notices it by itself. A node that gives no answer is named at once; Ray gives it up after about a minute.
"""

from __future__ import annotations

import faulthandler
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import WorkerError
from ..progress import Reading
from ..settings import ClusterSettings
from .every_node import EveryNode, this_node_id
from .heartbeat import Address, Beat, begin
from .processes import ENDED, GONE, lifeless, stacks

if TYPE_CHECKING:
    from .group import WorkerGroup

_logger = logging.getLogger(__name__)

CHECK_SECONDS = 0.5
LONGEST_LOOK_SECONDS = 5.0
"""Of the time between two checks so much counts: while nobody looked, or the controller was stopped itself, nobody was silent."""
LOOK_AGAIN_SECONDS = 5.0
"""How long a silent process that was seen to run is not looked at again."""
PACE_FACTOR = 10.0
"""A piece of work may take as many times the longest of its kind so far, the sizes considered."""
STOPPING_SILENT_SECONDS, STOPPING_STALL_SECONDS, STOPPING_FACTOR = 10.0, 60.0, 3.0
"""The same limits once somebody wants the run to stop, at most."""
NODE_SECONDS = 20.0
"""Within which another node has to say what it sees of its processes: a process has to start there first."""
MUTE_NODE_SECONDS = 60.0
"""How long a node that gave no answer is not asked again: meanwhile Ray gives it up."""
MUTE = "its node gives no answer"
DATAGRAM_BYTES = 4096


@dataclass(frozen=True)
class Limits:
    """How long an actor may say nothing, and how long it may make no progress."""

    silent_seconds: float
    stall_seconds: float
    first_seconds: float
    """Without progress in a piece of a kind that has not ended yet: loading and compiling are in it."""
    call_seconds: float
    """Of a call that tells no pieces, such as a save: how far it has come nobody sees, so that it has the time of a whole call,
    also once somebody wants the run to stop."""

    @classmethod
    def of(cls, cluster: ClusterSettings) -> Limits:
        """The limits of a configuration."""
        return cls(
            cluster.silent_seconds,
            cluster.stall_seconds,
            cluster.start_timeout_seconds,
            cluster.call_timeout_seconds,
        )

    def silence(self, *, stopping: bool) -> float:
        """Seconds without a beat after which a process is looked at."""
        return min(self.silent_seconds, STOPPING_SILENT_SECONDS) if stopping else self.silent_seconds

    def stall(self, reading: Reading, *, stopping: bool) -> float:
        """Seconds that the present piece may take: grows with its size, at the slowest pace of those before it."""
        floor, factor = self.stall_seconds, PACE_FACTOR
        if stopping:
            floor, factor = min(floor, STOPPING_STALL_SECONDS), STOPPING_FACTOR
        if reading.longest is None:
            limit = max(floor, self.first_seconds)
        else:
            limit = max(floor, factor * reading.longest * max(1.0, reading.size / max(1.0, reading.largest)))
        return max(limit, reading.allowed, 0.0 if reading.has_pieces else self.call_seconds)

    def complaint(self, reading: Reading, silent: float, lifeless: str, *, stopping: bool) -> str:
        """Why an actor counts as hung, with the limit; empty: it does not.

        `silent`: seconds since its last beat; `lifeless`: why its process cannot go on, empty where it can or was not looked at.
        """
        limit = self.silence(stopping=stopping)
        if lifeless and silent > limit:
            return (
                f"no heartbeat for {silent:.0f} s (limit {limit:.0f} s, cluster.silent_seconds={self.silent_seconds:g}), "
                f"{lifeless}"
            )
        # What an idle process that is silent has begun since its last beat nobody knows.
        stalled = silent + (reading.seconds if reading.phase else 0.0)
        if (reading.phase or silent > limit) and stalled > (limit := self.stall(reading, stopping=stopping)):
            is_calls = limit == self.call_seconds and not reading.has_pieces
            key = "call_timeout_seconds" if is_calls else "stall_seconds"
            return (
                f"no progress for {stalled:.0f} s (limit {limit:.0f} s {_of(reading)}, "
                f"cluster.{key}={self.call_seconds if is_calls else self.stall_seconds:g})"
            )
        return ""


def _of(reading: Reading) -> str:
    """What a limit of progress was made from."""
    between = "between two pieces" if reading.has_pieces else "without pieces"
    size = f"for {reading.size:,.0f} {reading.unit}" if reading.unit else between
    if reading.longest is None:
        return f"{size}, the first of this process"
    return f"{size}, the longest so far {reading.longest:.1f} s"


class Judged(NamedTuple):
    """What is said of one actor."""

    name: str
    in_step: str
    """The group whose workers wait for one another; empty for one that works alone."""
    position: tuple[int, int]
    """Calls, and pieces of the present one."""
    seconds: float
    """Since it made progress."""
    is_busy: bool
    is_stopped: bool
    complaint: str
    """Why it is past its own limit; empty: it is not."""


def hanging(actors: Sequence[Judged]) -> list[Judged]:
    """Those that count as hung: the stopped ones first, then those that are behind.

    Of workers that wait for one another none is blamed while one that is not ahead of it is within its own limit: that one may
    have the larger piece.
    """

    def waits(one: Judged) -> bool:
        others = (other for other in actors if one.in_step and other.in_step == one.in_step)
        return any(other.is_busy and not other.complaint and other.position <= one.position for other in others)

    found = [one for one in actors if one.complaint and (one.is_stopped or not waits(one))]
    return sorted(found, key=lambda one: (not one.is_stopped, one.position, -one.seconds))


@dataclass
class _Watched:
    group: WorkerGroup
    index: int
    beat: Beat | None = None
    """The last one; None: it has not begun, and other limits of time hold."""
    seen: float = 0.0
    """When the last one came."""
    runs_until: float = 0.0
    """Until then a silent process counts as one that runs."""

    @property
    def name(self) -> str:
        return f"{self.group.name} worker {self.index}"

    def where(self) -> str:
        """Node, process, phase and progress of one that has beaten."""
        assert self.beat is not None
        reading = self.beat.reading
        phase = f"in `{reading.phase}`, {reading.done} pieces done" if reading.phase else "idle"
        return f"node {self.beat.host}, pid {self.beat.pid}, {phase}"


class Watchdog:
    """Listens to the actors of a run; `check` is called about once a second while the controller waits for any of them."""

    def __init__(
        self,
        limits: Limits,
        folder: Path | None,
        host: str,
        is_stopping: Callable[[], bool] = lambda: False,
        store_answers: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`folder` takes the stacks of hung runs; None: they are not kept. `host`: this machine's address for all actors.
        `store_answers`: whether Ray's control store does, without which no process begins on another node."""
        self.store_answers = store_answers
        self._limits, self._folder, self._is_stopping, self._clock = limits, folder, is_stopping, clock
        self._token = secrets.token_hex(16)
        self._socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((host, 0))
        self._socket.setblocking(False)
        self._watched: dict[str, _Watched] = {}
        self._checked, self._looked = clock(), 0.0
        self._lock = threading.Lock()  # groups start in threads of their own

    def watch(self, group: WorkerGroup, index: int, actor: Any, name: str) -> None:
        """Have a new actor beat, in place of the one of this index before it."""
        with self._lock:
            for former in [key for key, one in self._watched.items() if (one.group, one.index) == (group, index)]:
                del self._watched[former]
            self._watched[name] = _Watched(group, index)
        address: Address = self._socket.getsockname()[:2]
        actor.__ray_call__.remote(begin, name, address, self._token)

    def check(self) -> None:
        """Kill what hangs. Raises WorkerError where nobody can replace it."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            now = self._clock()
            if now - self._checked < CHECK_SECONDS:
                return
            self._looked += min(now - self._checked, LONGEST_LOOK_SECONDS)
            self._checked = now
            self._listen()
            complaints = self._complaints()
            if complaints:
                self._end(complaints)
        finally:
            self._lock.release()

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def _listen(self) -> None:
        while True:
            try:
                datagram = self._socket.recv(DATAGRAM_BYTES)
            except BlockingIOError:
                return
            beat = Beat.unpack(datagram, self._token)
            if beat is not None and (one := self._watched.get(beat.actor)) is not None:
                one.beat, one.seen = beat, self._looked

    def _complaints(self) -> list[tuple[str, str]]:
        """Names of the actors that hang, each with the reason, the slowest first."""
        stopping = self._is_stopping()
        limit = self._limits.silence(stopping=stopping)
        beating = {name: (one, one.beat.reading) for name, one in self._watched.items() if one.beat is not None}
        silent = [name for name, (one, _) in beating.items() if self._looked > max(one.seen + limit, one.runs_until)]
        seen = self._ask(lifeless, silent, MUTE if silent and self.store_answers() else "")
        self._name_mute_nodes([self._watched[name] for name, why in seen.items() if why == MUTE], limit)
        judged = []
        for name, (one, reading) in beating.items():
            since, why = self._looked - one.seen, seen.get(name, "")
            if why in (GONE, ENDED):
                del self._watched[name]  # no hang: whoever waits for it hears from Ray of what it died
                continue
            if name in seen:
                one.runs_until = self._looked + (MUTE_NODE_SECONDS if why == MUTE else LOOK_AGAIN_SECONDS)
            is_stopped = why not in ("", MUTE)
            judged.append(
                Judged(
                    name,
                    "" if one.group.replaceable else one.group.name,
                    (reading.calls, reading.done),
                    reading.seconds + since,
                    bool(reading.phase) or since > limit,
                    is_stopped,
                    self._limits.complaint(reading, since, why if is_stopped else "", stopping=stopping),
                )
            )
        return [(one.name, one.complaint) for one in hanging(judged)]

    def _name_mute_nodes(self, workers: Sequence[_Watched], limit: float) -> None:
        """Say which nodes have fallen silent as a whole; what becomes of their workers is for Ray to say."""
        nodes: dict[str, list[str]] = {}
        for one in workers:
            assert one.beat is not None
            nodes.setdefault(one.beat.host, []).append(one.name)
        for host, names in nodes.items():
            _logger.warning(
                "%s on node %s: no heartbeat for more than %g s, and the node gives no answer: its power or its network is gone, "
                "or it is overloaded; Ray gives a node up after about a minute",
                ", ".join(names),
                host,
                limit,
            )

    def _end(self, complaints: Sequence[tuple[str, str]]) -> None:
        kept = self._keep_stacks()
        fatal = None
        for name, reason in complaints:
            one = self._watched.pop(name)
            line = f"{reason}; {one.where()}{kept}"
            one.group.kill(one.index, line)
            if not one.group.replaceable:
                fatal = fatal or f"{one.name} hung and was killed: {line}"
        if fatal is not None:
            raise WorkerError(fatal)

    def _keep_stacks(self) -> str:
        """Write what every actor was at; returns where, as the end of a line."""
        if self._folder is None:
            return ""
        folder = self._folder / time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        beating = [name for name, one in self._watched.items() if one.beat is not None]
        texts = self._ask(stacks, beating, f"no stacks: its node gave no answer within {NODE_SECONDS:g} s\n")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lines = [self._described(one) for one in self._watched.values()]
            (folder / "workers.txt").write_text("\n".join(lines) + "\n")
            for name, text in texts.items():
                one = self._watched[name]
                (folder / f"{one.group.name}-{one.index}.txt").write_text(text)
            with (folder / "controller.txt").open("w") as file:
                faulthandler.dump_traceback(file, all_threads=True)
        except OSError as error:
            return f"; the stacks cannot be written ({error})"
        return f"; stacks of all workers in {folder}"

    def _described(self, one: _Watched) -> str:
        if one.beat is None:
            return f"{one.name}: has not beaten yet"
        reading, told = one.beat.reading, f"{one.name}: {one.where()}; last beat {self._looked - one.seen:.0f} s ago"
        if not reading.phase:
            return told
        limit = self._limits.stall(reading, stopping=self._is_stopping())
        return f"{told}, {reading.seconds:.0f} s since progress (limit {limit:.0f} s {_of(reading)})"

    def _ask(self, function: Callable[[list[int]], list[str]], names: Sequence[str], absent: str) -> dict[str, str]:
        """What `function` says of the processes of these actors, by name, each asked on its node; `absent` for a node that does
        not answer."""
        nodes: dict[str, dict[str, int]] = {}
        for name in names:
            if (beat := self._watched[name].beat) is not None:
                nodes.setdefault(beat.node_id, {})[name] = beat.pid
        answers: dict[str, str] = dict.fromkeys(names, absent)
        if here := nodes.pop(this_node_id(), None) if nodes else None:
            answers |= zip(here, function(list(here.values())), strict=True)
        if nodes and self.store_answers():
            with EveryNode(nodes) as others:
                told, _ = others.ask(
                    function, {node: (list(pids.values()),) for node, pids in nodes.items()}, NODE_SECONDS
                )
            for node, texts in told.items():
                answers |= zip(nodes[node], texts, strict=True)
        return answers
