"""The folders of sweeps and of single runs stay apart, and a sweep's record is of the last one that came to be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from lrm_safety.checkpoints import CheckpointStore
from lrm_safety.cli import main
from lrm_safety.commands.launch import launch
from lrm_safety.commands.runs import find_runs
from lrm_safety.errors import ConfigError
from lrm_safety.lab.reports.gather import gather
from lrm_safety.run_folder import RunFolder, owned
from lrm_safety.settings.compose import ROOTS, compose_settings
from lrm_safety.sweep_files import finished, objective_of

MINIATURE = ["train", "experiment=miniature"]


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


def sweep_of(folder: Path) -> Path:
    """The folder of a sweep of one point that is finished."""
    record(folder / "seed-1", 0, {"seed": 1})
    (folder / "seed-1" / "metrics.jsonl").write_text('{"update": 1, "time": 1.0, "train/update": 1}\n')
    (folder / "multirun.yaml").write_text("seed: 1,2\n")
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("words", [[], ["-m"], ["-m", "hydra/launcher=local_processes"]])
@pytest.mark.parametrize(
    "command", [MINIATURE, ["sft", "model=miniature"], ["evaluate", "model=miniature", "evaluation=miniature"]]
)
def test_a_single_run_does_not_go_into_the_folder_of_a_sweep(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], words: list[str]
) -> None:
    before = content(sweep_of(tmp_path / "mine"))
    assert main([*command, *words, "seed=1", f"run.directory={tmp_path}/mine"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: run.directory={tmp_path}/mine: is the folder of a sweep, with 1 run below it; ")
    assert error.count("\n") == 1 and content(tmp_path / "mine") == before


@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=local_processes"]])
@pytest.mark.parametrize("key", ["run.directory", "hydra.sweep.dir"])
def test_a_sweep_does_not_go_into_the_folder_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str, launcher: list[str]
) -> None:
    record(tmp_path / "mine", 0, {"seed": 1})
    before = content(tmp_path)
    assert main([*MINIATURE, "-m", *launcher, "seed=1,2", f"{key}={tmp_path}/mine"]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {key}={tmp_path}/mine: is the folder of a run") and error.count("\n") == 1
    assert content(tmp_path) == before


def test_a_point_alone_has_the_sweeps_folder_and_goes_on_there(tmp_path: Path) -> None:
    """`-m` over one value has no folders below; neither the sweep nor the run alone is refused afterwards."""
    done: list[Path] = []

    def run(settings: Any, resolved: dict[str, Any], folder: RunFolder) -> int:
        folder.begin(resolved)
        done.append(folder.path)
        return 1

    words = ["model=miniature", f"run.directory={tmp_path}/mine", "seed=1"]
    for flags in (["-m"], ["-m"], []):
        launch(ROOTS["sft"], run, [*flags, *words])
    assert done == [tmp_path / "mine"] * 3


@pytest.mark.parametrize(("begins", "kept"), [(False, True), (True, False)], ids=["refused", "another begins"])
def test_a_sweep_of_which_every_point_is_refused_leaves_the_record_of_the_one_before(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], begins: bool, kept: bool
) -> None:
    def run_of(*, begins: bool) -> Callable[[Any, dict[str, Any], RunFolder], int]:
        def run(settings: Any, resolved: dict[str, Any], folder: RunFolder) -> int:
            if not begins:
                raise ConfigError("data.path: holds something else now")
            folder.begin(resolved)
            return 1

        return run

    words = ["-m", "model=miniature", f"run.directory={tmp_path}/mine"]
    assert launch(ROOTS["sft"], run_of(begins=True), [*words, "seed=1,2"]) == 1
    written = (tmp_path / "mine" / "multirun.yaml").read_bytes()
    capsys.readouterr()
    assert launch(ROOTS["sft"], run_of(begins=begins), [*words, "seed=2,3", "sft.batch_size=4"]) == 1
    assert ((tmp_path / "mine" / "multirun.yaml").read_bytes() == written) == kept
    why = "none of its runs has a record yet" if begins else "no folder of a point has a run of what was asked for"
    assert f"no report of the sweep: {why}" in capsys.readouterr().err


def test_nothing_is_left_of_a_sweep_of_which_every_point_is_refused(tmp_path: Path) -> None:
    def run(settings: Any, resolved: dict[str, Any], folder: RunFolder) -> int:
        raise ConfigError("data.path: is not there")

    assert launch(ROOTS["sft"], run, ["-m", "model=miniature", f"run.directory={tmp_path}/mine", "seed=1,2"]) == 1
    assert os.listdir(tmp_path) == []


def test_a_point_of_another_configuration_is_refused_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    started: list[list[str]] = []

    def look(points: list[Any], *arguments: object, **options: object) -> None:
        started.append([one.name for one in points])

    monkeypatch.setattr("lrm_safety.sweeping.run_points", look)
    words = [*MINIATURE, f"run.directory={tmp_path}/mine"]
    for seed in (1, 2):
        settings, _ = compose_settings([*words[1:], f"seed={seed}"])
        store = CheckpointStore(tmp_path / "mine" / f"seed-{seed}" / "checkpoints")
        identity = {**asdict(settings), "content": {"weights of model.path": "0"}}
        store.commit(store.begin(4), 4, state={"update": 4}, config=identity, data_fingerprint="0")
    (tmp_path / "mine" / "multirun.yaml").write_text("of the first\n")
    before = content(tmp_path)
    sweep = [*words, "-m", "hydra/launcher=local_processes", "seed=1,2"]
    assert main([*sweep, "algorithm.kl.coef=0.5"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(
        f"error: miniature seed=1: {tmp_path}/mine/seed-1/checkpoints/update-000004 belongs to another "
    )
    assert "algorithm.kl.coef" in told.err and told.err.count("\n") == 1 and not told.out
    assert content(tmp_path) == before and not started
    for allowed in ("schedule.stop_after_updates=5", "checkpoint.allow_changes=true"):
        main([*sweep, allowed, *(["algorithm.kl.coef=0.5"] if "allow" in allowed else [])])
    assert started == [["miniature seed=1", "miniature seed=2"]] * 2


def test_a_sweep_at_work_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    with owned(tmp_path / "mine", ["train", "-m"]):
        (tmp_path / "mine" / "multirun.yaml").touch()
        assert find_runs(tmp_path) == []
        sweep_of(tmp_path / "mine")
        assert [(one.name, one.state) for one in find_runs(tmp_path)] == [("mine/seed-1", "finished")]


def test_a_report_of_a_run_says_that_points_lie_below_it(tmp_path: Path) -> None:
    """Such folders were made before they were refused."""
    folder = sweep_of(tmp_path / "mine")
    (folder / "environment.json").write_text(json.dumps({"starts": [{"exit_status": 0}]}))
    (folder / "metrics.jsonl").write_text('{"update": 1, "time": 1.0, "train/update": 1}\n')
    note = f"{folder} holds a run, which is read alone, and 1 of a sweep below it: `lrm-safety report {folder}/*/` is of those"
    assert gather([str(folder)]).notes == [note]
    assert gather([str(folder / "seed-1")]).notes == []
