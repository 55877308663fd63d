"""Things by name: ours, those of entry points, and those at an import path."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.metadata import EntryPoint

import pytest

from lrm_safety.conversation.families import FAMILIES, Family, get_family
from lrm_safety.errors import ConfigError
from lrm_safety.registry import Registry, import_object, is_import_path
from lrm_safety.settings.compose import compose_settings
from lrm_safety.settings.evaluation import benchmark_kind
from lrm_safety.settings.training import BASELINES, CORRECTIONS

MODULE = """
from lrm_safety.algorithm.baselines import baseline
from lrm_safety.conversation.families import Family

MINE = Family(name="mine", trace_opened_by="prompt", sft_layout="{trace}</think>{answer}")
NOT_A_FAMILY = 3

@baseline()
def half_of_the_mean(scores, groups):
    return scores - groups.mean(scores) / 2
"""


@pytest.fixture
def elsewhere(users_module: Callable[..., str]) -> str:
    users_module("raise RuntimeError('half\\na module')", "broken_code")
    return users_module(MODULE)


def test_a_family_at_an_import_path(elsewhere: str) -> None:
    family = get_family(f"{elsewhere}:MINE")
    assert isinstance(family, Family) and family.name == "mine" and family.protocol is None
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
        ("broken_{}:X", r"cannot import broken_code_of_\w+ \(RuntimeError: half"),
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
        ConfigError, match=rf"^key={elsewhere}:NOT_A_FAMILY: is a int, and must be a Benchmark: put @bench"
    ):
        benchmark_kind(f"{elsewhere}:NOT_A_FAMILY", {}, None, "key")
    assert benchmark_kind("miniature", {"kind": "benign"}, None, "key") == "helpfulness"
    assert benchmark_kind("miniature", {"kind": "benign"}, "empty_trace", "key") == "robustness"
