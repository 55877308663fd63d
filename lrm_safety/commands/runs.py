"""`lrm-safety runs`: what lies in a folder of runs, what became of each, and what it takes on the disk."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from ..errors import ConfigError, DataError, LrmSafetyError
from ..files import read_json
from ..interruption import TRY_AGAIN
from ..lab.reports.combine import kinds_in_training
from ..lab.reports.folders import read_run
from ..results import Evaluation
from ..run_folder import ENVIRONMENT, ERROR, OWNER, at_work
from ..settings.types import RUNS_VARIABLE
from ..sweep_files import is_of_a_sweep
from ..terminal import print_table, told_bytes
from .words import is_assignment, unknown_word

HEAD = ["run", "command", "state", "updates", "safety", "size", "last"]
State = Literal["running", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Run:
    """One folder that a command of ours works or worked in."""

    name: str
    """Its path below the folder that was asked about."""
    folder: str
    command: str
    """The subcommand of its last start; empty where nothing tells it."""
    state: State
    reason: str
    """Of one that failed, the last line of error.txt."""
    updates: int | None
    planned_updates: int | None
    benchmark: str | None
    """The first benchmark of safety that it evaluated, with its last value."""
    safety: float | None
    bytes: int
    """On the disk, with everything below."""
    started: str
    recorded: str
    """When the last record of its metrics was written; empty where there is none."""
    ended: str | None

    @property
    def last(self) -> str:
        """The last that is known of it: its end, its last record or its start."""
        return max(self.started, self.recorded, self.ended or "")


def runs(arguments: list[str]) -> int:
    """Run `runs [FOLDER] [--json]`; returns the exit status."""
    flags = [item for item in arguments if item.startswith("-")]
    unknown = [item for item in flags if item != "--json"] or [item for item in arguments if is_assignment(item)]
    if unknown:
        raise unknown_word("runs", unknown[0], ("--json",), "FOLDER and --json")
    folders = [item for item in arguments if item not in flags]
    if len(folders) > 1:
        raise ConfigError(f"runs: give one folder, not {' and '.join(folders)}")
    folder = Path(folders[0] if folders else os.environ.get(RUNS_VARIABLE, "outputs"))
    if not folder.is_dir():
        raise ConfigError(f"runs: {folder}: no such folder; name the one that your runs are in, or set {RUNS_VARIABLE}")
    found = find_runs(folder)
    if flags:
        print(json.dumps([asdict(one) for one in found], indent=2))
        return 0
    if not found:
        print(f"no run in {folder} or below it")
        return 0
    console = Console()
    print_table(console, f"runs in {folder}, the newest last", HEAD, [_row(one) for one in found], left=3, spare=2)
    for one in found:
        if one.reason:
            console.print(f"{one.name} failed: {one.reason}", soft_wrap=True, highlight=False, markup=False)
    return 0


def find_runs(folder: Path) -> list[Run]:
    """The runs in and below a folder, in the order of the last that is known of them."""
    places = {path.parent for record in (ENVIRONMENT, ERROR, OWNER) for path in folder.rglob(record)}
    places = {place for place in places if not is_of_a_sweep(place)}  # its owner is the sweep
    return sorted((_read(folder, place) for place in places), key=lambda one: (one.last, one.name))


def _read(above: Path, folder: Path) -> Run:
    owner = at_work(folder)
    start = _last_start(folder)
    line = owner.command if owner else str(start.get("command", ""))
    command = next(iter(shlex.split(line)[1:]), "")
    state, reason = _ended(folder, start, command)
    updates, planned, recorded = _updates(folder)
    benchmark, safety = _safety(folder)
    return Run(
        name=folder.absolute().name if folder == above else str(folder.relative_to(above)),
        folder=str(folder),
        command=command,
        state="running" if owner else state,
        reason="" if owner else reason,
        updates=updates,
        planned_updates=planned,
        benchmark=benchmark,
        safety=safety,
        bytes=_size(folder),
        started=owner.since if owner else str(start.get("started", "")),
        recorded=recorded,
        ended=None if owner else start.get("ended"),
    )


def _last_start(folder: Path) -> Mapping[str, Any]:
    try:
        return dict(read_json(folder / ENVIRONMENT)["starts"][-1])
    except (DataError, LookupError, TypeError, ValueError):
        return {}  # nothing was begun yet, or the file is not ours


def _ended(folder: Path, start: Mapping[str, Any], command: str) -> tuple[State, str]:
    """How a run that is not at work ended. error.txt is always of the last start: the next one that begins removes it."""
    status = start.get("exit_status")
    try:
        *_, last = (folder / ERROR).read_text(encoding="utf-8", errors="replace").split("\n")[:-1] or [""]
        return "failed", re.sub(r"^lrm_safety\.errors\.\w+: ", "", last)
    except OSError:
        pass  # there is none
    if status is None or status == TRY_AGAIN or status >= 128:
        return "stopped", ""  # without a status it was killed
    # An audit whose verdict is `fail` has done its work, and says so by its status.
    return ("finished" if status == 0 or command == "audit-reward" else "failed"), ""


def _updates(folder: Path) -> tuple[int | None, int | None, str]:
    """How far it came, how far it was to come, and when it last wrote a record."""
    try:
        run = read_run(folder)
    except LrmSafetyError:
        return None, None, ""
    done = max((points[-1][0] for points in run.series.values() if points), default=0)
    return done, run.planned_updates, run.recorded


def _safety(folder: Path) -> tuple[str | None, float | None]:
    try:
        if (folder / Evaluation.FILE).exists():
            for name, one in Evaluation.read(folder).benchmarks.items():
                if one.kind == "safety" and one.headline is not None:
                    return name, one.headline.value
        run = read_run(folder)
        for name, kind in kinds_in_training(run).items():
            if kind == "safety" and (points := run.series.get(f"evaluation/{name}")):
                return name, points[-1][1]
    except LrmSafetyError:
        pass  # no results, or those of something else
    return None, None


def _size(folder: Path) -> int:
    """Bytes on the disk; what is removed meanwhile counts for nothing."""
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def _row(run: Run) -> list[str]:
    updates = "" if run.updates is None else str(run.updates)
    if run.updates is not None and run.planned_updates is not None:
        updates = f"{updates}/{run.planned_updates}"
    safety = "" if run.safety is None else f"{run.benchmark} {run.safety:.3f}"
    last = run.last[len("2026-") : len("2026-11-28 22:14")]  # day and minute, UTC
    return [run.name, run.command, run.state, updates, safety, told_bytes(run.bytes), last]
