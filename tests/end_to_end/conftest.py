"""Fixtures of the end-to-end tests: a starter of commands, and one pair of finished runs that all comparisons share."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from running import COMMAND_SECONDS, REPEATED, Command, Sweep, is_forked, title


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Start `lrm-safety` in the test's own folder: command("train", "key=value", VARIABLE="...")."""
    started: list[Command] = []

    def start(*arguments: str, **environment: str) -> Command:
        started.append(Command(tmp_path, arguments, **environment))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A multirun of `REPEATED` over two seeds, with what was alive during it; the runs that others are compared with.

    Of all processes of pytest-xdist the first that needs it makes it, the others wait and read it.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sweep"
    folder.mkdir(exist_ok=True)
    told = folder / "told.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not told.exists():
            told.write_text(json.dumps(_made(folder)), encoding="utf-8")
    return Sweep(folder / "runs", **json.loads(told.read_text(encoding="utf-8")))


def _made(folder: Path) -> dict[str, Any]:
    """Make the multirun; its exit status, what it printed, and (pid, title) of its children at each look."""
    started = Command(folder, ["train", "-m", *REPEATED, "seed=0,1", "run.directory=runs"])
    sightings: list[list[tuple[int, str]]] = []
    deadline = time.monotonic() + 2 * COMMAND_SECONDS
    try:
        while started.process.poll() is None and time.monotonic() < deadline:
            sightings.append([(child.pid, title(child)) for child in started.children() if not is_forked(child)])
            time.sleep(0.5)
        return {"status": started.wait(1), "output": started.output, "sightings": sightings}
    finally:
        started.close()


@pytest.fixture(scope="session")
def uninterrupted(sweep: Sweep) -> Path:
    """Folder of a finished run of `REPEATED` with seed 0."""
    assert sweep.status == 0, sweep.output
    return sweep.run(0)
