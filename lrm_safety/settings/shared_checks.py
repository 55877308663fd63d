"""Checks that the configurations of several commands share: limits and choices of values, optimiser, data, judges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from ..errors import ConfigError
from . import EvaluationSettings, Settings, SftSettings, TrainerSettings
from .evaluation import judge_kind

MAY_BE_EMPTY = ("system_prompt",)
"""Text that may be empty: an empty system prompt is one that says nothing."""


def check_values(settings: Any) -> None:
    """Raise ConfigError for the first value that is none of its choices or out of its limits."""
    for key, value, metadata in _walk(settings, ""):
        _check_value(key, value, metadata)


def _walk(node: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for item in fields(node):
        key, value = f"{prefix}{item.name}", getattr(node, item.name)
        if is_dataclass(value):
            yield from _walk(value, f"{key}.")
        elif isinstance(value, dict):
            for name, entry in value.items():
                if is_dataclass(entry):
                    yield from _walk(entry, f"{key}.{name}.")
        else:
            yield key, value, item.metadata


def _check_value(key: str, value: Any, metadata: Any) -> None:
    if (registry := metadata.get("registry")) is not None:
        registry.check(value, key)
    choices = metadata.get("choices")
    if choices is not None and value not in choices:
        raise ConfigError(f"{key}={value}: must be one of {', '.join(choices)}")
    if key.rpartition(".")[2] not in MAY_BE_EMPTY:
        for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
            if isinstance(text, str) and not text.strip():
                raise ConfigError(f"{key}={value!r}: is empty; give it a value, or leave the key out")
    if value is None or isinstance(value, bool) or not isinstance(value, int | float):
        return
    if value != value or value in (float("inf"), float("-inf")):
        raise ConfigError(f"{key}={value}: must be a finite number (null switches a limit off)")
    low, high = metadata.get("low"), metadata.get("high")
    if low is not None and value < low:
        raise ConfigError(f"{key}={value}: must be at least {low}")
    if high is not None and value > high:
        raise ConfigError(f"{key}={value}: must be at most {high}")


def check_export(settings: Settings | SftSettings) -> None:
    """The best checkpoint is one by a metric."""
    checkpoint = settings.checkpoint
    if checkpoint.export in ("best", "both") and checkpoint.best_metric is None:
        raise ConfigError(
            f"checkpoint.export={checkpoint.export}: needs checkpoint.best_metric, which says what is best"
        )


def check_betas(settings: Settings | SftSettings) -> None:
    """Limits that do not belong to the range themselves."""
    for name, beta in (("beta1", settings.trainer.beta1), ("beta2", settings.trainer.beta2)):
        if beta >= 1:
            raise ConfigError(f"trainer.{name}={beta}: must be below 1")


Dependence = tuple[Any, str, tuple[str, ...], bool, str]
"""A group of settings, its prefix, some of its keys, whether anything reads them, and why not."""


def check_read(dependences: Sequence[Dependence]) -> None:
    """Raise ConfigError for a key that was given another value than its default while nothing reads it: whoever sets it
    expects something of it, and would wait in vain without a word."""
    for group, prefix, names, is_read, reason in dependences:
        defaults = {item.name: _default(item) for item in fields(group)}
        for name in names:
            value, default = getattr(group, name), defaults[name]
            if not is_read and value != default:
                raise ConfigError(
                    f"{prefix}.{name}={_shown(value)}: does nothing {reason}, or leave it at {_shown(default)}"
                )


def read_by_trainer(settings: Settings | SftSettings) -> list[Dependence]:
    """Keys that training and SFT share, each with what reads it."""
    trainer, checkpoint, tracking = settings.trainer, settings.checkpoint, settings.tracking
    adapters = ("alpha", "dropout", "target_modules")
    return [
        (trainer.lora, "trainer.lora", adapters, trainer.lora.rank > 0, "with trainer.lora.rank=0; set it"),
        (
            trainer,
            "trainer",
            ("warmup_from_zero",),
            trainer.warmup_fraction > 0,
            "with trainer.warmup_fraction=0; set it",
        ),
        (
            checkpoint,
            "checkpoint",
            ("best_mode",),
            checkpoint.best_metric is not None,
            "with checkpoint.best_metric=null; set it",
        ),
        (
            tracking,
            "tracking",
            ("diagnosis_min_records",),
            tracking.diagnosis,
            "with tracking.diagnosis=false; set it to true",
        ),
    ]


def _default(item: Any) -> Any:
    return item.default if item.default is not MISSING else item.default_factory()


def _shown(value: Any) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def check_lora(trainer: TrainerSettings) -> None:
    """Adapters, where there are any."""
    lora = trainer.lora
    if not lora.rank:
        return
    if lora.alpha <= 0:
        raise ConfigError(f"trainer.lora.alpha={lora.alpha}: must be above 0, or the adapters do nothing")
    if lora.dropout >= 1:
        raise ConfigError(f"trainer.lora.dropout={lora.dropout}: must be below 1")
    if not lora.target_modules:
        raise ConfigError("trainer.lora.target_modules: is empty; use [all-linear] or names of layers")
    if "all-linear" in lora.target_modules and len(lora.target_modules) > 1:
        raise ConfigError("trainer.lora.target_modules: all-linear stands alone, it covers every other name")


def check_data(settings: Settings | SftSettings) -> None:
    """A place where the rows come from."""
    if settings.data.path is None and settings.data.hub_id is None:
        raise ConfigError("data.path: set it or data.hub_id; both are null")


def check_judges(evaluation: EvaluationSettings) -> None:
    """Names and views of judges."""
    for name, judge in evaluation.judges.items():
        if not name.replace("_", "").isalnum():
            raise ConfigError(f"evaluation.judges.{name}: a name may hold letters, digits and _ only")
        for view in judge.views:
            if view not in ("trace", "answer", "full", "prefix"):
                raise ConfigError(f"evaluation.judges.{name}.views: {view} is none of trace, answer, full, prefix")
        if not set(judge.views) - {"prefix"} or len(set(judge.views)) < len(judge.views):
            raise ConfigError(
                f"evaluation.judges.{name}.views: must name each view at most once, and at least one beside prefix"
            )
        declared = judge_kind(judge.kind, f"evaluation.judges.{name}.kind")
        if "prefix" in judge.views and not declared.finds_beginnings:
            raise ConfigError(
                f"evaluation.judges.{name}.views: prefix needs a judge of harm; by kind={judge.kind} no beginning is safe "
                "before it refuses"
            )
        if declared.needs != "nothing" and judge.path is None:
            raise ConfigError(f"evaluation.judges.{name}.path: must be set for kind={judge.kind}")
    for name in evaluation.benchmarks:
        if not name.replace("_", "").isalnum():
            raise ConfigError(f"evaluation.benchmarks.{name}: a name may hold letters, digits and _ only")
