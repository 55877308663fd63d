"""`lrm-safety report`: a page, figures and a diagnosis out of finished runs, evaluations and analyses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from ..diagnosis.console import show
from ..errors import ConfigError
from ..files import writing
from ..lab.reports.album import AT_START
from ..lab.reports.findings import diagnose_study
from ..lab.reports.folders import Study, gather
from ..lab.reports.page import write_report
from ..run_folder import refuse_what_a_job_would_lose
from .samples import read_samples

DEFAULT_OUTPUT = "outputs/report"


def report(arguments: list[str]) -> int:
    """Run `report FOLDER [NAME=FOLDER ...] [output=FOLDER] [title=TEXT] [samples=N]`; returns the exit status."""
    output, title, count = DEFAULT_OUTPUT, "Safety and reasoning", 0
    folders = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "output":
            output = value
        elif key == "title":
            title = value
        elif key == "samples":
            if not value.isdecimal():
                raise ConfigError(f"samples={value}: must be a whole number, of prompts of each set")
            count = int(value)
        elif argument.startswith("-"):
            raise ConfigError(
                f"report: knows FOLDER, NAME=FOLDER, output=FOLDER, title=TEXT and samples=N, not {argument}"
            )
        else:
            folders.append(argument)
    if not folders:
        raise ConfigError(
            "report: give at least one folder of lrm-safety train, sft, evaluate or analyze, e.g. outputs/demo"
        )
    refuse_what_a_job_would_lose(Path(output), "output")
    study = gather(folders)
    if count:
        study.samples, study.num_samples = _samples(study), count
    with writing(f"output={output}"):
        path = write_report(study, Path(output), title)
    console = Console()
    seen = diagnose_study(study)
    for name in dict.fromkeys(one.subject for one in seen):
        console.print(f"[bold]{name}[/bold]")
        show([one.finding for one in seen if one.subject == name], console)
    if not seen:
        show([], console)
    console.print(f"report: {path}\nfigures: {path.parent / 'figures'}", soft_wrap=True, highlight=False)
    return 0


def _samples(study: Study) -> dict[str, list[dict[str, Any]]]:
    """Samples of each model, by its name: of its first evaluation, or of its run at update 0 and at its last one."""
    found: dict[str, list[dict[str, Any]]] = {}
    for subject in study.subjects:
        if subject.evaluations:
            found[subject.name] = read_samples(subject.evaluations[0].folder)
        elif subject.runs:
            folder, last = subject.runs[0].folder, subject.runs[0].updates
            for name, update in ((f"{subject.name}{AT_START}", 0), (subject.name, last)):
                if (folder / "evaluation" / f"update-{update:06d}.jsonl").exists():
                    rows = read_samples(folder, update)
                    found[name] = [row for row in rows if row["set"] not in ("training", "offending")]
    return found
