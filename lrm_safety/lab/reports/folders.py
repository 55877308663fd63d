"""What a folder holds (a training run, an evaluation, an analysis), and who it belongs to."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml

from ...errors import DataError, first_line
from ...files import read_json
from ...monitoring.metrics_file import whole_lines
from ...results import Audit, Evaluation, Memorization, Reflection
from ...run_folder import as_told, at_work

ROLES = ("base", "sft", "rl")
"""Names that the paper's figures belong to, in the order of the rows."""
Series = dict[str, list[tuple[int, float]]]
"""Every metric as (update, value), in the order of recording."""
TRAINS = {"data", "trainer", "schedule"}
"""Keys by which the configuration of a run of train or sft is told."""


@dataclass(frozen=True)
class TrainingRun:
    """A folder with metrics.jsonl."""

    folder: Path
    series: Series
    config: dict[str, Any]
    """Its config.yaml; empty where there is none."""
    recorded: str = ""
    """When its last record was written, as run_folder tells times; empty where none says it."""
    given: str = ""
    """The name that the user gave it; empty: none."""

    @property
    def seed(self) -> int | None:
        return self.config.get("seed")

    @property
    def updates(self) -> int:
        """How far it came."""
        return int(max((value for _, value in self.series.get("train/update", ())), default=0))

    @property
    def planned_updates(self) -> int | None:
        """How far it was to come, where its configuration says so: to the end of its passes, once they are done."""
        schedule = self.config.get("schedule") or {}
        passes = max((value for _, value in self.series.get("train/passes", ())), default=0.0)
        return self.updates if passes >= (schedule.get("passes") or math.inf) else schedule.get("max_updates")


@dataclass(frozen=True)
class EvaluationRun:
    """A folder with the results.json of `lrm-safety evaluate`."""

    folder: Path
    results: Evaluation
    config: dict[str, Any]

    @property
    def seed(self) -> int | None:
        return self.results.seed


Found = TypeVar("Found", Reflection, Memorization, Audit)


@dataclass(frozen=True)
class Analysis(Generic[Found]):
    """A folder with reflection.json, memorization.json or audit.json."""

    folder: Path
    results: Found

    @property
    def seed(self) -> int | None:
        return self.results.seed

    @property
    def path(self) -> Path:
        return self.folder / self.results.FILE


AnyAnalysis = Analysis[Reflection] | Analysis[Memorization] | Analysis[Audit]
Seeded = TypeVar("Seeded", bound=TrainingRun | EvaluationRun | AnyAnalysis)


def paired(mine: Sequence[TrainingRun | EvaluationRun | AnyAnalysis], theirs: Sequence[Seeded]) -> list[Seeded | None]:
    """For each of mine that of theirs which belongs to its seed, None where there is none; an only one belongs to every seed.

    Where seeds are absent or repeat they tell nothing apart, and the place in the list decides.
    """
    if len(theirs) == 1:
        return [theirs[0]] * len(mine)
    for seeds in ([one.seed for one in mine], [one.seed for one in theirs]):
        if None in seeds or len(set(seeds)) < len(seeds):
            return [theirs[i] if i < len(theirs) else None for i in range(len(mine))]
    of_seed = {one.seed: one for one in theirs}
    return [of_seed.get(one.seed) for one in mine]


@dataclass
class Subject:
    """One row of the tables: a model, trained and evaluated once or with several seeds."""

    name: str
    runs: list[TrainingRun] = field(default_factory=list)
    evaluations: list[EvaluationRun] = field(default_factory=list)

    @property
    def role(self) -> str | None:
        """base, sft or rl, where the name says so (`rl`, `rl-kl0`, `sft_raw`)."""
        return role_and_rest(self.name)[0]

    @property
    def folders(self) -> list[Path]:
        """Where it stands, its runs first; a folder of both twice."""
        return [*(one.folder for one in self.runs), *(one.folder for one in self.evaluations)]

    @property
    def family(self) -> str | None:
        """The conversation family that was evaluated, or else trained."""
        if self.evaluations:
            return self.evaluations[0].results.model.family
        return next((found for one in self.trained if (found := one.get("family"))), None)

    @property
    def trained(self) -> list[Mapping[str, Any]]:
        """What the configurations of its runs say of the model that they begin with."""
        return [found for run in self.runs if (found := run.config.get("model"))]


def role_and_rest(name: str) -> tuple[str | None, str]:
    """(`rl`, `qwen3-no_kl`) of `rl-qwen3-no_kl`; (None, the name) where it begins with no role."""
    first, *rest = re.split(r"[-_. ]", name.lower(), maxsplit=1)
    return (first, "".join(rest)) if first in ROLES else (None, name.lower())


@dataclass
class Study:
    """Everything that a report is made from."""

    subjects: list[Subject]
    analyses: list[AnyAnalysis]
    notes: list[str] = field(default_factory=list)
    """What a reader must know of the folders: runs that stopped, folders that were given twice."""
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Rows of samples.jsonl by the name of the model, where they were asked for; their texts may be harmful."""
    every_run: Sequence[TrainingRun] = ()
    """Each training run once, with those that stopped and are no subject's."""
    num_samples: int = 0
    """Prompts of each set that are shown."""

    def __post_init__(self) -> None:
        """Rows of a base stand together, in the order of roles."""
        self.subjects.sort(key=lambda one: ROLES.index(one.role) if one.role else len(ROLES))
        self.subjects = [one for group in self.groups().values() for one in group]

    def of_kind(self, kind: type[Found]) -> Iterator[Analysis[Found]]:
        """The analyses that left results of this kind."""
        return (Analysis(one.folder, found) for one in self.analyses if isinstance(found := one.results, kind))

    @property
    def has_figures(self) -> bool:
        """Whether there is anything that a diagnosis could read: an update, an evaluation, an analysis."""
        return bool(self.analyses) or any(
            one.evaluations or any(run.updates for run in one.runs) for one in self.subjects
        )

    @property
    def base(self) -> Subject | None:
        """The first evaluated subject whose role is base."""
        return next((one for one in self.subjects if one.role == "base" and one.evaluations), None)

    def base_of(self, subject: Subject) -> Subject | None:
        """What a subject is compared with: the base of its name (`base-7b` of `rl-7b-no_kl`), or the only one of the model that
        it was trained from, or of its model family, or the only one there is where their families are not known to differ. None
        where several could be meant, or none."""
        bases = [one for one in self.subjects if one.role == "base" and one.evaluations]
        if subject in bases:
            return subject
        rest = role_and_rest(subject.name)[1]
        named = [
            one
            for one in bases
            if (own := role_and_rest(one.name)[1]) and re.match(rf"{re.escape(own)}(?![a-z0-9])", rest)
        ]
        if named:
            return max(named, key=lambda one: len(one.name))
        paths, family = {one.get("path") for one in subject.trained}, subject.family
        from_it = [one for one in bases if one.evaluations[0].results.model.path in paths]
        same = [one for one in bases if one.family == family]
        unknown = bases if family is None else []
        return next((found[0] for found in (from_it, same, unknown) if len(found) == 1), None)

    def groups(self) -> dict[str, list[Subject]]:
        """Subjects that are compared with each other, by the name of their base (without `base`; empty: none)."""
        found: dict[str, list[Subject]] = {}
        for subject in self.subjects:
            base = self.base_of(subject)
            found.setdefault(role_and_rest(base.name)[1] or base.name if base else "", []).append(subject)
        return found


def read_folder(folder: Path) -> list[TrainingRun | EvaluationRun | AnyAnalysis]:
    """Everything that a folder itself holds; nothing where it is none of what a report is made of. Raises DataError for a torn
    file."""
    found: list[TrainingRun | EvaluationRun | AnyAnalysis] = []
    results, config = folder / Evaluation.FILE, read_config(folder)
    if is_reward_training(folder):
        return []
    if (folder / "metrics.jsonl").is_file():
        found.append(read_run(folder))
    elif config.keys() >= TRAINS:  # stopped before its first record
        found.append(TrainingRun(folder, {}, config))
    if results.is_file():
        found.append(EvaluationRun(folder, Evaluation.read(results), config))
    return [*found, *_analyses(folder, Reflection), *_analyses(folder, Memorization), *_analyses(folder, Audit)]


def is_reward_training(folder: Path) -> bool:
    """Whether it is one of `lrm-safety reward`, which trains something else."""
    results = folder / Evaluation.FILE
    return results.is_file() and "head_is_new" in read_json(results)


def stopped(run: TrainingRun, planned: int) -> str:
    """How a run that has not come to its end is told of: one that ended early, or one that is at work."""
    lacking = "update" if run.series else "record"
    if at_work(run.folder):
        return f"is still running, {f'at update {run.updates} of {planned}' if run.updates else f'no {lacking} yet'}"
    return f"stopped at update {run.updates} of {planned}" if run.updates else f"stopped before its first {lacking}"


def read_run(folder: Path) -> TrainingRun:
    """What metrics.jsonl and config.yaml of a folder say."""
    path = folder / "metrics.jsonl"
    series = read_series(path)
    times = re.findall(r'"time": ?(\d{9,})', path.read_text(encoding="utf-8", errors="replace"))
    recorded = as_told(datetime.fromtimestamp(int(times[-1]), UTC)) if times else ""
    return TrainingRun(folder, series, read_config(folder), recorded)


def read_series(path: Path) -> Series:
    """Every metric as (update, value) in the order of recording; values that were not finite are left out.

    Raises DataError when the file is absent or a line but the last is torn (a run that was killed may tear the last).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; has the run recorded anything?")
    series: Series = {}
    for _, entry in whole_lines(path):
        for name, value in entry.items():
            if "/" in name and isinstance(value, int | float):
                series.setdefault(name, []).append((entry["update"], float(value)))
    return series


def _analyses(folder: Path, kind: type[Found]) -> list[Analysis[Found]]:
    return [Analysis(folder, kind.read(folder))] if (folder / kind.FILE).is_file() else []


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a folder, empty where there is none."""
    path = folder / "config.yaml"
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)})") from error
    return found if isinstance(found, dict) else {}
