"""`lrm-safety study`: base, SFT and RL of one model, compared."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from ..files import writing
from ..lab.reports.sweep import captioned, cell, places_of
from ..lab.study.run import StepRecord, inherited_lock, run_steps
from ..lab.study.steps import analysis_of, check_steps, models_of, steps_of
from ..lab.study.summary import OverSeeds, Summary, summarise
from ..run_folder import RunFolder
from ..settings.compose import STUDY
from ..settings.study import StudySettings
from ..terminal import print_table
from .launch import launch, own_groups, parse
from .report import report

RL_LESS_SFT = "rl - sft"


def study(arguments: list[str]) -> int:
    """Run `study [study=OPTION] [key=value ...] [--steps]`; returns the exit status."""
    given = parse([item for item in arguments if item != "--steps"], STUDY)
    own = own_groups(given)
    if "--steps" not in arguments:
        return launch(STUDY, partial(run_study, own), arguments)
    settings, _ = STUDY.compose(given.overrides, given.folders)
    for step in steps_of(settings, own):
        print(shlex.join(["lrm-safety", *step.arguments]))
    return 0


def run_study(own: Sequence[str], settings: StudySettings, resolved: dict[str, Any], folder: RunFolder) -> int:
    """The steps that are not done yet, summary and report, into the folder. `own` names the user's groups to each step."""
    steps = steps_of(settings, own)
    fingerprints = check_steps(steps, settings)
    directory, console = folder.path, Console()
    with (
        writing(f"run.directory={directory}", "mend it or choose another, the same command goes on"),
        inherited_lock(directory) as lock,
    ):
        record = StepRecord(directory)
        record.match(fingerprints)
        folder.begin(resolved)
        run_steps(steps, fingerprints, record, settings, console, lock)
        return _finish(settings, directory, console)


def _finish(settings: StudySettings, directory: Path, console: Console) -> int:
    """Summary and report of a study whose steps are done."""
    summary = summarise(settings)
    summary.write(directory)
    report([*_folders(settings), f"output={directory}", f"title=Study: {settings.run.name}"])
    _show(summary, console)
    console.print(f"summary: {directory}/summary.json", soft_wrap=True, highlight=False)
    return 0


def _folders(settings: StudySettings) -> list[str]:
    """What the report reads, as its command takes it."""
    folders = []
    for model in models_of(settings):
        folders += [f"{model.method}={path}" for path in (model.run, model.evaluation) if path is not None]
    return folders + [
        str(analysis_of(settings, seed))
        for seed in settings.seeds
        if settings.overrides.analyze or settings.overrides.memorization
    ]


def _show(summary: Summary, console: Console) -> None:
    columns = dict(summary.methods)
    if RL_LESS_SFT in summary.differences:
        columns[RL_LESS_SFT] = summary.differences[RL_LESS_SFT]
    rows = []
    for name in dict.fromkeys(name for figures in columns.values() for name in figures):
        found = [figures.get(name) for figures in columns.values()]
        places = places_of([one.mean for one in found if one and one.mean is not None])
        cells = [_cell(one, places, signed=column == RL_LESS_SFT) for column, one in zip(columns, found, strict=True)]
        rows.append([name, *cells])
    print_table(console, captioned("Means over seeds [95% interval].", rows), ["figure", *columns], rows)


def _cell(found: OverSeeds | None, places: int, *, signed: bool) -> str:
    if found is None or found.mean is None:
        return cell(None)
    return cell((found.mean, found.low, found.high), places, signed=signed)
