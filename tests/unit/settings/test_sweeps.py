"""A multirun is checked before Hydra runs it, so both must make the same list; and what its runs are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from lrm_safety.commands.launch import launch
from lrm_safety.commands.multirun import tracker_names
from lrm_safety.errors import ConfigError
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
