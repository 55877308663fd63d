"""`lrm-safety study`: base, SFT and RL of one model, compared."""

from __future__ import annotations

import shlex
from pathlib import Path

import yaml
from rich.console import Console

from ..errors import ConfigError
from ..files import writing
from ..reports.sweep import cell, places_of
from ..run_folder import owned
from ..settings.compose import compose_study
from ..settings.study import StudySettings
from ..study.check import check_steps
from ..study.record import StepRecord, inherited_lock
from ..study.run import run_steps
from ..study.steps import analysis_of, models_of, steps_of
from ..study.summary import OverSeeds, Summary, summarise
from ..terminal import print_table
from .report import report

RL_LESS_SFT = "rl - sft"


def study(arguments: list[str]) -> int:
    """Run `study [study=OPTION] [key=value ...] [--cfg job] [--steps]`; returns the exit status."""
    flags = [item for item in arguments if item.startswith("--") or item == "job"]
    if unknown := [item for item in flags if item not in ("--cfg", "job", "--steps")]:
        raise ConfigError(f"study: knows --cfg job and --steps, not {unknown[0]}")
    settings, resolved = compose_study([item for item in arguments if item not in flags])
    if "--cfg" in flags:
        print(yaml.safe_dump(resolved, sort_keys=False), end="")
        return 0
    steps = steps_of(settings)
    if "--steps" in flags:
        for step in steps:
            print(shlex.join(["lrm-safety", *step.arguments]))
        return 0
    fingerprints = check_steps(steps, settings)
    directory, console = Path(settings.run.directory), Console()
    with (
        writing(f"run.directory={directory}", "mend it or choose another, the same command goes on"),
        owned(directory, ["study", *arguments]) as folder,
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
    print_table(console, "means over seeds [95% interval]", ["figure", *columns], rows)


def _cell(found: OverSeeds | None, places: int, *, signed: bool) -> str:
    if found is None or found.mean is None:
        return cell(None)
    return cell((found.mean, found.low, found.high), places, signed=signed)
