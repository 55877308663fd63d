"""The schema of an evaluation, its configuration files and what is refused."""

from __future__ import annotations

from dataclasses import MISSING as NO_DEFAULT
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest

from lrm_safety.conversation.families import PROTOCOLS
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.attacks import ATTACKS
from lrm_safety.evaluation.benchmarks.registry import get_benchmark
from lrm_safety.settings import (
    BenchmarkSettings,
    EvaluatedModelSettings,
    EvaluateSettings,
    EvaluationSettings,
    JudgeSettings,
)
from lrm_safety.settings.compose import EVALUATE, compose_evaluation, compose_judges
from lrm_safety.settings.evaluation import BENCHMARKS, JUDGES

BASE = ["model=miniature", "evaluation=attaq"]


def checked(**evaluation: Any) -> None:
    settings = EvaluateSettings(
        model=EvaluatedModelSettings(name="m", path="somewhere", family="miniature"),
        evaluation=EvaluationSettings(**evaluation),
    )
    assert EVALUATE.checked(asdict(settings)) == settings


def test_defaults_change_nothing_of_the_protocols() -> None:
    one = EvaluationSettings()
    assert (one.temperature, one.top_p, one.top_k, one.max_response_tokens, one.samples, one.limit) == (None,) * 6
    assert one.protocol == "auto" and one.overlong == "error" and one.log_text is False and one.seed == 0
    assert one.benchmarks == {} and one.judges == {}
    checked()


def test_dictionaries_are_not_shared() -> None:
    EvaluationSettings().benchmarks["a"] = BenchmarkSettings("attaq")
    JudgeSettings().views.append("x")
    assert EvaluationSettings().benchmarks == {} and JudgeSettings().views == ["trace", "answer", "full"]


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"limit": 0}, "evaluation.limit"),
        ({"samples": 0}, "evaluation.samples"),
        ({"temperature": -0.1}, "evaluation.temperature"),
        ({"top_p": 1.1}, "evaluation.top_p"),
        ({"top_k": -1}, "evaluation.top_k"),
        ({"max_response_tokens": 0}, "evaluation.max_response_tokens"),
        ({"batch_size": 0}, "evaluation.batch_size"),
        ({"protocol": "qwen"}, "evaluation.protocol"),
        ({"overlong": "cut"}, "evaluation.overlong"),
        ({"benchmarks": {"a": BenchmarkSettings("attaq", samples=0)}}, "evaluation.benchmarks.a.samples"),
        ({"benchmarks": {"a": BenchmarkSettings("attaq", limit=0)}}, "evaluation.benchmarks.a.limit"),
        ({"judges": {"a": JudgeSettings("oracle")}}, "evaluation.judges.a.kind"),
    ],
)
def test_values_out_of_range_name_their_key(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError) as refused:
        checked(**settings)
    assert str(refused.value).startswith(f"{key}=") and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("judges", "message"),
    [
        ({"a b": JudgeSettings()}, r"^evaluation\.judges\.a b: a name may hold letters, digits and _ only$"),
        ({"../a": JudgeSettings()}, r"^evaluation\.judges\.\.\./a: a name may hold"),
        (
            {"a": JudgeSettings(views=["answers"])},  # type: ignore[list-item]
            r"^evaluation\.judges\.a\.views=answers: must be one of trace, answer, full, prefix$",
        ),
        ({"a": JudgeSettings(views=[])}, r"^evaluation\.judges\.a\.views: must name each view at most once"),
        (
            {"a": JudgeSettings(views=["full", "full"])},
            r"^evaluation\.judges\.a\.views: must name each view at most once",
        ),
        ({"a": JudgeSettings("guard")}, r"^evaluation\.judges\.a\.path: must be set for kind=guard$"),
        ({"a": JudgeSettings("reward_model")}, r"^evaluation\.judges\.a\.path: must be set for kind=reward_model$"),
    ],
)
def test_judges_that_are_refused(judges: dict[str, JudgeSettings], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        checked(judges=judges)


@pytest.mark.parametrize("name", ["a/b", "..", "a b", "a@b"])
def test_names_become_folders_and_must_be_plain(name: str) -> None:
    with pytest.raises(ConfigError, match=r"a name may hold letters, digits and _ only"):
        checked(benchmarks={name: BenchmarkSettings("attaq")})
    checked(benchmarks={"attaq_500": BenchmarkSettings("attaq")})


def test_every_choice_of_the_schema_is_known_to_the_code() -> None:
    for protocol in ("auto", "training", *PROTOCOLS):
        checked(protocol=protocol)
    assert set(JUDGES) == {"refusal_rules", "reward_model", "guard", "llm", "python"}
    assert all(
        field.default is not NO_DEFAULT or field.default_factory is not NO_DEFAULT
        for field in fields(EvaluationSettings)
    )


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (Path(__file__).parents[3] / "conf" / group).glob("*.yaml"))


@pytest.mark.parametrize("option", options("evaluation"))
def test_every_evaluation_file_composes_into_known_benchmarks(option: str) -> None:
    settings, _ = compose_evaluation(["model=miniature", f"evaluation=[{option}]"])
    assert bool(settings.evaluation.benchmarks) == (option != "none")
    for one in settings.evaluation.benchmarks.values():
        benchmark = get_benchmark(one.task, arguments=one.arguments)
        assert benchmark.default_samples >= 1 and one.task in BENCHMARKS
        assert one.attack is None or one.attack in ATTACKS


@pytest.mark.parametrize("option", options("judge"))
def test_every_judge_file_composes(option: str) -> None:
    (judge,) = compose_judges([option]).values()
    assert set(judge.views) <= {"trace", "answer", "full", "prefix"} and judge.views


def test_several_benchmarks_and_judges_in_the_order_they_are_named() -> None:
    settings, _ = compose_evaluation(
        [
            "model=miniature",
            "evaluation=[xstest,attaq]",
            "judge=[refusal_rules]",
            "evaluation.limit=8",
            "evaluation.seed=3",
        ]
    )
    assert list(settings.evaluation.benchmarks) == ["xstest", "attaq"] and list(settings.evaluation.judges) == [
        "refusal_rules"
    ]
    assert settings.evaluation.limit == 8 and settings.evaluation.seed == 3


def test_samples_of_the_published_protocols() -> None:
    """64 for AIME and GPQA-Diamond, 4 for MATH500, else one."""
    found = {name: get_benchmark(name).default_samples for name in BENCHMARKS}
    assert (found["aime"], found["gpqa"], found["math500"]) == (64, 64, 4)
    assert {found[name] for name in ("attaq", "air_bench", "harmbench", "xstest")} == {1}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([*BASE, "evaluation.limt=3"], r"evaluation\.limt"),
        ([*BASE, "evaluation.limit=few"], r"evaluation\.limit"),
        ([*BASE, "judge=[oracle]"], r"oracle"),
        (["model=miniature", "evaluation=[attak]"], r"attak.*did you mean attaq"),
        ([*BASE, "evaluation.limit=0"], r"^evaluation\.limit=0"),
    ],
)
def test_command_lines_that_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        compose_evaluation(overrides)
    assert "\n" not in str(refused.value)
