"""The folders that a report is asked for, as subjects: a run, an evaluation, an analysis, a study, or what lies below."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import ConfigError
from ...results import Audit, Evaluation, Memorization, Reflection
from ...run_folder import ENVIRONMENT, ERROR, at_work
from ...sweep_files import SWEEP_RECORD, num_points
from .folders import (
    ROLES,
    Analysis,
    AnyAnalysis,
    EvaluationRun,
    Study,
    Subject,
    TrainingRun,
    is_reward_training,
    read_folder,
    stopped,
)
from .names import names_of
from .sweep import by_configuration

_NAMED = re.compile(r"([A-Za-z0-9_.+-]+)=(.+)")
_FILES = ("metrics.jsonl", "config.yaml", *(one.FILE for one in (Evaluation, Reflection, Memorization, Audit)))
Found = TrainingRun | EvaluationRun | AnyAnalysis


def gather(arguments: Sequence[str], only: Collection[Path] | None = None) -> Study:
    """Read `FOLDER` and `NAME=FOLDER` arguments; folders of one name are joined (its training, its evaluations, its seeds).

    Of a folder that holds nothing itself everything below it is read: of a study each method by its name, of a multirun each
    configuration. A folder that stands there twice under one name is read once; a run that stopped before the others of its
    name is left out. Both are noted. `only`: the folders that count of those below a folder, such as the points of a sweep; that
    others were left out is noted. Raises ConfigError for a folder that has nothing of what a report is made of, DataError
    for a torn file.
    """
    subjects: dict[str, Subject] = {}
    analyses: list[AnyAnalysis] = []
    notes: list[str] = []
    others: list[Path] = []
    names: dict[Path, list[str]] = {}
    runs: dict[Path, TrainingRun] = {}
    counts = None if only is None else {one.resolve() for one in only}
    for name, folder, found in (one for argument in arguments for one in _members(*_split(argument), only is None)):
        path = folder.resolve()
        if counts is not None and counts.isdisjoint([path, *path.parents]):
            others.append(folder)
            continue
        same = names.setdefault(path, [])
        if name in same:
            notes.append(f"{folder} was given twice as {name} and counts once")
            continue
        if same:
            notes.append(f"{folder} was given as {' and '.join([*same, name])}: the same run under several names")
        same.append(name)
        for one in found:
            if isinstance(one, Analysis):
                analyses += [one] if len(same) == 1 else []
                continue
            subject = subjects.setdefault(name, Subject(name))
            if isinstance(one, TrainingRun):
                subject.runs.append(one)
                runs.setdefault(path, one)
            else:
                subject.evaluations.append(one)
    if others:
        notes.append(
            f"left out: {others[0]}{f' and {len(others) - 1} more' * (len(others) > 1)}, no "
            f"{'points' if len(others) > 1 else 'point'} of this sweep; `lrm-safety report {' '.join(arguments)}` takes all"
        )
    for folder in dict.fromkeys(_split(argument)[1] for argument in arguments):
        if (folder / SWEEP_RECORD).is_file() and folder.resolve() in names and (below := num_points(folder)):
            notes.append(
                f"{folder} holds a run, which is read alone, and {below} of a sweep below it: `lrm-safety report {folder}/*/` is "
                "of those"
            )
    for argument in arguments:
        notes += _begun(_split(argument)[1], {*names, *(one.resolve() for one in others)})
    for subject in subjects.values():
        notes += _leave_out_stopped(subject)
    left = [one for one in subjects.values() if one.runs or one.evaluations]
    if not left and not analyses:
        raise ConfigError(f"report: no run has a record yet: {'; '.join(notes)}")
    return Study(left, analyses, notes, every_run=list(runs.values()))


def holds_any(folder: Path) -> bool:
    """Whether a file that a report is made of lies in a folder or below it."""
    return any(True for file in _FILES for _ in folder.rglob(file))


def _split(argument: str) -> tuple[str | None, Path]:
    """(name, folder); a folder that exists is one, though its name may hold `=` as those of a sweep do."""
    if not Path(argument).exists() and (named := _NAMED.fullmatch(argument)):
        return named[1], Path(named[2])
    return None, Path(argument)


def _members(name: str | None, folder: Path, alone: bool) -> Iterator[tuple[str, Path, list[Found]]]:
    """Name, folder and what it holds: of the folder itself, which is `alone` then, or of all below it."""

    def named(found: list[Found]) -> list[Found]:
        return [replace(one, given=name) if name and isinstance(one, TrainingRun) else one for one in found]

    if alone and (itself := read_folder(folder)):
        yield name or folder.absolute().name, folder, named(itself)
        return
    if is_reward_training(folder):
        raise ConfigError(
            f"report: {folder}: is the training of a reward model (lrm-safety reward), which a report does not "
            "show; give the folder of its lrm-safety audit-reward"
        )
    places = sorted({path.parent for file in _FILES for path in folder.rglob(file)})
    below = {place: found for place in places if (found := read_folder(place))}
    if not below:
        reason = "holds no metrics.jsonl, results.json or ANALYSIS.json, nor does a folder below it"
        raise ConfigError(
            f"report: {folder}: {reason if folder.is_dir() else 'no such folder'}; give folders of lrm-safety train, sft, "
            "evaluate, analyze or audit-reward"
        )
    groups = list(
        by_configuration([one for found in below.values() for one in found if isinstance(one, TrainingRun)]).values()
    )
    configurations = {run.folder: called for called, mine in zip(names_of(groups), groups, strict=True) for run in mine}
    for place, found in below.items():
        parts = place.relative_to(folder).parts
        method = parts[0] if parts and parts[0] in ROLES else None  # of a study
        yield (
            name or method or configurations.get(place) or _without_seed(parts) or folder.absolute().name,
            place,
            named(found),
        )


def _begun(folder: Path, found: Collection[Path]) -> Iterator[str]:
    """A line for every folder below in which a command began and left nothing of what was found."""
    if folder.resolve() in found:
        return
    for place in sorted({path.parent for record in (ENVIRONMENT, ERROR) for path in folder.rglob(record)}):
        itself = place.resolve()
        of_others = any(itself == one or itself in one.parents or one in itself.parents for one in found)
        if not of_others and not is_reward_training(place):
            running = "is still running, and " if at_work(place) else ""
            yield f"{place} {running}has no record and no result and is left out"


def _without_seed(parts: Sequence[str]) -> str:
    """`model-a` of `model-a__seed-1`: the seeds of one evaluation have one name."""
    kept = ["__".join(one for one in part.split("__") if not one.startswith("seed-")) for part in parts]
    return "/".join(filter(None, kept))


def _leave_out_stopped(subject: Subject) -> list[str]:
    """Takes the runs that stopped before another one out of a subject; a line for each, and for one that is the only one."""
    furthest = max((run.updates for run in subject.runs), default=0)
    notes = []
    for run in list(subject.runs):
        planned = run.planned_updates or furthest
        begun = run.series or (subject.evaluations and (run.folder / "metrics.jsonl").is_file())
        if run.updates < min(planned, furthest) or not begun:
            subject.runs.remove(run)
            notes.append(f"{subject.name}: the run in {run.folder} {stopped(run, planned)} and is left out")
        elif run.updates < planned:
            notes.append(f"{subject.name}: the run in {run.folder} {stopped(run, planned)}")
    return notes
