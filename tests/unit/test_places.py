"""The places where points of a sweep run: what is started there, said of it and stopped; real jobs are in test_cluster.py."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lrm_safety.errors import ClusterError, ConfigError
from lrm_safety.launching import Job
from lrm_safety.places import ClusterJobs, LocalProcesses, cluster_resources, room
from lrm_safety.sweeping import Point, doing, is_refused, last_error, run_points


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lrm_safety.sweeping.POLL_SECONDS", 0.0)
    monkeypatch.setattr("lrm_safety.places.POLL_SECONDS", 0.0)


def test_what_is_left_is_followed_and_stopped_by_what_is_said(tmp_path: Path) -> None:
    point = Point("a", ("train", "a"), Path("nowhere/a"))
    for asked, at in ((None, ""), ("http://head:8265", "--address http://head:8265 ")):
        place = ClusterJobs(cast(Any, None), 1, {}, asked)
        place._ids["a"] = "raysubmit_1"
        assert place.how_to_follow(point) == f"lrm-safety jobs logs --follow {at}raysubmit_1"
        assert place.how_to_stop(point) == f"lrm-safety jobs stop {at}raysubmit_1"
    local = LocalProcesses(1, tmp_path / "my logs")
    one = Point("one", ("--version",), tmp_path)
    local.start(one)
    process = local._processes["one"][0]
    process.wait(60)
    assert local.how_to_follow(one) == f"tail -f '{tmp_path}/my logs/one.log'"
    assert local.how_to_stop(one) == f"kill {process.pid}"


def test_a_living_job_of_other_settings_is_named_and_not_taken_for_this_point(tmp_path: Path) -> None:
    point = Point("a", ("train", "a"), Path("nowhere/a"))
    living = SimpleNamespace(
        submission_id="raysubmit_1",
        start_time=1,
        metadata={"job_name": "nowhere/a"},
        status=SimpleNamespace(is_terminal=lambda: False),
        entrypoint="lrm-safety train schedule.max_updates=5 run.directory=/nowhere/a tracking.name='a b'",
    )
    client: Any = SimpleNamespace(list_jobs=lambda: [living])
    same, other = (
        ClusterJobs(client, 1, {"a": Job(f"lrm-safety train {words}", tmp_path, {}, "nowhere/a")})
        for words in ("schedule.max_updates=5 run.directory=/nowhere/a tracking.name=a", "schedule.max_updates=9")
    )
    assert same.start(point) == "runs already, as job raysubmit_1"
    with pytest.raises(ConfigError, match=r"^a: job raysubmit_1 .* other settings; .*lrm-safety jobs stop raysubmit_1"):
        other.start(point)


def test_a_job_that_its_cluster_forgot_has_failed() -> None:
    point = Point("a", ("train", "a"), Path("nowhere/a"))

    def gone(job: str) -> None:
        raise RuntimeError(f"Request failed with status code 404: Job {job} does not exist.")

    client: Any = SimpleNamespace(get_job_info=gone, get_job_logs=gone, stop_job=gone)
    place = ClusterJobs(client, 1, {})
    place._ids["a"] = "raysubmit_1"
    assert place.status(point) == 1
    with pytest.raises(OSError, match="raysubmit_1 does not exist"):
        place.log(point)
    place.stop([point])


def test_as_many_points_as_the_scarcest_resource_allows() -> None:
    assert room({"CPU": 10.0, "GPU": 17.0}, {"CPU": 2.0, "GPU": 8.0}, "a point") == 2
    assert room({"CPU": 0.3}, {"CPU": 0.1}, "a point") == 3, "not 2 by a rounding"
    with pytest.raises(
        ClusterError, match="a point needs 1 CPU, 1 GPU, and the cluster has 8 CPU, 0 GPU; there is no GPU"
    ):
        room({"CPU": 8.0}, {"CPU": 1.0, "GPU": 1.0}, "a point")


def test_a_cluster_that_has_just_started_does_not_know_its_size_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(usage: dict[str, list[float]]) -> SimpleNamespace:
        told = {"data": {"clusterStatus": {"loadMetricsReport": {"usage": usage}}}}
        return SimpleNamespace(json=lambda: told)

    answers = [answer({}), answer({}), answer({"CPU": [1.0, 8.0], "memory": [0.0, 5.0]})]
    client: Any = SimpleNamespace(_do_request=lambda method, path: answers.pop(0) if len(answers) > 1 else answers[0])
    assert cluster_resources(client) == {"CPU": 8.0}
    answers[:] = [
        answer({"CPU": [1.0, 8.0], "bigNode": [0.0, 2.0], "other": [0.0, 1.0]})
    ]  # as Ray's dashboard writes it
    assert cluster_resources(client, ["big_node", "absent"]) == {"CPU": 8.0, "big_node": 2.0}
    answers[:] = [SimpleNamespace(json=lambda: {"data": None})]
    monkeypatch.setattr("lrm_safety.places.SIZE_SECONDS", 0.0)
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


WAITING = "waiting for resources, 4 of at most 45 seconds (cluster.placement_timeout_seconds): policy 1 x {'CPU': 1.0}"


@pytest.mark.parametrize(
    ("log", "does"),
    [
        ("", ""),
        ("checking configuration, model files and prompts ...\n", "checking configuration, model files and prompts"),
        ("start groups ...\nstart rollout, reward ...\n", "start rollout, reward"),
        ("start groups ...\nstart rollout: 0:00:20 so far\n", "start rollout"),
        (f"start groups ...\n{WAITING}\nstart groups: 0:00:10 so far\n", "waits for resources"),
        (f"{WAITING}\nresources granted after 12 seconds\nstart groups: 0:00:20 so far\n", "start groups"),
        (f"{WAITING}\nerror: cluster=local: resources not free within 45\n", ""),
        (f"{WAITING}\nresources granted after 12 seconds\nrestart 1 of 3\n{WAITING}\n", "waits for resources"),
        ("start groups ...\nupdate 1/8 | loss 0.1\n", ""),
    ],
)
def test_a_point_that_starts_does_what_its_log_says(tmp_path: Path, log: str, does: str) -> None:
    point = Point("a", (), tmp_path)
    client = SimpleNamespace(get_job_logs=lambda called: log)
    jobs = ClusterJobs(cast(Any, client), 1, {})
    jobs._ids["a"] = "raysubmit_1"
    (tmp_path / "a.log").write_text(log)
    assert doing(jobs.log(point)) == doing(LocalProcesses(1, tmp_path).log(point)) == doing(log) == does


def test_a_log_that_is_gone_is_no_reason_to_end_a_sweep(tmp_path: Path) -> None:
    class Losing(LocalProcesses):
        def status(self, point: Point) -> int | None:
            if (status := super().status(point)) is not None:
                (tmp_path / "a.log").unlink(missing_ok=True)
            return status

    point = Point("a", ("no such command",), tmp_path)
    run_points([point], Losing(1, tmp_path), retries=0, say=lambda line: None)
    assert point.state == "failed" and re.search(r"its log cannot be read \(.*No such file", point.why)


def test_a_log_of_an_earlier_start_says_nothing_of_this_one(tmp_path: Path) -> None:
    place, point = LocalProcesses(1, tmp_path), Point("a", ("--version",), tmp_path)
    (tmp_path / "a.log").write_text(f"{WAITING}\nstopped by SIGTERM; the same command starts again\n")
    place.start(point)
    assert "waiting" not in place.log(point), "that start was stopped while it waited"
    with (tmp_path / "a.log").open("a") as log:
        log.write(f"{WAITING}\n")
    assert doing(place.log(point)) == "waits for resources" and point.starts == 1
    place.stop([point])


CHECKED = "checking configuration, model files and prompts ...\n"


@pytest.mark.parametrize(
    ("log", "refused"),
    [
        (f"{CHECKED}error: model.path=/nowhere: no such folder\n", True),
        (f"a line of the place itself\n{CHECKED}\nerror: data.path: is absent\n  at f.py:3\n", True),
        (f"{CHECKED}start groups ...\nerror: rollout 0 died\n", False),
        (f"{CHECKED}error: no\n{CHECKED}start groups ...\nerror: rollout 0 died\n", False),
        (CHECKED, False),
        ("error: cannot connect\n", False),
    ],
)
def test_a_run_that_was_refused_before_it_began_is_not_started_again(tmp_path: Path, log: str, refused: bool) -> None:
    assert is_refused(log) == refused

    class Ends(LocalProcesses):
        def status(self, point: Point) -> int | None:
            self._processes[point.name][0].wait(60)
            return 1

        def log(self, point: Point) -> str:
            return log

    point = Point("a", ("--version",), tmp_path)
    run_points([point], Ends(1, tmp_path), retries=1, say=lambda line: None)
    assert (point.state, point.starts) == ("failed", 1 if refused else 2)


def test_a_job_is_called_by_the_least_that_tells_it_from_the_others(tmp_path: Path) -> None:
    names = ["/runs/s/path-/a/export__seed-1", "/runs/s/path-/b/export__seed-1", "/runs/s/seed-1"]
    place = ClusterJobs(cast(Any, None), 1, {name: Job("lrm-safety train", tmp_path, {}, name) for name in names})
    assert [place._called(name) for name in names] == ["a/export__seed-1", "b/export__seed-1", "seed-1"]


def raised(error: Exception) -> str:
    raise error


@pytest.mark.parametrize(
    ("lacking", "total", "own", "workers", "told"),
    [
        (["CPU"], {"CPU": 2.0}, {}, True, "lower cluster.GROUP.num_workers or cluster.GROUP.cpus_per_worker"),
        (
            ["GPU"],
            {"GPU": 2.0},
            {},
            True,
            "lower cluster.GROUP.num_workers or cluster.GROUP.gpus_per_worker or rollout.tensor_parallel_size",
        ),
        (
            ["GPU"],
            {"CPU": 2.0},
            {},
            True,
            "there is no GPU: use a cluster that has some, or a layout for CPUs (cluster=laptop_cpu",
        ),
        (["big"], {"big": 1.0}, {}, True, "lower cluster.GROUP.num_workers or cluster.GROUP.resources.big"),
        (["CPU"], {"CPU": 2.0}, {"CPU": "--a", "GPU": "--b"}, True, "cluster.GROUP.cpus_per_worker or --a"),
        (["GPU"], {"GPU": 2.0}, {"CPU": "--a", "GPU": "--b"}, False, "lower --b"),
    ],
)
def test_only_what_helps_against_what_is_lacking_is_offered(
    lacking: list[str], total: dict[str, float], own: dict[str, str], workers: bool, told: str
) -> None:
    needs = {"CPU": 1.0} | {kind: 4.0 for kind in lacking}
    with pytest.raises(ClusterError) as refused:
        room({"CPU": 8.0} | total, needs, "a point", "", own, workers=workers)
    line = str(refused.value)
    assert told in line and line.count("_per_worker") <= 1, line
