"""The watchdog over real actors, which need no model for it: who hangs is named and ended, who works is left alone."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from hanging_workers import Worker

from lrm_safety.errors import WorkerError
from lrm_safety.progress import PROGRESS
from lrm_safety.settings import ClusterSettings, GroupSettings
from lrm_safety.workers.group import DEATHS, WorkerGroup
from lrm_safety.workers.groups import join_ray
from lrm_safety.workers.heartbeat import Address, Beat
from lrm_safety.workers.placement import Placement, release, reserve
from lrm_safety.workers.watchdog import Limits, Watchdog

pytestmark = pytest.mark.timeout(300)
SILENT_SECONDS = 2.0


@pytest.fixture(scope="module")
def place() -> Iterator[Placement]:
    cluster = ClusterSettings(policy=GroupSettings(num_workers=2), local_num_cpus=2)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)  # actors import this file
        join_ray(cluster)
    placement = reserve(["policy"], cluster)["policy"]
    yield placement
    release([placement.placement_group])
    ray.shutdown()


Make = Callable[..., WorkerGroup]


@pytest.fixture
def pair(place: Placement, tmp_path: Path) -> Iterator[Make]:
    """Two watched workers, with limits of progress of one's own."""
    made: list[tuple[WorkerGroup, Watchdog]] = []

    def make(
        stall: float = 300.0, first: float = 900.0, call: float = 600.0, *, replaceable: bool = False
    ) -> WorkerGroup:
        watchdog = Watchdog(Limits(SILENT_SECONDS, stall, first, call), tmp_path / "hang", "127.0.0.1")
        group = WorkerGroup(
            "pair", Worker, 2, place, {}, lambda index: (index,), watchdog.check, watchdog, replaceable=replaceable
        )
        made.append((group, watchdog))
        group.call("pid", timeout_seconds=120)
        return group

    yield make
    for group, watchdog in made:
        group.end()
        watchdog.close()


def test_a_stopped_worker_is_named_with_the_stacks_of_all(pair: Make, tmp_path: Path) -> None:
    group = pair()
    pid = group.call("pid", timeout_seconds=60)[1]
    began = time.monotonic()
    with pytest.raises(WorkerError) as error:
        group.call("stop_the_second", timeout_seconds=3000)
    assert time.monotonic() - began < 60
    line = str(error.value)
    assert line.startswith("pair worker 1 hung and was killed: no heartbeat for ")
    assert (
        f"(limit 2 s, cluster.silent_seconds=2), its process is stopped (SIGSTOP, or a debugger; `kill -CONT {pid}`"
        in line
    )
    assert f"pid {pid}, in `stop_the_second`, 0 pieces done; stacks of all workers in {tmp_path}/hang/" in line
    (folder,) = (tmp_path / "hang").iterdir()
    texts = {file.name: file.read_text() for file in folder.iterdir()}
    assert texts.keys() == {"workers.txt", "controller.txt", "pair-0.txt", "pair-1.txt"}
    assert "stop_the_second" in texts["pair-0.txt"] and "is stopped" in texts["pair-1.txt"]
    assert "test_a_stopped_worker_is_named" in texts["controller.txt"]
    assert "pair worker 0: " in texts["workers.txt"] and "pair worker 1: " in texts["workers.txt"]
    while os.path.exists(f"/proc/{pid}"):  # killed, although it is stopped
        assert time.monotonic() - began < 90
        time.sleep(0.1)
    assert group.is_alive(0, 5.0)


def test_the_calls_of_a_stopped_worker_that_can_be_replaced_fail_as_those_of_a_dead_one(pair: Make) -> None:
    group = pair(replaceable=True)
    waiting = group.submit(1, "stop_the_second")
    assert group.gather([group.submit(0, "work", 12, 0.5)], "work", 60) == ["done"]
    with pytest.raises(DEATHS) as death:
        group.answer(1, "stop_the_second", waiting)
    fate, why = group.fate(1, death.value)
    assert fate == "hung" and why.startswith("no heartbeat for ")
    group.replace(1)
    assert group.fate(1, death.value)[0] == "died"
    assert len(set(group.call("pid", timeout_seconds=60))) == 2


def test_one_that_died_is_no_hang(pair: Make) -> None:
    """The watchdog sees it long before anybody asks it for something; of what it died Ray knows."""
    group = pair()
    os.kill(group.call("pid", timeout_seconds=60)[1], signal.SIGKILL)
    assert group.gather([group.submit(0, "work", 12, 0.5)], "work", 60) == ["done"]
    with pytest.raises(WorkerError, match=r"^pair worker 1 died during `pid`: "):
        group.call("pid", timeout_seconds=60)


def test_a_worker_that_holds_the_interpreters_lock_is_left_alone(pair: Make) -> None:
    group = pair()
    assert group.call("hold_the_lock", int(3 * SILENT_SECONDS), timeout_seconds=60) == ["done", "done"]


def test_one_that_beats_and_gets_nowhere_is_ended_and_one_that_gets_on_is_not(pair: Make) -> None:
    """Pieces of half a second: ten times that, and two seconds at least, is their limit; the first has four seconds."""
    group = pair(stall=2.0, first=4.0, call=1.0)
    assert group.call("work", 12, 0.5, timeout_seconds=60) == ["done", "done"]
    with pytest.raises(
        WorkerError, match=r"^pair worker 1 hung and was killed: no progress for \d+ s \(limit 4 s "
    ) as error:
        group.gather([group.submit(0, "work", 20, 0.5), group.submit(1, "wait_for_ever")], "work", 3000)
    assert "without pieces, the first of this process, cluster.stall_seconds=2)" in str(error.value)


class _Far:
    """The handle of an actor on a node that is gone: what it was told to do, the test does for it."""

    def __init__(self) -> None:
        self.__ray_call__ = self

    def remote(self, begin: object, name: str, address: Address, token: str) -> None:
        beat = Beat(name, 4711, "far-away", "ab" * 28, PROGRESS.read())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(beat.pack(token), address)


@pytest.mark.parametrize("store_answers", [True, False])
def test_a_node_that_gives_no_answer_is_named_once_and_blamed_for_nothing_more(
    store_answers: bool, pair: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """Of its workers Ray knows; and where Ray's control store is mute, no node could be asked."""
    now = 0.0
    watchdog = Watchdog(
        Limits(30, 300, 900, 600), None, "127.0.0.1", store_answers=lambda: store_answers, clock=lambda: now
    )
    group = pair()
    for index, name in enumerate(("first", "second")):
        watchdog.watch(group, index, _Far(), name)
    with caplog.at_level("WARNING"):
        for then in range(1, 90):
            now = float(then)
            watchdog.check()
    watchdog.close()
    lines = [record.getMessage() for record in caplog.records if "no heartbeat" in record.getMessage()]
    assert len(lines) == (1 if store_answers else 0)
    if lines:
        assert lines[0].startswith(
            "pair worker 0, pair worker 1 on node far-away: no heartbeat for more than 30 s, and the node gives no answer: "
        )
