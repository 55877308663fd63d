"""A study as a list of commands: what each is given, and the file that shows it is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..settings.study import StudySettings

METHODS = ("sft", "rl")


@dataclass(frozen=True)
class Step:
    """One command of `lrm-safety`, in a process of its own."""

    name: str
    arguments: tuple[str, ...]
    produces: Path
    """There once the step is done."""


@dataclass(frozen=True)
class Trained:
    """A model of the study."""

    method: str
    """base, sft or rl."""
    seed: int | None
    folder: Path

    @property
    def name(self) -> str:
        return self.method if self.seed is None else f"{self.method}, seed {self.seed}"

    @property
    def export(self) -> Path | None:
        """The trained weights; None: the base model's own."""
        return None if self.seed is None else self.folder / "run" / "export"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation"


def models_of(settings: StudySettings) -> list[Trained]:
    """The base, then every seed of every method that is asked for."""
    root = Path(settings.run.directory)
    trained = [Trained("base", None, root / "base")]
    for method in METHODS:
        if getattr(settings, method):
            trained += [Trained(method, seed, root / method / f"seed-{seed}") for seed in settings.seeds]
    return trained


def steps_of(settings: StudySettings) -> list[Step]:
    """Every step, seed by seed, so that an early look at the folder shows a whole comparison."""
    root = Path(settings.run.directory)
    base, *others = models_of(settings)
    steps = [_evaluation(settings, base)]
    for seed in settings.seeds:
        mine = [model for model in others if model.seed == seed]
        for model in mine:
            steps += [_training(settings, model), _evaluation(settings, model)]
        steps += _analyses(settings, [base, *mine], root / "analysis" / f"seed-{seed}")
    return steps


def _training(settings: StudySettings, model: Trained) -> Step:
    assert model.export is not None
    folder = model.folder / "run"
    place = (
        f"seed={model.seed}",
        f"run.name={settings.run.name}-{model.method}-{model.seed}",
        f"run.directory={folder}",
    )
    if model.method == "sft":
        command: tuple[str, ...] = ("sft", *settings.model, *settings.sft)
    else:
        command = ("train", *settings.rl)
    return Step(f"train {model.name}", (*command, *place), model.export / "config.json")


def _evaluation(settings: StudySettings, model: Trained) -> Step:
    weights = () if model.export is None else (f"model.path={model.export}",)
    place = (f"run.name={settings.run.name}-{model.method}", f"run.directory={model.evaluation}")
    arguments = ("evaluate", *settings.model, *settings.evaluate, *weights, *place)
    return Step(f"evaluate {model.name}", arguments, model.evaluation / "results.json")


def _analyses(settings: StudySettings, models: list[Trained], folder: Path) -> Iterator[Step]:
    if not settings.analyze:
        return
    shared = (*settings.model, *settings.analyze, f"run.directory={folder}")
    seed = models[-1].seed or 0
    read = [f"+analysis.models.{one.method}.evaluation={one.evaluation}" for one in models]
    yield Step(f"reflection, seed {seed}", ("analyze", "reflection", *shared, *read), folder / "reflection.json")
    if settings.memorization:
        paths = [f"+analysis.models.{one.method}.path={one.export}" for one in models if one.export]
        arguments = ("analyze", "memorization", *shared, *settings.memorization, f"seed={seed}", BASE_AS_IS, *paths)
        yield Step(f"memorization, seed {seed}", arguments, folder / "memorization.json")


BASE_AS_IS = "+analysis.models.base.path=${model.path}"
"""The base model of an analysis that reads no evaluation."""
