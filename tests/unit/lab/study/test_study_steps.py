"""The commands of a study: which, in which order, and that each is checked before the first starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lrm_safety.errors import ConfigError
from lrm_safety.lab.study.steps import Step, check_steps, models_of, steps_of
from lrm_safety.settings.compose import EVALUATE, TRAIN, compose_study
from lrm_safety.settings.paths import configuration_directory


def steps(*overrides: str) -> list[Step]:
    settings, _ = compose_study(["run.directory=made", *overrides])
    return steps_of(settings)


def check(*overrides: str) -> dict[str, str]:
    settings, _ = compose_study(["run.directory=made", *overrides])
    return check_steps(steps_of(settings), settings)


def test_a_seed_is_three_models_and_two_analyses() -> None:
    assert [step.name for step in steps("seeds=[3,4]")] == [
        f"{name}, seed {seed}"
        for seed in (3, 4)
        for name in (
            "evaluate base",
            "train sft",
            "evaluate sft",
            "train rl",
            "evaluate rl",
            "reflection",
            "memorization",
        )
    ]


def test_every_evaluation_is_the_same_but_for_weights_seed_and_place() -> None:
    settings, _ = compose_study(["run.directory=made", "seeds=[3]"])
    evaluations = [step.arguments for step in steps_of(settings) if step.kind.startswith("evaluate")]
    own = ("model.path=", "seed=", "run.")
    assert len({tuple(item for item in one if not item.startswith(own)) for one in evaluations}) == 1
    weights = [[item for item in one if item.startswith("model.path=")] for one in evaluations]
    assert weights == [[], ["model.path=made/sft/seed-3/run/export"], ["model.path=made/rl/seed-3/run/export"]]
    assert all("seed=3" in one for one in evaluations)


def test_each_step_reads_what_earlier_ones_make_and_needs_those_alone() -> None:
    made: dict[str, Path] = {}
    for step in steps("seeds=[0,1]"):
        read = {
            Path(value)
            for value in (item.partition("=")[2] for item in step.arguments if not item.startswith("run."))
            if value.startswith("made/")
        }
        makers = {
            path: {name for name, product in made.items() if path == product or path in product.parents}
            for path in read
        }
        assert all(len(names) == 1 for names in makers.values()), step
        assert set(step.needs) == set().union(*makers.values()), step
        made[step.name] = step.produces


def test_an_evaluation_of_a_study_on_a_node_has_an_engine_for_each_of_its_gpus() -> None:
    evaluated, trained = (
        next(step.arguments for step in steps("study=star1") if step.kind == kind)
        for kind in ("evaluate base", "train rl")
    )
    assert EVALUATE.compose(evaluated[1:])[0].run.num_engines == 8
    cluster = TRAIN.compose(trained[1:])[0].cluster
    groups = (cluster.policy, cluster.rollout, cluster.reward, cluster.reference)
    assert sum(one.num_workers for one in groups) == 8, "the whole node trains too"


def test_a_method_without_overrides_is_left_out() -> None:
    assert [
        step.name
        for step in steps("seeds=[0]", *(f"overrides.{name}=[]" for name in ("sft", "analyze", "memorization")))
    ] == [
        "evaluate base, seed 0",
        "train rl, seed 0",
        "evaluate rl, seed 0",
    ]
    settings, _ = compose_study(["seeds=[0]", "overrides.rl=[]"])
    assert [model.method for model in models_of(settings)] == ["base", "sft"]


@pytest.mark.parametrize(
    "choices",
    [
        ("study=miniature",),
        *(
            ("study=star1", f"base={path.stem}")
            for path in sorted((configuration_directory() / "model").glob("*.yaml"))
            if path.stem != "endpoint"  # which is not trained
        ),
    ],
)
def test_every_shipped_study_composes(choices: tuple[str, ...]) -> None:
    assert len(check(*choices, "seeds=[0]")) == 7


def test_the_base_model_is_that_of_every_command() -> None:
    settings, _ = compose_study(["study=star1", "base=qwen3_8b"])
    assert settings.run.name == "study_qwen3_8b"
    assert all("model=qwen3_8b" in step.arguments for step in steps_of(settings))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "overrides.rl=['experiment=miniature','trainer.larning_rate=1']",
            "study, step `train rl, seed 0`: .*larning_rate",
        ),
        ("overrides.sft=['sft=miniature','data=nowhere']", "study, step `train sft, seed 0`: .*nowhere"),
        (
            "overrides.evaluate=['evaluation=miniature_study','judge=[nobody]']",
            "study, step `evaluate base, seed 0`: .*nobody",
        ),
        (
            "overrides.rl=['experiment=miniature','model.path=package:lrm_safety/miniature/assets/reward']",
            "step `train rl, seed 0`: model.path=.* is not the base model .*policy",
        ),
        (
            "overrides.sft=['sft=miniature','data=miniature_supervised','checkpoint.export=false']",
            "step `train sft, seed 0`: checkpoint.export=none",
        ),
        (
            "summary.safety=attaq",
            r"summary\.safety=attaq: overrides.evaluate has no such benchmark \(it has arithmetic, ",
        ),
        ("summary.harmless=xstest", r"summary\.harmless=xstest: "),
    ],
)
def test_a_mistake_in_any_step_is_told_before_the_first(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        check(override)
    assert "\n" not in str(caught.value)


def test_a_step_is_told_by_its_whole_configuration() -> None:
    names = ("train rl, seed 0", "evaluate rl, seed 0")
    before, after = check("seeds=[0]"), check("seeds=[0]", "overrides.rl=['experiment=miniature','trainer.lr=1e-5']")
    assert [before[name] == after[name] for name in names] == [False, True]


@pytest.mark.parametrize(
    "overrides", [["seeds=[]"], ["seeds=[0,0]"], ["seeds=[-1]"], ["overrides.sft=[]", "overrides.rl=[]"]]
)
def test_a_study_of_nothing_is_refused(overrides: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"^(seeds|overrides.sft)="):
        compose_study(overrides)
