"""A study as a list of commands: what each is given, the file that shows it is done, and whether all make one comparison."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import digest_of
from ...settings.compose import ROOTS
from ...settings.study import StudySettings

BASE = "base"
METHODS = ("sft", "rl")
"""What is trained, each by the commands of that name in StudyOverridesSettings."""


@dataclass(frozen=True)
class Step:
    """One command of `lrm-safety`, in a process of its own."""

    name: str
    arguments: tuple[str, ...]
    produces: Path
    """There once the step is done."""
    needs: tuple[str, ...] = ()
    """Names of the steps that make what this one reads."""

    @property
    def kind(self) -> str:
        """What steps of different seeds share: `train sft`."""
        return self.name.partition(",")[0]


@dataclass(frozen=True)
class Model:
    """A model of the study: one method, one seed."""

    method: str
    """base, sft or rl."""
    seed: int
    """Of training and of sampling."""
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.method}, seed {self.seed}"

    @property
    def run(self) -> Path | None:
        """The folder of its training; None: the base model."""
        return None if self.method == BASE else self.folder / "run"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"


def models_of(settings: StudySettings) -> list[Model]:
    """Base, SFT and RL of the first seed, then of the next: an early look at the folder shows a whole comparison."""
    root = Path(settings.run.directory)
    methods = [BASE, *(method for method in METHODS if getattr(settings.overrides, method))]
    return [Model(method, seed, root / method / f"seed-{seed}") for seed in settings.seeds for method in methods]


def analysis_of(settings: StudySettings, seed: int) -> Path:
    """The folder of both analyses of a seed's models."""
    return Path(settings.run.directory) / "analysis" / f"seed-{seed}"


def steps_of(settings: StudySettings, shared: Sequence[str] = ()) -> list[Step]:
    """Every command of the study, in order, each with the `shared` overrides."""
    steps: list[Step] = []
    shared = (*shared, f"tracking.group={settings.run.name}", *settings.overrides.tracking)
    for seed in settings.seeds:
        models = [model for model in models_of(settings) if model.seed == seed]
        for model in models:
            steps += [*_training(settings, model), _evaluation(settings, model)]
        steps += _analyses(settings, models, seed)
    # First, so that what a command is given by itself has the last word.
    return [replace(one, arguments=_begun_with(shared, one.arguments)) for one in steps]


def _begun_with(shared: Sequence[str], arguments: tuple[str, ...]) -> tuple[str, ...]:
    words = 2 if arguments[0] == "analyze" else 1
    return (*arguments[:words], *shared, *arguments[words:])


def _training(settings: StudySettings, model: Model) -> Iterator[Step]:
    if model.run is None:
        return
    place = (
        f"seed={model.seed}",
        f"run.name={settings.run.name}-{model.method}-{model.seed}",
        f"run.directory={model.run}",
    )
    command, own = ("sft", settings.overrides.sft) if model.method == "sft" else ("train", settings.overrides.rl)
    arguments = (command, *settings.overrides.model, *own, *place)
    yield Step(_training_of(model), arguments, model.run / "export" / "config.json")


def _evaluation(settings: StudySettings, model: Model) -> Step:
    weights = () if model.run is None else (f"model.path={model.run / 'export'}",)
    place = (
        f"seed={model.seed}",
        f"run.name={settings.run.name}-{model.method}-{model.seed}-evaluation",
        f"run.directory={model.evaluation}",
    )
    arguments = ("evaluate", *settings.overrides.model, *settings.overrides.evaluate, *weights, *place)
    needs = () if model.run is None else (_training_of(model),)
    return Step(f"evaluate {model.name}", arguments, model.evaluation / "results.json", needs)


def _training_of(model: Model) -> str:
    return f"train {model.name}"


def _analyses(settings: StudySettings, models: list[Model], seed: int) -> Iterator[Step]:
    folder = analysis_of(settings, seed)
    shared = (*settings.overrides.model, *settings.overrides.analyze, f"seed={seed}", f"run.directory={folder}")
    if settings.overrides.analyze:
        read = [f"+analysis.models.{one.method}.evaluation={one.evaluation}" for one in models]
        arguments = ("analyze", "reflection", *shared, *read)
        evaluated = tuple(_evaluation(settings, one).name for one in models)
        yield Step(f"reflection, seed {seed}", arguments, folder / "reflection.json", evaluated)
    if settings.overrides.memorization:
        paths = [
            f"+analysis.models.{one.method}.path={'${model.path}' if one.run is None else one.run / 'export'}"
            for one in models
        ]
        arguments = ("analyze", "memorization", *shared, *settings.overrides.memorization, *paths)
        trained = tuple(_training_of(one) for one in models if one.run is not None)
        yield Step(f"memorization, seed {seed}", arguments, folder / "memorization.json", trained)


def check_steps(steps: list[Step], settings: StudySettings) -> dict[str, str]:
    """Compose every command; returns step name -> fingerprint of its whole configuration.

    Raises ConfigError, which names the step or the key, for a command that cannot be composed, that trains another model than
    the base or exports nothing, and for a benchmark of the summary that is not evaluated.
    """
    fingerprints: dict[str, str] = {}
    base: str | None = None
    for step in steps:
        command, *overrides = step.arguments
        try:
            composed, resolved = ROOTS[command].compose(overrides[1:] if command == "analyze" else overrides)
        except ConfigError as error:
            raise ConfigError(f"study, step `{step.name}`: {error}") from error
        fingerprints[step.name] = fingerprint_of(resolved)
        if base is None:  # the first step evaluates the base model
            base = composed.model.path
            _check_summary(settings, set(composed.evaluation.benchmarks))
        if command not in ("train", "sft"):
            continue
        if composed.model.path != base:
            raise ConfigError(
                f"study, step `{step.name}`: model.path={composed.model.path} is not the base model {base}; "
                "all commands of a study have one base"
            )
        if composed.checkpoint.export == "none":
            raise ConfigError(f"study, step `{step.name}`: checkpoint.export=none: a study evaluates the export")
    return fingerprints


def _check_summary(settings: StudySettings, evaluated: set[str]) -> None:
    wanted = settings.summary
    named = [("safety", wanted.safety), *(("reasoning", name) for name in wanted.reasoning)]
    named += [("harmless", wanted.harmless)] if wanted.harmless is not None else []
    for key, name in named:
        if name not in evaluated:
            raise ConfigError(
                f"summary.{key}={name}: overrides.evaluate has no such benchmark (it has {', '.join(sorted(evaluated))})"
            )


def fingerprint_of(resolved: Mapping[str, Any]) -> str:
    """sha256 of a resolved configuration; who looks on (tracking) changes nothing that a step makes."""
    made = {key: value for key, value in resolved.items() if key != "tracking"}
    return digest_of([json.dumps(made, sort_keys=True, default=str)])
