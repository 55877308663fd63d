"""Things by name: ours, those of entry points, and those at an import path."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from lrm_safety.algorithm import baselines, corrections
from lrm_safety.conversation.families import FAMILIES, Family, get_family
from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.benchmarks.registry import benchmark
from lrm_safety.evaluation.judges.judge import judge
from lrm_safety.registry import Registry, import_object, is_import_path
from lrm_safety.rewards.kinds import reward
from lrm_safety.settings.components import REWARDS
from lrm_safety.settings.compose import compose_settings
from lrm_safety.settings.evaluation import BENCHMARKS, JUDGES, benchmark_kind
from lrm_safety.settings.training import BASELINES, CORRECTIONS

UNTYPED: Any = SimpleNamespace(family=Family, benchmark=benchmark, judge=judge, reward=reward)
"""For mistakes that mypy would find."""
MODULE = """
from lrm_safety.algorithm.baselines import baseline
from lrm_safety.conversation.families import Family

MINE = Family(name="mine", trace_opened_by="prompt", sft_layout="{trace}</think>{answer}")
NOT_A_FAMILY = 3

@baseline()
def half_of_the_mean(scores, groups):
    return scores - groups.mean(scores) / 2

def undecorated(scores, groups):
    return scores
"""


@pytest.fixture
def elsewhere(users_module: Callable[..., str]) -> str:
    users_module("raise RuntimeError('half\\na module')", "broken_code")
    users_module("import math\nimport no_such_module", "lacking_code")
    users_module("def f(:", "torn_code")
    return users_module(MODULE)


def test_a_family_at_an_import_path(elsewhere: str) -> None:
    family = get_family(f"{elsewhere}:MINE")
    assert isinstance(family, Family) and family.protocol is None
    assert family.name == f"{elsewhere}:MINE", "messages name what the user typed"
    settings, _ = compose_settings(["experiment=miniature", f"model.family={elsewhere}:MINE"])
    assert settings.model.family == f"{elsewhere}:MINE"


def test_a_baseline_at_an_import_path_is_checked_with_the_configuration(elsewhere: str) -> None:
    path = f"{elsewhere}:half_of_the_mean"
    settings, _ = compose_settings(
        ["experiment=miniature", f"algorithm.baseline={path}", "algorithm.samples_per_prompt=2"]
    )
    assert BASELINES.get(settings.algorithm.baseline, "algorithm.baseline").min_samples == 2
    with pytest.raises(ConfigError, match=rf"^algorithm\.baseline={path}: needs algorithm\.samples_per_prompt of 2"):
        compose_settings(["experiment=miniature", f"algorithm.baseline={path}"])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("gpt5", r"must be one of deepseek_r1_distill, .* or package\.module:NAME of your own$"),
        ("qwen", r"must be one of .*; did you mean qwen3\?$"),
        ("{}:NOT_A_FAMILY", r"is a int, and must be a Family$"),
        ("{}:ABSENT", r"code_of_\w+ has no object ABSENT$"),
        ("no_such_module_at_all:X", r"cannot import no_such_module_at_all \(ModuleNotFoundError: .*PYTHONPATH\?$"),
        ("{}.absent:X", r"cannot import \S+ \(ModuleNotFoundError: .*PYTHONPATH\?$"),
        ("broken_{}:X", r"cannot import broken_(\w+): raised RuntimeError: half a module \(broken_\1\.py:1\)$"),
        ("lacking_{}:X", r"cannot import lacking_(\w+): raised ModuleNotFoundError: .*no_such.* \(lacking_\1\.py:2\)$"),
        ("torn_{}:X", r"cannot import torn_(\w+): raised SyntaxError: .* \(torn_\1\.py:1\)$"),
        ("a b:c", r"must be one of "),
        (":X", r"must be one of "),
    ],
)
def test_what_is_no_family(elsewhere: str, value: str, message: str) -> None:
    given = value.format(elsewhere)
    with pytest.raises(ConfigError, match=rf"^model\.family={re.escape(given)}: {message}"):
        get_family(given)


def test_names_of_entry_points_are_known(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def entry_points(group: str) -> list[EntryPoint]:
        names = {"mine": f"{elsewhere}:MINE", "qwen3": f"{elsewhere}:MINE", "wrong": f"{elsewhere}:NOT_A_FAMILY"}
        return (
            [EntryPoint(name, value, group) for name, value in names.items()] if group == "lrm_safety.families" else []
        )

    monkeypatch.setattr("lrm_safety.registry.entry_points", entry_points)
    families: Registry[Family] = Registry("families", Family)
    families.add("qwen3", get_family("qwen3"))
    assert list(families) == ["qwen3", "mine", "wrong"] and len(families) == 3
    assert families.get("mine", "model.family").name == "mine"
    assert families.get("qwen3", "model.family").name == "qwen3", "ours are not replaced from outside"
    with pytest.raises(ConfigError, match=r"^model\.family=wrong: is a int, and must be a Family$"):
        families.get("wrong", "model.family")
    with pytest.raises(ValueError, match="qwen3 is declared twice"):
        families.add("qwen3", get_family("qwen3"))


def test_ours_in_their_order() -> None:
    assert list(FAMILIES)[:2] == ["deepseek_r1_distill", "qwen3"]
    assert list(BASELINES) == ["none", "group_mean", "leave_one_out", "group_zscore"]
    assert list(CORRECTIONS) == ["tis", "off", "mask", "icepop"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:b", True), ("a.b:c.d", True), ("a", False), ("a:", False), (":b", False), ("a:b:c", False), ("a/b:c", False)],
)
def test_import_paths(text: str, expected: bool) -> None:
    assert is_import_path(text) is expected
    if expected is False:
        with pytest.raises(ConfigError, match=r"must be written package\.module:object$"):
            import_object(text, "key")


def test_what_is_no_benchmark_is_told_before_a_run_begins(elsewhere: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^key={elsewhere}:NOT_A_FAMILY: is a int, and must be a Benchmark; write @benchmark\("
    ):
        benchmark_kind(f"{elsewhere}:NOT_A_FAMILY", {}, None, "key")
    assert benchmark_kind("miniature", {"kind": "benign"}, None, "key") == "helpfulness"
    assert benchmark_kind("miniature", {"kind": "benign"}, "empty_trace", "key") == "robustness"


@pytest.mark.parametrize(
    ("look_up", "message"),
    [
        (BASELINES.get, r"must be a Baseline; write @baseline above it$"),
        (CORRECTIONS.get, r"must be a Correction; write @correction above it$"),
        (REWARDS.get, r"must be a RewardKind; write @reward\(NAME\) above it$"),
        (JUDGES.get, r"must be a class; write one with @judge\(NAME\) above it; for a function choose kind=python$"),
        (
            BENCHMARKS.get,
            r"must be a Benchmark; write @benchmark\(NAME, kind=\.\.\., scoring=\.\.\.\) above its loader$",
        ),
        (FAMILIES.get, r"must be a Family$"),
    ],
)
def test_an_undecorated_function_is_told_its_decorator(
    elsewhere: str, look_up: Callable[[str, str], object], message: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^key={elsewhere}:undecorated: is a function, and {message}"):
        look_up(f"{elsewhere}:undecorated", "key")


def test_decorators_of_functions_mean_the_defaults_without_brackets() -> None:
    def mine(*_: object) -> Any: ...

    assert baselines.baseline(mine) == baselines.baseline()(mine) == baselines.Baseline("mine", mine, 2, False)
    assert corrections.correction(mine) == corrections.correction()(mine) == corrections.Correction("mine", mine)


def test_decorators_that_need_a_name_are_refused_without_one() -> None:
    class Mine: ...

    for decorator, name in ((UNTYPED.judge, "judge"), (UNTYPED.reward, "reward")):
        with pytest.raises(
            ConfigError, match=rf"^@{name} above Mine needs brackets and a name: @{name}\('Mine', \.\.\.\)$"
        ):
            decorator(Mine)
    with pytest.raises(TypeError, match=r"missing 2 required keyword-only arguments: 'kind' and 'scoring'"):
        UNTYPED.benchmark(Mine)


@pytest.mark.parametrize(
    ("declare", "message"),
    [
        (
            lambda: UNTYPED.family(name="mine", trace_opened_by="prmpt", sft_layout="{answer}"),
            "Family mine: trace_opened_by='prmpt': must be one of prompt, model, nobody",
        ),
        (
            lambda: UNTYPED.benchmark("mine", kind="sfety", scoring="judges")(lambda: None),
            "Benchmark mine: kind='sfety': must be one of safety, over_refusal, helpfulness, reasoning, robustness",
        ),
        (
            lambda: UNTYPED.benchmark("mine", kind="safety", scoring="juges")(lambda: None),
            "Benchmark mine: scoring='juges': must be one of judges, math, integer, choice, own",
        ),
        (
            lambda: UNTYPED.benchmark("mine", kind="safety", scoring="own", by_arguments=lambda _: {"kind": "x"})(
                lambda: None
            ).configured({}),
            "Benchmark mine: kind='x': must be one of safety, over_refusal, helpfulness, reasoning, robustness",
        ),
        (
            lambda: UNTYPED.judge("mine", needs="gpu")(type("Mine", (), {})),
            "JudgeKind mine: needs='gpu': must be one of nothing, weights, engine",
        ),
        (
            lambda: UNTYPED.judge("mine", refusal_in="safe")(type("Mine", (), {})),
            "JudgeKind mine: refusal_in='safe': must be one of safety, details, nowhere",
        ),
        (
            lambda: UNTYPED.reward("mine", reads=("path", "functon"))(lambda *_: None),
            "RewardKind mine: reads='functon': must be one of path, function, url",
        ),
    ],
)
def test_a_choice_misspelt_in_a_declaration_is_one_line(declare: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        declare()
    judge("mine", refusal_in=lambda settings, key: "safety")(type("Mine", (), {}))
