"""Points side by side, with places that are told when each of them ends; real processes and jobs are in test_cluster.py."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety import sweeping
from lrm_safety.errors import ClusterError
from lrm_safety.interruption import StopRequested
from lrm_safety.monitoring.metrics_file import MetricsFile
from lrm_safety.sweeping import Point, last_update, run_points


class Scripted:
    """Every start of a point takes one look; it ends with the next status of its script, 0 at last."""

    def __init__(self, concurrency: int, scripts: dict[str, list[int]], leaves: bool = False) -> None:
        self.concurrency, self.leaves = concurrency, leaves
        self.scripts = {name: list(script) for name, script in scripts.items()}
        self.running: dict[str, int] = {}
        self.most, self.order, self.stopped = 0, list[str](), list[str]()

    def start(self, point: Point) -> str:
        script = self.scripts.get(point.name) or [0]
        self.running[point.name] = script.pop(0)
        self.order.append(point.name)
        point.starts += 1
        self.most = max(self.most, len(self.running))
        return "started"

    def status(self, point: Point) -> int | None:
        status = self.running[point.name]
        if point.state != "running":
            self.running.pop(point.name, None)
        return status

    def log(self, point: Point) -> str:
        return {"b": "waiting for resources, 4 of at most 45 seconds: policy\n"}.get(point.name, "error: out of luck")

    def stop(self, points: Sequence[Point]) -> None:
        self.stopped = [point.name for point in points]

    def how_to_follow(self, point: Point) -> str:
        return f"follow {point.name}"

    def how_to_stop(self, point: Point) -> str:
        return f"end {point.name}"


def points(*names: str) -> list[Point]:
    return [Point(name, ("train", name), Path("nowhere") / name) for name in names]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrm_safety.sweeping.POLL_SECONDS", 0.0)
    monkeypatch.setattr("lrm_safety.places.POLL_SECONDS", 0.0)


@given(st.integers(1, 5), st.integers(0, 3), st.lists(st.lists(st.integers(1, 3), max_size=5), min_size=1, max_size=8))
def test_every_point_ends_and_no_more_run_at_once_than_there_is_room(
    concurrency: int, retries: int, failures: list[list[int]]
) -> None:
    scripts = {f"p{i}": [*statuses, 0] for i, statuses in enumerate(failures)}
    made = points(*scripts)
    place = Scripted(concurrency, scripts)
    run_points(made, place, retries=retries, say=lambda line: None)
    for point, statuses in zip(made, failures, strict=True):
        assert point.starts == min(len(statuses), retries) + 1
        assert point.state == ("done" if len(statuses) <= retries else "failed")
        assert (point.state == "failed") == point.why.endswith(": error: out of luck")


def test_a_failed_point_comes_after_those_that_wait_and_finished_ones_not_at_all() -> None:
    made = points("a", "b", "c")
    made[2].state = "done before"
    told: list[str] = []
    place = Scripted(1, {"a": [137, 0]})
    run_points(made, place, retries=1, say=told.append)
    assert place.order == ["a", "b", "a"]
    assert told[:3] == [
        "[1/3] done before, and not again: c",
        "[1/3] a: started",
        "[1/3] a: exit status 137: error: out of luck; will be started again",
    ]
    assert told[-1] == "[3/3] a: done"


@pytest.mark.parametrize(
    ("on_interrupt", "typed", "leaves", "state"),
    [
        ("ask", None, False, "stopped"),  # nobody to ask
        ("ask", None, True, "left running"),
        ("ask", "l\n", False, "left running"),
        ("ask", "s\n", True, "stopped"),
        ("ask", "", True, "left running"),  # Ctrl-D
        ("ask", "x\n\nstay\nS\n", True, "stopped"),  # none of the answers: asked again
        ("ask", "Stop\n", True, "stopped"),
        ("ask", "leave\n", False, "left running"),
        ("stop", "l\n", True, "stopped"),
        ("leave", "s\n", False, "left running"),
    ],
)
def test_an_interrupt_stops_or_leaves_what_runs_and_starts_nothing_more(
    monkeypatch: pytest.MonkeyPatch, on_interrupt: str, typed: str | None, leaves: bool, state: str
) -> None:
    stdin = io.StringIO(typed)
    monkeypatch.setattr(stdin, "isatty", lambda: typed is not None)
    monkeypatch.setattr("sys.stdin", stdin)
    made = points("a", "b", "c")

    class Interrupted(Scripted):
        def status(self, point: Point) -> int | None:
            if point.name == "b":
                os.kill(os.getpid(), signal.SIGTERM)
                return None
            return super().status(point)

    place = Interrupted(2, {}, leaves)
    with pytest.raises(StopRequested) as stop:
        run_points(made, place, retries=0, on_interrupt=on_interrupt, say=lambda line: None)  # type: ignore[arg-type]
    assert stop.value.then == "goes on with the points that are left"
    assert made[0].state == "done" and made[1].state == state
    assert ("b" in place.stopped) == (state == "stopped")


class Interrupting(Scripted):
    """Its points run until they are stopped; a signal comes at the first look at the first one."""

    def status(self, point: Point) -> int | None:
        if point.name == "a":
            os.kill(os.getpid(), signal.SIGHUP)
        return None


def test_an_interrupt_by_accident_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stdin = io.StringIO("go on\ncontinue\nl\n")
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)

    looks = list[str]()

    class Twice(Scripted):
        def status(self, point: Point) -> int | None:
            looks.append(point.name)
            if point.name in ("a", "d") and looks.count(point.name) == 1:
                os.kill(os.getpid(), signal.SIGINT)
                return None
            return None if point.name == "d" else super().status(point)

    made, told = points("a", "b", "c", "d", "e"), list[str]()
    with pytest.raises(StopRequested):
        run_points(made, Twice(2, {}), retries=0, say=told.append)
    assert [point.state for point in made] == ["done", "done", "done", "left running", "done"]
    meanings = "c goes on with the sweep, l leaves them running, s stops them (what trains already saves first)"
    assert sum(line.endswith(meanings) and "points that run: " in line for line in told) == 2, (
        "went on after the first, ended with the second"
    )
    assert sum(line.endswith(f"go on is none of them: {meanings}") for line in told) == 1
    assert told[-1] == "[4/5] d runs on; follow it: follow d; stop it: end d"


def test_who_waits_is_told_how_far_each_point_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(Scripted):
        looks = 0

        def status(self, point: Point) -> int | None:
            self.looks += 1
            if self.looks == 1:
                made[0].began -= 130
                made[1].began -= 5
            return None if self.looks <= 6 else super().status(point)

    made = [Point(name, (), tmp_path / name, updates=8) for name in ("a", "b", "c")]
    (tmp_path / "a").mkdir()
    later = time.time() + 60
    rows = [json.dumps({"update": i, "time": later, "long": "x" * 70_000}) for i in range(5)]
    (tmp_path / "a/metrics.jsonl").write_text("\n".join(rows) + '\n{"update": 5, "lo')  # the last is being written
    earlier = {"update": 3, "time": 1.0}

    class Opened(Slow):
        def start(self, point: Point) -> str:
            if point.name == "b":  # as a run does before it waits, here one that goes on
                (tmp_path / "b").mkdir()
                (tmp_path / "b/metrics.jsonl").write_text(json.dumps(earlier) + "\n")
                MetricsFile(tmp_path / "b/metrics.jsonl", keep_until=3).close()
            return super().start(point)

    told = list[str]()
    monkeypatch.setattr("lrm_safety.sweeping.SAY_SECONDS", 0.0)
    run_points(made, Opened(2, {}), retries=0, say=told.append)
    lines = [line for line in told if "running:" in line]
    assert re.fullmatch(
        r"\[0/3\] \d\d:\d\d UTC, running: a update 4/8 \(0:02:1\d\), b waits for resources \(0:00:0\d\); 1 wait; "
        "look closer: follow a",
        lines[0],
    )
    assert lines[1].endswith("; 1 wait"), "once is enough"


@pytest.mark.parametrize(
    ("log", "told"),
    [
        (
            "checking configuration, model files and prompts ...\n",
            "a checking configuration, model files and prompts (0:00:05)",
        ),
        (
            "checking configuration, model files and prompts ...\nerror: belongs to another configuration\n",
            "a (0:00:05)",
        ),
        ("update 8/8 | loss 0.1\n", "a update 8/8 (0:00:05)"),  # the clock of its node is behind
    ],
)
def test_updates_of_an_earlier_run_in_its_folder_are_not_a_points_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, log: str, told: str
) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"update": 8, "time": 1.0}) + "\n")
    place = Scripted(1, {})
    monkeypatch.setattr(place, "log", lambda point: log)
    point = Point("a", (), tmp_path, updates=8, began=time.time() - 5)
    assert sweeping._how_far(point, place) == told


@pytest.mark.parametrize("written", [None, "", "{}\n", "no json\n", "[1]\n", '{"update": 3'])
def test_a_run_without_a_record_has_no_update(tmp_path: Path, written: str | None) -> None:
    if written is not None:
        (tmp_path / "metrics.jsonl").write_text(written)
    assert last_update(tmp_path) is None


@pytest.fixture
def heard_hang_up() -> Iterator[None]:
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


@pytest.mark.usefixtures("heard_hang_up")
@pytest.mark.parametrize("gone", [OSError(5, "EIO"), BrokenPipeError()])
def test_points_are_stopped_though_nobody_can_be_told(gone: OSError) -> None:
    def say(line: str) -> None:
        raise gone

    made, place = points("a", "b"), Interrupting(2, {})
    with pytest.raises(StopRequested):
        run_points(made, place, retries=0, on_interrupt="stop", say=say)
    assert place.stopped == ["a", "b"] and [point.state for point in made] == ["stopped", "stopped"]


@pytest.mark.usefixtures("heard_hang_up")
def test_after_a_second_signal_at_the_question_the_points_have_time_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(prompt: str) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("the signal was not heard")

    before, pending = threading.enumerate(), list[bool]()

    class Looking(Interrupting):
        def stop(self, points: Sequence[Point]) -> None:
            new = [one for one in threading.enumerate() if isinstance(one, threading.Timer) and one not in before]
            pending.extend(not one.finished.is_set() for one in new)
            super().stop(points)

    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", ask)
    place = Looking(1, {})
    with pytest.raises(StopRequested):
        run_points(points("a"), place, retries=0, say=lambda line: None)
    assert place.stopped == ["a"] and not any(pending)


class Unsteady(Scripted):
    """Refuses its first `refusals` requests for a status."""

    refusals = 0

    def status(self, point: Point) -> int | None:
        self.refusals -= 1
        if self.refusals >= 0:
            raise OSError("the dashboard is away")  # as errors of `requests` are
        return super().status(point)


def test_a_place_that_refuses_for_a_while_loses_no_point(monkeypatch: pytest.MonkeyPatch) -> None:
    made, told, place = points("a", "b", "c"), list[str](), Unsteady(2, {"a": [1, 0]})
    place.refusals = 3
    run_points(made, place, retries=1, say=told.append)
    assert [(point.state, point.starts) for point in made] == [("done", 2), ("done", 1), ("done", 1)]
    assert told.count("[0/3] the dashboard is away; is asked again for 300 s") == 1

    monkeypatch.setattr("lrm_safety.sweeping.TROUBLE_SECONDS", 0.0)
    made, place = points("a", "b", "c"), Unsteady(2, {}, leaves=True)
    place.refusals = 99
    with pytest.raises(ClusterError, match="the dashboard is away; the same command goes on"):
        run_points(made, place, retries=1, say=told.append)
    assert [point.state for point in made] == ["left running", "left running", "waiting"]


def test_a_sweep_speaks_soon_and_then_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now, told = [0.0], list[tuple[float, str]]()

    class Lasting(Scripted):
        def status(self, point: Point) -> int | None:
            return None if now[0] < 200 else super().status(point)

    def sleep(_: float) -> None:
        now[0] += 1

    monkeypatch.setattr(
        "lrm_safety.sweeping.time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0], sleep=sleep)
    )
    run_points(points("a"), Lasting(1, {}), retries=0, say=lambda line: told.append((now[0], line)))
    first, *between, last = told
    assert (first, last) == ((0, "[0/1] a: started"), (200, "[1/1] a: done"))
    # After 10 s of silence, then 20, 40, and 60 from there on.
    assert [at for at, _ in between] == [10, 30, 70, 130, 190] and all("running: a" in line for _, line in between)


def test_a_failed_start_is_no_start() -> None:
    class Refusing(Scripted):
        def start(self, point: Point) -> str:
            self.order.append(point.name)
            if len(self.order) == 1:
                raise ClusterError("the cluster did not take the job")
            return super().start(point)

    made, place = points("a"), Refusing(1, {})
    run_points(made, place, retries=0, say=lambda line: None)
    assert made[0].state == "done" and made[0].starts == 1 and len(place.order) == 3


def test_a_point_that_leaves_at_its_deadline_goes_on_as_long_as_it_gets_further(tmp_path: Path) -> None:
    class Writing(Scripted):
        def start(self, point: Point) -> str:
            if point.name == "further":
                with (tmp_path / "metrics.jsonl").open("a") as file:
                    file.write("{}\n")
            return super().start(point)

    further, stuck = Point("further", (), tmp_path), Point("stuck", (), tmp_path / "stuck")
    told: list[str] = []
    run_points(
        [further, stuck], Writing(1, {"further": [75, 75, 75, 0], "stuck": [75] * 9}), retries=1, say=told.append
    )
    assert (further.state, further.starts) == ("done", 4) and (stuck.state, stuck.starts) == ("failed", 2)
    assert "[0/2] further: left at its deadline; will be started again" in told


def test_a_point_that_somebody_stopped_is_not_started_again() -> None:
    made = points("a", "b")
    told: list[str] = []
    run_points(made, Scripted(1, {"a": [143, 0], "b": [0]}), retries=3, say=told.append)
    assert [(point.state, point.starts) for point in made] == [("stopped", 1), ("done", 1)]
    assert (
        "[1/2] a: stopped by somebody else; the same command starts it again, from its last checkpoint if it has one"
        in told
    )
