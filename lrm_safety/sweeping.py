"""The points of a sweep side by side: as many at once as there is room for, failed ones again, finished ones not once more.

Where they run is a `Place` (places.py); hydra_plugins/ makes Hydra's launchers of them.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from .errors import ClusterError, first_line
from .interruption import TRY_AGAIN, Interruption, StopRequested
from .launching import STOPPED_EXIT_CODE
from .monitoring.progress import CHECKING, RESOURCES_GRANTED, START_SILENCE_SECONDS, WAITING_FOR_RESOURCES, duration

POLL_SECONDS = 1.0
SAY_SECONDS = 60.0
"""How often something is said while nothing changes."""
LAST_BYTES = 1 << 18
"""Of a run's metrics.jsonl; a line of it takes a few thousand."""
TROUBLE_SECONDS = 300.0
"""How long a place may refuse what is asked of it, as while the head of its cluster restarts, before the sweep ends."""
PHASE = re.compile(r"((?:checking|start) .+?)(?: \.\.\.|: \d+:\d\d:\d\d so far)")
"""Lines of a run's log by which it says what it begins to do."""
State = Literal["waiting", "running", "done", "done before", "failed", "stopped", "left running"]
OnInterrupt = Literal["ask", "leave", "stop"]
Answer = Literal["continue", "leave", "stop"]


@dataclass
class Point:
    """One run of a sweep."""

    name: str
    """The overrides that tell it from the others."""
    words: tuple[str, ...]
    """What is typed after `lrm-safety` for it alone."""
    folder: Path
    state: State = "waiting"
    starts: int = 0
    failures: int = 0
    why: str = ""
    """How it failed, in one line."""
    progress: int = 0
    """Bytes of metrics that it had written when it last ended."""
    began: float = 0.0
    """When it was started last."""
    updates: int | None = None
    """How many it is to do; None: it is no training, or its passes decide."""


class Place(Protocol):
    """Where points run. What it raises as OSError, RuntimeError or ClusterError may pass, and is asked of it again."""

    concurrency: int
    """Points at once."""
    leaves: bool
    """Whether running points are left alone after an interrupt that nobody can be asked about."""

    def start(self, point: Point) -> str:
        """Start a point, which counts in its `starts` unless it runs already; returns what people are told of it."""

    def status(self, point: Point) -> int | None:
        """The exit status of a started point; None while it runs."""

    def log(self, point: Point) -> str:
        """What a point has printed since it was started last. Raises OSError where that cannot be read."""

    def stop(self, points: Sequence[Point]) -> None:
        """Let points save and end, and wait for them."""

    def how_to_follow(self, point: Point) -> str:
        """What is typed to see what a started point prints."""

    def how_to_stop(self, point: Point) -> str:
        """What is typed to let a started point save and end."""


def run_points(
    points: Sequence[Point],
    place: Place,
    *,
    retries: int,
    on_interrupt: OnInterrupt = "ask",
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Bring every waiting point to an end, which its `state` then says.

    A point that fails is started again, after those that wait, up to `retries` times; it goes on from its checkpoint. Raises
    StopRequested after a signal, with the running points stopped or left running, as the user says; ClusterError where the place
    refuses everything for `TROUBLE_SECONDS`.
    """
    waiting = deque(point for point in points if point.state == "waiting")
    running: list[Point] = []
    interruption, said, trouble, told_where = Interruption(), time.monotonic(), None, False
    patience = min(START_SILENCE_SECONDS, SAY_SECONDS)

    def tell(line: str) -> None:
        nonlocal said
        said = time.monotonic()
        with suppress(OSError):  # the terminal was closed, or who read this has left: no reason to lose points
            say(f"{_count(points)} {line}")

    def step() -> None:
        while waiting and len(running) < place.concurrency:
            point = waiting[0]
            point.began = time.time()
            told = place.start(point)
            running.append(waiting.popleft())
            point.state = "running"
            tell(f"{point.name}: {told}")
        look()

    def look() -> None:
        """Take out what has ended."""
        for point in list(running):
            if (status := place.status(point)) is None:
                continue
            _ended(point, status, "" if status in (0, TRY_AGAIN, STOPPED_EXIT_CODE) else _log(place, point), retries)
            running.remove(point)
            if point.state == "waiting":
                waiting.append(point)
            tell(f"{point.name}: {_told(point)}")

    def to_the_end() -> None:
        nonlocal trouble, told_where, patience
        while waiting or running:
            interruption.check()
            try:
                step()
                trouble = None
            except (OSError, RuntimeError, ClusterError) as error:
                if trouble is None:
                    trouble = time.monotonic()
                    tell(f"{first_line(error)}; is asked again for {TROUBLE_SECONDS:g} s")
                elif time.monotonic() - trouble >= TROUBLE_SECONDS:
                    raise ClusterError(f"{first_line(error)}; the same command goes on with the sweep") from error
            if running and time.monotonic() - said >= patience:
                patience = min(2 * patience, SAY_SECONDS)
                told_where = _say_progress(running, len(waiting), place, tell, told_where)
            if waiting or running:
                time.sleep(POLL_SECONDS)

    if before := [point.name for point in points if point.state == "done before"]:
        tell(f"done before, and not again: {', '.join(before)}")
    with interruption.handled():
        while True:
            try:
                return to_the_end()
            except StopRequested as error:
                error.then = "goes on with the points that are left"
                interruption.stay()
                answer = (
                    _answer(running, place, on_interrupt, tell, may_continue=not error.at_once) if running else "leave"
                )
                if answer == "continue":
                    interruption.forget()
                    continue
                with suppress(OSError, RuntimeError, ClusterError, StopRequested):
                    look()  # some may have ended while the question stood
                _leave(running, place, tell, stops=answer == "stop", interruption=interruption)
                raise
            except Exception:
                interruption.stay()
                _leave(running, place, tell, stops=not place.leaves, interruption=interruption)
                raise


def _leave(
    running: Sequence[Point], place: Place, tell: Callable[[str], None], *, stops: bool, interruption: Interruption
) -> None:
    """Stop the running points, or say how they are followed and stopped without this sweep."""
    if not running:
        return
    interruption.stay()
    if stops:
        tell(f"stopping {len(running)}; what trains already saves first ...")
        _all(running, "stopped")
        try:
            place.stop(running)
        except ClusterError:
            _all(running, "left running")
            raise
        return
    _all(running, "left running")
    for point in running:
        tell(f"{point.name} runs on; follow it: {place.how_to_follow(point)}; stop it: {place.how_to_stop(point)}")


def _all(points: Sequence[Point], state: State) -> None:
    for point in points:
        point.state = state


def _say_progress(
    running: Sequence[Point], waiting: int, place: Place, tell: Callable[[str], None], told_where: bool
) -> bool:
    """One line of how far each running point is; the first of a sweep says where to look closer. Returns True."""
    line = f"{datetime.now(UTC):%H:%M} UTC, running: {', '.join(_how_far(point, place) for point in running)}; {waiting} wait"
    tell(line if told_where else f"{line}; look closer: {place.how_to_follow(running[0])}")
    return True


def _how_far(point: Point, place: Place) -> str:
    """`a update 4/8 (0:02:10)`: with the time since its start; what it says that it does until its folder has a record of it."""
    update = last_update(point.folder)
    told = "" if update is None else f"update {update:g}" + (f"/{point.updates}" if point.updates else "")
    if not _recorded_since(point.folder, point.began):
        log = _log(place, point)  # the record is another run's, or this one's by a clock that is behind
        told = doing(log) or told * ("\nupdate " in f"\n{log}")
    return f"{point.name}{f' {told}' if told else ''} ({duration(time.time() - point.began)})"


def _recorded_since(folder: Path, began: float) -> bool:
    """Whether a run has written a record since a time: it has its resources then, and nobody needs to read its log. The file
    itself is touched before it waits for them."""
    with suppress(ValueError, TypeError):
        return float((_last_record(folder) or {}).get("time", 0.0)) > began
    return False


def last_update(folder: Path) -> float | None:
    """The update of the last record of a run's metrics; None where there is none."""
    try:
        return float((_last_record(folder) or {})["update"])
    except (LookupError, ValueError, TypeError):
        return None


def _last_record(folder: Path) -> dict[str, Any] | None:
    """The last whole line of a run's metrics, of which only the end is read; None where there is none."""
    try:
        with (folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - LAST_BYTES))
            lines = file.read().split(b"\n")[:-1]  # what follows the last newline is just being written
        record = json.loads(lines[-1])
    except (OSError, ValueError, LookupError):
        return None
    return record if isinstance(record, dict) else None


def _log(place: Place, point: Point) -> str:
    """What a point has printed, or why that cannot be read, which is no reason to end the sweep."""
    try:
        return place.log(point)
    except OSError as error:
        return f"its log cannot be read ({first_line(error)})"


def last_error(log: str) -> str:
    """The last line of a log that tells an error, or else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error: |[A-Za-z_.]*(Error|Exception)\b)", line)]
    return (errors or lines or [""])[-1]


def doing(log: str) -> str:
    """What the last line of a starting run's log says that it does, as `start rollout` or `waits for resources`; empty where it
    has given up, or is past its start."""
    told = ""
    for line in log.splitlines():
        if line.startswith(WAITING_FOR_RESOURCES):
            told = "waits for resources"
        elif line.startswith(RESOURCES_GRANTED):
            told = "starts"
        elif phase := PHASE.fullmatch(line):  # of the wait itself the line of resources tells more
            told = told if told.startswith("waits") else phase[1]
        elif line.startswith(("error: ", "stopped ", "update ")):
            told = ""
    return told


def is_refused(log: str) -> bool:
    """Whether a run of this log was refused by its checks, with nothing begun: it would be refused again."""
    _, checked, after = log.rpartition(f"{CHECKING}\n")
    return bool(checked) and after.lstrip().startswith("error: ")


def _count(points: Sequence[Point]) -> str:
    ended = sum(point.state in ("done", "done before", "failed", "stopped") for point in points)
    return f"[{ended}/{len(points)}]"


def _ended(point: Point, status: int, log: str, retries: int) -> None:
    """Decide what becomes of a point that ended. One that left at its deadline and got further goes on at no cost."""
    if status == 0:
        point.state, point.why = "done", ""
        return
    if status == STOPPED_EXIT_CODE:
        point.state, point.why = (
            "stopped",
            "by somebody else; the same command starts it again, from its last checkpoint if it has one",
        )
        return
    progress = sum(file.stat().st_size for file in point.folder.rglob("metrics.jsonl"))
    further, point.progress = progress > point.progress, progress
    if status == TRY_AGAIN and further:
        point.state, point.why = "waiting", "left at its deadline"
        return
    point.failures += 1
    why = last_error(log)
    point.why = f"exit status {status}{': ' * bool(why)}{why}"
    point.state = "waiting" if point.failures <= retries and not is_refused(log) else "failed"


def _told(point: Point) -> str:
    if point.state == "waiting":
        return f"{point.why}; will be started again"
    return {"done": "done", "stopped": f"stopped {point.why}"}.get(point.state, f"failed with {point.why}")


def _answer(
    running: Sequence[Point],
    place: Place,
    on_interrupt: OnInterrupt,
    tell: Callable[[str], None],
    *,
    may_continue: bool,
) -> Answer:
    """What is to become of the running points. Who cannot be asked is not: then it is as the place is made.

    After a second signal, which may have come in the middle of a start, the sweep cannot go on (`may_continue`).
    """
    unasked: Answer = "leave" if place.leaves else "stop"
    if on_interrupt != "ask":
        return on_interrupt
    if not sys.stdin.isatty():
        return unasked
    choices: tuple[Answer, ...] = ("continue", "leave", "stop") if may_continue else ("leave", "stop")
    goes_on = "c goes on with the sweep, " * may_continue
    meanings = f"{goes_on}l leaves them running, s stops them (what trains already saves first)"
    tell(f"points that run: {len(running)}; {meanings}")
    prompt = "c, l or s? " if may_continue else "l or s? "
    try:
        while True:
            typed = input(prompt).strip().lower()
            if answer := next((one for one in choices if typed in (one, one[0])), None):
                return answer
            tell(f"{typed or 'an empty line'} is none of them: {meanings}")
    except (EOFError, OSError, StopRequested):  # Ctrl-D, a closed terminal, or Ctrl-C once more
        return unasked
