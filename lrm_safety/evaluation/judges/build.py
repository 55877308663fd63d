"""Judges from their configuration."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, cast

from lrm_safety.errors import ConfigError
from lrm_safety.evaluation.judges.judge import Judge, View
from lrm_safety.settings.evaluation import JudgeSettings
from lrm_safety.settings.paths import resolve


def build_judge(name: str, settings: JudgeSettings, *, device: str = "cpu") -> Judge:
    """Load the judge. Raises ConfigError, ModelError or DataError in one line; unknown options name the known ones."""
    make = _class(settings.kind)
    key = f"evaluation.judges.{name}"
    given: dict[str, Any] = {"name": name, **settings.arguments}
    known = [option for option in inspect.signature(make).parameters if option != "name"]
    if settings.path is not None:
        if "path" not in known:
            raise ConfigError(f"{key}.path: kind={settings.kind} has none")
        given["path"] = resolve(settings.path, f"{key}.path")
    if "device" in known:
        given["device"] = device
    for option in given.keys() - {"name"}:
        if option not in known:
            raise ConfigError(
                f"{key}.arguments.{option}: unknown option of kind={settings.kind}; known: {', '.join(known) or 'none'}"
            )
    try:
        return make(**given)
    except TypeError as error:
        raise ConfigError(f"{key}.arguments: {error}") from error


def judge_views(settings: JudgeSettings) -> tuple[View, ...]:
    """The views a judge reads; their names have been checked with the configuration."""
    return cast(tuple[View, ...], tuple(settings.views))


def _class(kind: str) -> Callable[..., Judge]:
    # Imported when used: the rules need no torch, and a guard brings vLLM.
    if kind == "refusal_rules":
        from lrm_safety.evaluation.judges.refusal_rules import RefusalRules

        return RefusalRules
    if kind == "reward_model":
        from lrm_safety.evaluation.judges.reward_model import RewardModelJudge

        return RewardModelJudge
    if kind == "guard":
        from lrm_safety.evaluation.judges.guard import GuardJudge

        return GuardJudge
    if kind == "llm":
        from lrm_safety.evaluation.judges.llm import LlmJudge

        return LlmJudge
    from lrm_safety.evaluation.judges.python import PythonJudge

    return PythonJudge
