"""Checks that the configurations of several commands share: limits and choices of values, optimiser, data, judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from ..errors import ConfigError
from . import EvaluationSettings, Settings, SftSettings, TrainerSettings
from .evaluation import judge_kind
from .keys import default
from .types import shown


def check_export(settings: Settings | SftSettings) -> None:
    """The best checkpoint is one by a metric."""
    checkpoint = settings.checkpoint
    if checkpoint.export in ("best", "both") and checkpoint.best_metric is None:
        raise ConfigError(
            f"checkpoint.export={checkpoint.export}: needs checkpoint.best_metric, which says what is best"
        )


Dependence = tuple[Any, str, tuple[str, ...], bool, str]
"""A group of settings, its prefix, some of its keys, whether anything reads them, and why not."""


def check_read(dependences: Sequence[Dependence]) -> None:
    """Raise ConfigError for a key that was given another value than its default while nothing reads it: whoever sets it
    expects something of it, and would wait in vain without a word."""
    for group, prefix, names, is_read, reason in dependences:
        defaults = {item.name: default(item) for item in fields(group)}
        for name in names:
            value, usual = getattr(group, name), defaults[name]
            if not is_read and value != usual:
                raise ConfigError(
                    f"{prefix}.{name}={shown(value)}: does nothing {reason}, or leave it at {shown(usual)}"
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


def check_lora(trainer: TrainerSettings) -> None:
    """Adapters, where there are any."""
    lora = trainer.lora
    if not lora.rank:
        return
    if lora.alpha <= 0:
        raise ConfigError(f"trainer.lora.alpha={lora.alpha}: must be above 0, or the adapters do nothing")
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
