"""Fixtures of the end-to-end tests: a starter of commands, and one pair of finished runs that all comparisons share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

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
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sweep]:
    """A multirun of `REPEATED` over two seeds, with what was alive during it; the runs that others are compared with."""
    folder = tmp_path_factory.mktemp("sweep")
    started = Command(folder, ["train", "-m", *REPEATED, "seed=0,1", "run.directory=runs"])
    sightings: list[set[tuple[int, str]]] = []
    deadline = time.monotonic() + 2 * COMMAND_SECONDS
    try:
        while started.process.poll() is None and time.monotonic() < deadline:
            sightings.append({(child.pid, title(child)) for child in started.children() if not is_forked(child)})
            time.sleep(0.5)
        yield Sweep(folder / "runs", started, started.wait(1), sightings)
    finally:
        started.close()


@pytest.fixture(scope="session")
def uninterrupted(sweep: Sweep) -> Path:
    """Folder of a finished run of `REPEATED` with seed 0."""
    assert sweep.status == 0, sweep.command.output
    return sweep.run(0)
