"""Points side by side, with places that are told when each of them ends; real processes and jobs are in test_cluster.py."""

from __future__ import annotations

import io
import json
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.errors import ClusterError, ConfigError
from lrm_safety.interruption import StopRequested
from lrm_safety.sweeping import (
    LocalProcesses,
    Point,
    cluster_resources,
    finished,
    last_error,
    objective_of,
    room,
    run_points,
)


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
        self.most = max(self.most, len(self.running))
        return "started"

    def status(self, point: Point) -> int | None:
        status = self.running[point.name]
        if point.state != "running":
            self.running.pop(point.name, None)
        return status

    def why(self, point: Point) -> str:
        self.running.pop(point.name)
        return "error: out of luck"

    def stop(self, points: Sequence[Point]) -> None:
        self.stopped = [point.name for point in points]


def points(*names: str) -> list[Point]:
    return [Point(name, ("train", name), Path("nowhere") / name) for name in names]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrm_safety.sweeping.POLL_SECONDS", 0.0)


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
    assert told[:2] == ["[1/3] a: started", "[1/3] a: exit status 137: error: out of luck; will be started again"]
    assert told[-1] == "[3/3] a: done"


@pytest.mark.parametrize(
    ("on_interrupt", "typed", "leaves", "state"),
    [
        ("ask", None, False, "stopped"),  # nobody to ask
        ("ask", None, True, "left running"),
        ("ask", "l\n", False, "left running"),
        ("ask", "s\n", True, "stopped"),
        ("ask", "", True, "left running"),  # Ctrl-D
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
    with pytest.raises(StopRequested):
        run_points(made, place, retries=0, on_interrupt=on_interrupt, say=lambda line: None)  # type: ignore[arg-type]
    assert made[0].state == "done" and made[1].state == state
    assert ("b" in place.stopped) == (state == "stopped")


def record(folder: Path, status: int | None, config: dict[str, object]) -> None:
    folder.mkdir(parents=True)
    (folder / "environment.json").write_text(json.dumps({"starts": [{"exit_status": 1}, {"exit_status": status}]}))
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


def test_what_is_finished(tmp_path: Path) -> None:
    config = {"run": {"name": "x", "directory": "there"}, "seed": 1, "tracking": {"name": None}}
    record(tmp_path / "whole", 0, config)
    record(tmp_path / "failed", 1, config)
    record(tmp_path / "killed", None, config)
    elsewhere = {**config, "run": {"name": "x", "directory": "here"}, "tracking": {"name": "x seed=1"}}
    assert finished(tmp_path / "whole", elsewhere)
    assert not finished(tmp_path / "whole", {**elsewhere, "seed": 2})
    assert not any(finished(tmp_path / name, config) for name in ("failed", "killed", "absent"))


def test_the_objective_is_the_last_value(tmp_path: Path) -> None:
    lines = [
        {"update": 0, "evaluation/safety": 0.1},
        {"update": 2, "evaluation/safety": 0.75},
        {"update": 4, "kl/k1": 1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert objective_of(tmp_path, "evaluation/safety") == 0.75
    assert objective_of(tmp_path, None) is None
    with pytest.raises(ConfigError, match=r"run\.objective=evaluation/other: the run in \S+ has no value of it"):
        objective_of(tmp_path, "evaluation/other")


def test_as_many_points_as_the_scarcest_resource_allows() -> None:
    assert room({"CPU": 10.0, "GPU": 17.0}, {"CPU": 2.0, "GPU": 8.0}, "a point") == 2
    assert room({"CPU": 0.3}, {"CPU": 0.1}, "a point") == 3, "not 2 by a rounding"
    with pytest.raises(ClusterError, match="a point needs 1 CPU, 1 GPU, and the cluster has 8 CPU; choose a smaller"):
        room({"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}, "a point")


def test_a_cluster_that_has_just_started_does_not_know_its_size_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(usage: dict[str, list[float]]) -> SimpleNamespace:
        told = {"data": {"clusterStatus": {"loadMetricsReport": {"usage": usage}}}}
        return SimpleNamespace(json=lambda: told)

    answers = [answer({}), answer({}), answer({"CPU": [1.0, 8.0], "memory": [0.0, 5.0]})]
    client: Any = SimpleNamespace(_do_request=lambda method, path: answers.pop(0) if len(answers) > 1 else answers[0])
    assert cluster_resources(client) == {"CPU": 8.0}
    answers[:] = [SimpleNamespace(json=lambda: {"data": None})]
    monkeypatch.setattr("lrm_safety.sweeping.SIZE_SECONDS", 0.0)
    with pytest.raises(ClusterError, match="concurrency: the cluster does not say how large it is"):
        cluster_resources(client)


def test_the_error_of_a_log() -> None:
    log = "update 1\nerror: data.path: is absent\n  at f.py:3 in g: h()\nbye\n"
    assert last_error(log) == "error: data.path: is absent"
    assert last_error("Traceback ...\n  File x\nRuntimeError: seven\n") == "RuntimeError: seven"
    assert last_error("killed\n") == "killed" and last_error("") == ""


def test_a_process_has_its_own_devices_log_and_end(tmp_path: Path) -> None:
    place = LocalProcesses(2, tmp_path / "logs", ["0", "1", "2", "3"], 2)
    made = [Point("one", ("--version",), tmp_path), Point("other", ("no such command",), tmp_path)]
    run_points(made, place, retries=0, say=lambda line: None)
    one, other = made
    assert one.state == "done" and (tmp_path / "logs" / "one.log").read_text().startswith("lrm-safety ")
    assert other.state == "failed" and re.match(r"exit status \d: error: .*no such command", other.why)
    assert place._shares == ["0,1", "2,3"]
