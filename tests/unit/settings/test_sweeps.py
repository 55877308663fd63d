"""A multirun is checked before Hydra runs it, so both must make the same list; and what its runs are called."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from lrm_safety.commands.launch import launch
from lrm_safety.commands.multirun import check_folder_names, quoted, tracker_names
from lrm_safety.errors import ConfigError
from lrm_safety.run_folder import RunFolder
from lrm_safety.settings.compose import TRAIN, compose_settings, parsed, sweep

SWEEPS = {
    "none": ["experiment=miniature", "seed=3"],
    "simple": ["seed=1,2"],
    "choice": ["trainer.lr=choice(1e-6,5e-7)"],
    "range": ["seed=range(1,4)"],
    "range with a step": ["seed=range(0,10,4)"],
    "two": ["experiment=miniature", "seed=1,2", "algorithm=reinforce_pp,rloo"],
    "groups": ["model=miniature,qwen3_8b", "~tracking.tags=null"],
    "added and quoted": ["+rollout.engine.mode='a b'", "seed=1,2", "cluster.colocate=[[reward,reference]]"],
}


@pytest.mark.parametrize("name", SWEEPS)
def test_the_same_runs_as_hydra_in_the_same_order(name: str) -> None:
    parsed = OverridesParser.create().parse_overrides(SWEEPS[name])
    (expected,) = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    ours = [
        [str(item.input_line) for item in OverridesParser.create().parse_overrides(run)] for run in sweep(SWEEPS[name])
    ]
    normal = [[item.replace("'", "") for item in run] for run in ours]
    assert normal == [[item.replace("'", "") for item in run] for run in expected]


def test_the_last_sweep_varies_fastest() -> None:
    assert list(sweep(["a=1", "seed=1,2", "b=x,y"])) == [
        ["a=1", "seed=1", "b=x"],
        ["a=1", "seed=1", "b=y"],
        ["a=1", "seed=2", "b=x"],
        ["a=1", "seed=2", "b=y"],
    ]
    assert list(sweep(["seed=range(1,4)"])) == [["seed=1"], ["seed=2"], ["seed=3"]]


def test_every_run_of_a_sweep_composes() -> None:
    runs = [compose_settings(run)[0] for run in sweep(["experiment=miniature", "seed=4,5", "algorithm.gamma=1,0.9"])]
    assert [(run.seed, run.algorithm.gamma) for run in runs] == [(4, 1.0), (4, 0.9), (5, 1.0), (5, 0.9)]


def test_an_unparsable_sweep_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"^seed=range\(1: "):
        list(sweep(["seed=range(1"]))


ABLATIONS = "ablation/no_kl,ablation/no_clip,ablation/one_update,ablation/few_prompts"
TOLD = {
    # Overrides of a multirun, a name and its group, and how many names and groups there are.
    "seeds": (["experiment=miniature", "seed=1,2"], ("miniature seed=2", "miniature"), (2, 1)),
    "ablations and seeds": (
        ["experiment=miniature", "ablation=no_kl,no_clip,one_update,few_prompts", "seed=range(5)"],
        ("miniature ablation=no_clip seed=0", "miniature ablation=no_clip"),
        (20, 4),
    ),
    # Experiments of one run.name.
    "experiments and seeds": (
        [f"experiment={ABLATIONS}", "seed=0,1,2,3,4"],
        ("miniature experiment=ablation/no_clip seed=0", "miniature experiment=ablation/no_clip"),
        (20, 4),
    ),
    "without seeds": (
        ["experiment=miniature", "algorithm.kl.coef=0,0.1"],
        ("miniature algorithm.kl.coef=0.1", "miniature"),
        (2, 1),
    ),
    # Names that are apart by themselves.
    "names": (["experiment=miniature", "run.name=a,b", "seed=0,1"], ("a seed=0", "a"), (4, 2)),
}


@pytest.mark.parametrize("case", TOLD)
def test_names_in_the_tracker_tell_the_runs_of_a_multirun_apart(case: str) -> None:
    overrides, expected, (num_names, num_groups) = TOLD[case]
    swept = {item.get_key_element() for item in parsed(overrides) if item.is_sweep_override()}
    found = tracker_names(list(sweep(overrides)), swept, [compose_settings(run)[0] for run in sweep(overrides)])
    assert expected in [(one.name, one.group) for one in found]
    assert len({one.name for one in found}) == len(found) == num_names
    assert len({one.group for one in found}) == num_groups
    assert all(set(one.tags) <= set(one.name.split()) for one in found), "tags are the overrides that tell it apart"


def test_a_pattern_stands_for_options_of_its_group() -> None:
    assert list(sweep(["model=glob(qwen3_*)", "seed=1"])) == [
        ["model=qwen3_1_7b", "seed=1"],
        ["model=qwen3_4b", "seed=1"],
        ["model=qwen3_8b", "seed=1"],
    ]
    for pattern in ("model=glob(qwen9*)", "seed=glob(*)"):
        with pytest.raises(ConfigError, match="fits none of"):
            list(sweep([pattern]))


def test_every_run_of_a_multirun_knows_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found: list[tuple[int, str | None, str | None]] = []

    def run(settings: Any, *_: object) -> None:
        found.append((settings.seed, settings.tracking.name, settings.tracking.group))

    assert launch(TRAIN, run, ["experiment=miniature", "seed=3,5", "-m"]) == 0
    assert launch(TRAIN, run, ["experiment=miniature", "seed=7", "tracking.group=mine"]) == 0
    swept = ["-m", "experiment=miniature", "seed=8", "algorithm.gamma=1,0.9", "tracking.group=mine"]
    assert launch(TRAIN, run, swept) == 0
    assert found == [
        (3, "miniature seed=3", "miniature"),
        (5, "miniature seed=5", "miniature"),
        (7, None, "mine"),
        (8, "miniature algorithm.gamma=1", "mine"),
        (8, "miniature algorithm.gamma=0.9", "mine"),
    ]


class Recorder:
    """Stands in for a run; what each was, with its folder and its name in the tracker."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, str, tuple[str, ...], str]] = []

    def __call__(self, settings: Any, resolved: dict[str, Any], folder: RunFolder) -> None:
        own = settings.tracking
        assert resolved["tracking"]["tags"] == own.tags and resolved["tracking"]["name"] == own.name
        self.seen.append((settings.seed, own.name, tuple(own.tags), folder.path.name))


def test_of_a_key_that_is_given_again_the_last_counts_in_what_runs_and_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Recorder()
    assert (
        launch(
            TRAIN,
            run,
            ["-m", "experiment=miniature", "seed=7", "algorithm.gamma=1,0.9", "seed=1,3", "algorithm.gamma=0.8"],
        )
        == 0
    )
    assert run.seen == [
        (1, "miniature seed=1", ("seed=1",), "seed-1"),
        (3, "miniature seed=3", ("seed=3",), "seed-3"),
    ]
    for twice in (["seed=1,2", "seed=1,3"], ["model=miniature,qwen3_4b", "model=glob(qwen3*)"]):
        key = twice[0].partition("=")[0]
        with pytest.raises(
            ConfigError, match=rf"^{key}: several values are given twice, {re.escape(' and '.join(twice))};"
        ):
            launch(TRAIN, run, ["-m", "experiment=miniature", *twice])
    assert len(run.seen) == 2


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["seed=1,1"], "seed=1: stands twice in this sweep; give each value once"),
        (["seed=1,2", "trainer.lr=1e-6,0.000001"], "seed=1 trainer.lr=1e-06: stands twice"),
        (["run.name=a,b"], "run.name=a and run.name=b: are the same run twice"),
        (["algorithm=reinforce_pp,reinforce_pp"], "algorithm=reinforce_pp: stands twice"),
    ],
)
def test_points_that_are_one_run_are_refused(
    tmp_path: Path, overrides: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^{re.escape(said)}"):
        launch(TRAIN, Recorder(), ["-m", "experiment=miniature", *overrides])
    assert not list(tmp_path.iterdir())


def test_names_alone_may_differ_beside_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Recorder()
    assert launch(TRAIN, run, ["-m", "experiment=miniature,ablation/no_clip", "run.name=a"]) == 0
    assert [name for _, name, _, _ in run.seen] == ["a experiment=miniature", "a experiment=ablation/no_clip"]


def test_a_file_may_say_what_is_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "conf/experiment/mine.yaml"
    mine.parent.mkdir(parents=True)
    text = "# @package _global_\ndefaults: [miniature]\nhydra:\n  sweeper:\n    params:\n      seed: 3,5\n"
    mine.write_text(text)
    run = Recorder()
    words = ["--config-dir", "conf", "experiment=mine"]
    assert launch(TRAIN, run, ["-m", *words]) == 0
    assert [(seed, name, folder) for seed, name, _, folder in run.seen] == [
        (3, "miniature seed=3", "seed-3"),
        (5, "miniature seed=5", "seed-5"),
    ]
    assert launch(TRAIN, run, ["-m", *words, "seed=6,7", "--cfg", "job", "-p", "seed"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.isdigit()] == ["6", "7"] and said.count("# run ") == 2
    with pytest.raises(ConfigError, match=r"^hydra\.sweeper\.params: belongs into a file"):
        launch(TRAIN, run, ["-m", "experiment=miniature", "hydra.sweeper.params={seed:'1,2'}"])
    mine.write_text(text.replace("hydra:\n", "hydra:\n  mode: MULTIRUN\n"))
    with pytest.raises(ConfigError, match=r"^hydra\.mode: is MULTIRUN.* wants -m"):
        launch(TRAIN, run, words)
    assert launch(TRAIN, run, ["-m", *words]) == 0 and len(run.seen) == 4, "which is then as without it"


def test_several_values_without_a_multirun_say_what_they_want() -> None:
    with pytest.raises(
        ConfigError, match=r"^seed=1,2: are several values; a run for each wants -m, and a list brackets, seed=\[1,2\]$"
    ):
        compose_settings(["experiment=miniature", "seed=1,2"])


def test_a_sweeps_folder_is_its_own_while_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["-m", "experiment=miniature", "seed=1,2"]
    refusals = []

    def run(settings: Any, *_: object) -> None:
        again = [sys.executable, "-m", "lrm_safety", "train", *words, "algorithm.gamma=0.9"]
        done = subprocess.run(again, capture_output=True, text=True, check=False, timeout=100)
        refusals.append((done.returncode, done.stderr))

    assert launch(TRAIN, run, words) == 0
    assert len(refusals) == 2 and not list(tmp_path.rglob(".owner*"))
    for status, line in refusals:
        assert status == 1 and re.match(
            r"error: run\.directory=outputs/miniature: is in use by .*nothing was changed", line
        )
        assert line.count("\n") == 1, line


@pytest.mark.parametrize("name", ["a b", "a,b", "it's [x]"])
@pytest.mark.parametrize("key", ["run.directory", "hydra.sweep.dir"])
def test_a_sweeps_folder_may_have_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    seen = list[Path]()

    def run(settings: Any, resolved: dict[str, Any], folder: RunFolder) -> None:
        folder.begin(resolved)

    monkeypatch.setattr(
        "lrm_safety.commands.launch.report_sweep", lambda folder, runs: seen.extend([folder, *(one for one, _ in runs)])
    )
    assert launch(TRAIN, run, ["-m", "experiment=miniature", "seed=1,2", f"{key}={quoted(name)}"]) == 0
    assert [one.resolve() for one in seen] == [tmp_path / name, tmp_path / name / "seed-1", tmp_path / name / "seed-2"]
    assert {one.name for one in tmp_path.iterdir()} == {name}


@pytest.mark.parametrize(
    ("paths", "refused"),
    [
        (["/c/m/export", "/c/m"], True),
        (["/c/m", "/c/m/checkpoint-500"], True),
        (["/c/m", "/c/m-2"], False),
        (["/c/m/a", "/c/m/b"], False),
    ],
)
def test_no_run_of_a_sweep_lies_in_the_folder_of_another(paths: list[str], refused: bool) -> None:
    """One would be written into the other's export or checkpoints, which that one replaces."""
    combinations = list(sweep(["experiment=miniature", f"model.path={','.join(paths)}"]))
    if not refused:
        return check_folder_names(combinations, {"model.path"})
    inner, outer = sorted(paths, reverse=True)
    with pytest.raises(ConfigError, match=rf"^model\.path={inner}: its folder, .* inside that of model\.path={outer};"):
        check_folder_names(combinations, {"model.path"})


def test_a_launcher_without_a_multirun_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"^hydra/launcher=ray_jobs: is read of a multirun alone; add -m"):
        launch(TRAIN, Recorder(), ["experiment=miniature", "hydra/launcher=ray_jobs"])
    assert launch(TRAIN, Recorder(), ["experiment=miniature", "hydra/launcher=basic"]) == 0
