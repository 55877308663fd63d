"""`lrm-safety report`: a page, figures and a diagnosis out of finished runs, evaluations and analyses."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..diagnosis.console import show
from ..errors import ConfigError
from ..files import writing
from ..reports.findings import diagnose_study
from ..reports.folders import gather
from ..reports.page import write_report
from ..run_folder import refuse_what_a_job_would_lose

DEFAULT_OUTPUT = "outputs/report"


def report(arguments: list[str]) -> int:
    """Run `report FOLDER [NAME=FOLDER ...] [output=FOLDER] [title=TEXT]`; returns the exit status."""
    output, title = DEFAULT_OUTPUT, "Safety and reasoning"
    folders = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "output":
            output = value
        elif key == "title":
            title = value
        elif argument.startswith("-"):
            raise ConfigError(f"report: knows FOLDER, NAME=FOLDER, output=FOLDER and title=TEXT, not {argument}")
        else:
            folders.append(argument)
    if not folders:
        raise ConfigError(
            "report: give at least one folder of lrm-safety train, sft, evaluate or analyze, e.g. outputs/demo"
        )
    refuse_what_a_job_would_lose(Path(output), "output")
    study = gather(folders)
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
