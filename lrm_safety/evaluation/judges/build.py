"""Judges from their configuration."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrm_safety.errors import ConfigError, calling, traceback_inside
from lrm_safety.evaluation.judges.judge import Judge, JudgeViews
from lrm_safety.modeling.folder import model_fingerprint, tokenizer_fingerprint
from lrm_safety.settings.evaluation import JudgeSettings, RefusalIn, judge_class, judge_kind
from lrm_safety.settings.paths import resolve

CHANGE_NO_VERDICT = ("timeout_seconds", "max_retries", "max_delay_seconds", "first_delay_seconds", "max_concurrency")
"""Options of `llm` that may differ from one start to the next, and so are no part of a judge's identity."""


def build_judge(name: str, settings: JudgeSettings, *, device: str = "cpu") -> Judge:
    """Load the judge. Raises ConfigError, ModelError or DataError in one line; unknown options name the known ones."""
    make, given = _checked(name, settings, device)
    with calling(f"evaluation.judges.{name}.kind={settings.kind}", of=make):
        try:
            judge: Judge = make(**given)
        except TypeError as error:
            raise ConfigError(f"evaluation.judges.{name}.arguments: {error}", traceback_inside(error)) from error
    if missing := [one for one in ("name", "judge", "close") if not hasattr(judge, one)]:
        raise ConfigError(
            f"evaluation.judges.{name}.kind={settings.kind}: has no {missing[0]}, which every judge needs"
        )
    return judge


def judge_identity(name: str, settings: JudgeSettings) -> dict[str, Any]:
    """What a judge's verdicts depend on: its configuration, and the `fingerprint` of its model, prompts or function.

    Loads no weights, but raises as `build_judge` does for whatever can be told without them.
    """
    make, given = _checked(name, settings, "cpu")
    key = f"evaluation.judges.{name}"
    identity = asdict(settings)
    for option in CHANGE_NO_VERDICT:
        identity["arguments"].pop(option, None)
    if judge_kind(settings.kind, f"{key}.kind").needs == "nothing":
        judge = build_judge(name, settings)
        judge.close()
        return identity | {"fingerprint": getattr(judge, "fingerprint", None)}
    options = {option: value for option, value in given.items() if option != "name"}
    with calling(f"{key}.kind={settings.kind}", of=make):
        make.check(key, **options)
    path = given.get("path", inspect.signature(make).parameters["path"].default)
    identity |= {"fingerprint": model_fingerprint(path, given.get("revision"), key=f"{key}.path")}
    if Path(path).is_dir():  # a hub's commit says it already
        identity["tokenizer"] = tokenizer_fingerprint(path, template=True)
    return identity


def _checked(name: str, settings: JudgeSettings, device: str) -> tuple[Any, dict[str, Any]]:
    """The judge's class and all arguments for it. Raises ConfigError for unknown ones and for one that lacks."""
    key = f"evaluation.judges.{name}"
    make = judge_class(settings.kind, f"{key}.kind")
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
        inspect.signature(make).bind(**given)
    except TypeError as error:
        raise ConfigError(f"{key}.arguments: {error}") from error
    return make, given


def judge_views(settings: JudgeSettings) -> JudgeViews:
    """The views a judge reads; their names have been checked with the configuration."""
    return JudgeViews(settings.views, tells_refusals(settings))


def tells_refusals(settings: JudgeSettings, key: str = "evaluation.judges") -> RefusalIn:
    """Where the judge's verdicts say whether a text declines; `nowhere` for a judge of harm alone. Loads no model. Raises
    ConfigError, naming `key`, for a guard of no known family."""
    refusal_in = judge_kind(settings.kind, f"{key}.kind").refusal_in
    return refusal_in(settings, key) if callable(refusal_in) else refusal_in


def check_in_training(name: str, settings: JudgeSettings) -> None:
    """Raises ConfigError for a judge that training has no room for."""
    if judge_kind(settings.kind, f"evaluation.judges.{name}.kind").needs == "engine":
        raise ConfigError(
            f"evaluation.judges.{name}.kind={settings.kind}: needs an engine of its own; judge a checkpoint with "
            "`lrm-safety evaluate`"
        )


def check_judged(kinds: Mapping[str, str], judges: Mapping[str, JudgeSettings]) -> None:
    """Raises ConfigError when judged benchmarks (name -> kind) have no judge, or over-refusal none that tells refusals."""
    if not kinds:
        return
    if not judges:
        raise ConfigError("evaluation.judges: is empty, but a benchmark is judged; choose judge=[refusal_rules]")
    refusals = [name for name, kind in kinds.items() if kind == "over_refusal"]
    if refusals and all(tells_refusals(judge) == "nowhere" for judge in judges.values()):
        names = ",".join(judges)
        raise ConfigError(
            f"evaluation.judges: {refusals[0]} measures refusals of safe prompts, and {names} judges harm alone; add a judge of "
            f"refusals, such as judge=[{names},refusal_rules] or wildguard, qwen3guard"
        )
