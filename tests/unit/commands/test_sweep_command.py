"""The commands' part of a sweep side by side: what a point reserves, and what is said of mistakes."""

from __future__ import annotations

import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from hydra_plugins.lrm_safety_launchers import LocalProcessesLauncher, RayJobsConf, RayJobsLauncher
from lrm_safety.cli import main
from lrm_safety.commands.launch import Task
from lrm_safety.commands.multirun import once, quoted
from lrm_safety.commands.sweep import (
    _fit_at_once,
    _named_as_here,
    cluster_place,
    local_place,
    needs_of,
    refuse_too_large,
    shared_by_all,
)
from lrm_safety.errors import ClusterError, ConfigError
from lrm_safety.launching import Job, plan_job
from lrm_safety.settings.compose import TRAIN, compose_settings, parsed
from lrm_safety.sweeping import Point


def test_custom_resources_of_every_worker_count() -> None:
    overrides = ["experiment=miniature", "+cluster.policy.resources={big_node: 0.5}", "cluster.policy.num_workers=2"]
    overrides += ["+cluster.reward.resources={big_node: 0.25, judge: 1}", "cluster.reward.num_workers=2"]
    own, _ = compose_settings(overrides)
    assert (needs_of(own)["big_node"], needs_of(own)["judge"]) == (1.5, 2.0)
    shared, _ = compose_settings([*overrides, "reward.shared=one"])
    assert needs_of(shared)["big_node"] == 1.0 and "judge" not in needs_of(shared)
    assert shared_by_all(shared)["judge"] == 2.0


def test_a_folder_that_cannot_be_a_jobs_name_is_blamed_on_its_key(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^run\.directory: must be words that everybody may read"), _named_as_here():
        plan_job("train", [], {}, tmp_path, name="runs/first\nsecond")


def test_a_points_command_names_each_key_once_and_quotes_what_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned: list[Point] = []

    def look(points: list[Point], *arguments: object, **options: object) -> None:
        planned.extend(points)
        raise ConfigError("enough was seen")

    monkeypatch.setattr("lrm_safety.sweeping.run_points", look)
    words = ["train", "-m", "experiment=miniature", "hydra/launcher=local_processes", "tracking.tags=[mine]"]
    assert main([*words, f"run.directory={tmp_path}/small", "seed=1,2"]) == 1
    command = plan_job("train", planned[0].words[1:], {}, tmp_path).entrypoint
    keys = [word.partition("=")[0] for word in shlex.split(command)]
    assert len(keys) == len(set(keys)) and keys.count("run.directory") == 1, command
    assert f" run.directory={tmp_path}/small/seed-1 " in command
    assert "'tracking.tags=[mine,\"seed=1\"]'" in command and """'"'"'""" not in command
    directory, tags = (one.value() for one in parsed(shlex.split(command)[2:]) if one.key_or_group in SEEN)
    assert (directory, tags) == (f"{tmp_path}/small/seed-1", ["mine", "seed=1"])


SEEN = ("run.directory", "tracking.tags")


@pytest.mark.parametrize(
    "value", ["/tmp/a", "a b", "it's", 'say "x"', "back\\", "1", "null", "a,b", "[x", "", "x\\'y", "seed=1"]
)
def test_what_is_quoted_reads_as_it_was(value: str) -> None:
    in_list, alone = parsed([f"x=[{quoted(value)}]", f"x={quoted(value)}"])
    assert (in_list.value(), alone.value()) == ([value], value)


def test_a_later_value_makes_an_earlier_one_void_unless_both_are_parts_of_a_group() -> None:
    words = ["train", "a=1", "b={x:1}", "b={y:2}", "a=2", "~c", "+a=3"]
    assert once(words) == ["train", "b={x:1}", "b={y:2}", "a=2", "~c", "+a=3"]


@pytest.mark.parametrize("key", ["run.directory", "hydra.sweep.dir"])
def test_a_relative_folder_of_jobs_is_refused_by_the_key_that_named_it(key: str) -> None:
    launcher = RayJobsLauncher()
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": "outputs/mine"}}})
    launcher.task = Task(TRAIN, lambda *_: 0, ("train", "-m", f"{key}=outputs/mine"), sweeps=True)
    with pytest.raises(ConfigError, match=rf"^{key}=outputs/mine: is relative") as refused:
        launcher.place([])
    assert ("`export LRM_SAFETY_RUNS=" in str(refused.value)) == (key == "run.directory")


def test_a_launcher_of_ones_own_does_not_hide_a_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "conf/hydra/launcher/mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("defaults: [local_processes]\nretries: 3\n")
    monkeypatch.chdir(tmp_path)
    sweep = ["train", "-m", "--config-dir", "conf", "experiment=miniature", "seed=1,2"]
    for chosen in ("local_processes", "mine"):
        assert main([*sweep, f"hydra/launcher={chosen}", "hydra.launcher.jobs=3"]) == 1
        error = capsys.readouterr().err
        assert f"hydra.launcher.jobs: hydra/launcher={chosen} has no such option" in error and error.count("\n") == 1


def test_a_point_that_never_fits_is_named_with_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"entrypoint_num_cpus": None, "entrypoint_num_gpus": None}
    small, _ = compose_settings(["experiment=miniature"])
    large, _ = compose_settings(["experiment=miniature", "cluster.policy.num_workers=3"])
    planned = [(Point("seed=1", (), Path("a")), small), (Point("seed=2", (), Path("b")), large)]
    needs = [needs_of(settings)["CPU"] for _, settings in planned]
    assert needs[0] < needs[1] <= 2 * needs[0]
    monkeypatch.setattr("lrm_safety.commands.sweep.cluster_resources", lambda *_: {"CPU": needs[0]})
    with pytest.raises(
        ClusterError, match=rf"^seed=2 \(workers: 3 policy, .*\) needs {needs[1]:g} CPU.*cluster\.GROUP\.num_workers"
    ):
        _fit_at_once(None, planned, options)
    monkeypatch.setattr("lrm_safety.commands.sweep.cluster_resources", lambda *_: {"CPU": 2 * needs[0]})
    assert _fit_at_once(None, planned, options) == 1, "two of the larger do not fit"
    assert _fit_at_once(None, planned[:1], options) == 2


class Dashboard:
    """A client of a cluster that says its nodes' states and its resources."""

    def __init__(self, states: list[str], **resources: float) -> None:
        usage = {kind: [0.0, amount] for kind, amount in resources.items()}
        self._told: dict[str, Any] = {
            "/nodes?view=summary": {"summary": [{"raylet": {"state": state}} for state in states]},
            "/api/cluster_status": {"clusterStatus": {"loadMetricsReport": {"usage": usage}}},
        }

    def _do_request(self, method: str, path: str) -> Any:
        return SimpleNamespace(json=lambda: {"data": self._told[path]})


def test_a_job_that_its_cluster_can_never_hold_is_refused(tmp_path: Path) -> None:
    job = Job("lrm-safety train", tmp_path, {})
    (small,) = [compose_settings(["experiment=miniature"])[0]]
    needs = needs_of(small)["CPU"]
    whole: Any = Dashboard(["ALIVE"], CPU=needs / 2)
    with pytest.raises(
        ClusterError, match=rf"^train \(workers: 2 policy, .*\) needs {needs:g} CPU, and the cluster has .*cpus_per"
    ):
        refuse_too_large(whole, "train", [small], job)
    left_to_the_job: list[tuple[Any, list[str]]] = [
        (Dashboard(["ALIVE"], CPU=needs), []),
        (Dashboard(["ALIVE", "DEAD"], CPU=needs / 2), []),
        (whole, ["cluster.expected_nodes=2"]),
        (whole, ["cluster.address=elsewhere:6379"]),
        (Dashboard(["ALIVE"], CPU=needs - 0.5), ["cluster.policy.min_workers=1"]),
    ]
    for client, overrides in left_to_the_job:
        refuse_too_large(client, "train", [compose_settings(["experiment=miniature", *overrides])[0]], job)


def test_a_command_that_reserves_more_gpus_than_there_are_is_refused_with_its_option(tmp_path: Path) -> None:
    job = Job("lrm-safety evaluate", tmp_path, {}, num_gpus=2)
    client: Any = Dashboard(["ALIVE"], CPU=4.0)
    with pytest.raises(
        ClusterError, match=r"needs 2 GPU, and the cluster has 4 CPU, 0 GPU; lower --entrypoint-num-gpus$"
    ):
        refuse_too_large(client, "evaluate", [], job)


def test_what_never_fits_is_refused_before_anything_is_sent(
    repository_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(repository_root)
    for module in ("sweep", "jobs"):
        monkeypatch.setattr(f"lrm_safety.commands.{module}.connect", lambda _: Dashboard(["ALIVE"], CPU=0.5))
    words = ["experiment=miniature", "run.directory=/shared/runs/small"]
    assert main(["submit", "--", "train", *words]) == 1
    told = capsys.readouterr()
    assert told.out == "" and "needs" in told.err and told.err.count("\n") == 1
    options = {name: field.default for name, field in RayJobsConf.__dataclass_fields__.items()} | {"env": []}
    settings, _ = compose_settings(words)
    with pytest.raises(ClusterError, match="needs"):
        cluster_place([(Point("seed=1", ("train", *words), Path("/shared/runs/small/seed-1")), settings)], options)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("devices", "concurrency", "told"),
    [
        (
            "",
            None,
            r"^a needs 8 GPUs and this machine shows 0; there is no GPU: use a machine that has some, or a layout",
        ),
        ("0,1", 1, r"^a needs 8 GPUs and this machine shows 2; choose a smaller cluster=OPTION, .*gpus_per_worker"),
        (",".join(map(str, range(8))), 2, r"^hydra\.launcher\.concurrency=2: .* so that 1 fit at once; lower it to 1$"),
    ],
)
def test_gpus_that_this_machine_lacks_are_told_with_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: str, concurrency: int | None, told: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    large, _ = compose_settings(["experiment=star1", "model=qwen3_1_7b", "cluster=node_8gpu_split"])
    with pytest.raises(ConfigError, match=told):
        local_place([(Point("a", (), Path("a")), large)], tmp_path, concurrency)


def test_a_sweep_whose_points_are_all_done_asks_for_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = LocalProcessesLauncher(concurrency=1, retries=0, on_interrupt="ask")
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    point = Point("seed=1", (), tmp_path, state="done before")
    monkeypatch.setattr(launcher, "_config", lambda *_: ())
    monkeypatch.setattr(launcher, "place", lambda *_: pytest.fail("nothing is to be placed"))
    settings = SimpleNamespace(run=SimpleNamespace())
    launcher.task = SimpleNamespace(point=lambda *_: (point, settings))
    assert [one.return_value for one in launcher.launch([["seed=1"]], 0)] == [None]
