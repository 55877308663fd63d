"""`lrm-safety report`: runs, evaluations, analyses and audits compared, in the terminal and as a page, with a diagnosis."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from ..diagnosis.rules import show_findings
from ..errors import ConfigError, nearest
from ..files import write_atomically, writing
from ..lab.reports.album import AT_START
from ..lab.reports.combine import remarks
from ..lab.reports.evaluations import difference_table, main_table
from ..lab.reports.findings import Seen, diagnose_study
from ..lab.reports.folders import Study
from ..lab.reports.gather import gather, holds_any
from ..lab.reports.page import write_report
from ..lab.reports.record import record
from ..lab.reports.sweep import Comparison, compare_each, tables
from ..lab.reports.tables import Table, markdown, show
from ..run_folder import refuse_what_a_job_would_lose
from .samples import read_samples
from .words import is_assignment, unknown_word

DEFAULT_OUTPUT = "outputs/report"
KNOWN = ("output", "title", "samples")


def report(arguments: list[str], only: Collection[Path] | None = None, notes: Sequence[str] = ()) -> int:
    """Run `report FOLDER [NAME=FOLDER ...] [output=FOLDER] [title=TEXT] [samples=N] [--no-page]`; returns the exit status.

    `only`: what is read below a folder, of a sweep its points; None: all. `notes`: what a reader has to know besides.
    """
    given = {key: value for key, _, value in (one.partition("=") for one in arguments) if key in KNOWN}
    folders = [one for one in arguments if one.partition("=")[0] not in KNOWN and one != "--no-page"]
    if unknown := [one for one in folders if one.startswith("-") or _is_misspelt(one)]:
        takes = "FOLDER, NAME=FOLDER, output=FOLDER, title=TEXT, samples=N and --no-page"
        raise unknown_word("report", unknown[0], (*KNOWN, "--no-page"), takes)
    count = given.get("samples", "0")
    if not count.isdecimal():
        raise ConfigError(f"samples={count}: must be a whole number, of prompts of each set")
    if not folders:
        raise ConfigError(
            "report: give at least one folder of lrm-safety train, sft, evaluate or analyze, e.g. outputs/demo"
        )
    output = None if "--no-page" in arguments else Path(given.get("output", DEFAULT_OUTPUT))
    if output is not None:
        refuse_what_a_job_would_lose(output, "output")
    study = gather(folders, only)
    study.notes += notes
    if int(count):
        study.samples, study.num_samples = _samples(study), int(count)
    _report(study, output, given.get("title", "Safety and reasoning"))
    return 0


def _is_misspelt(word: str) -> bool:
    """Whether NAME=FOLDER is an option rather than the name of a method: the name is near one, and the folder, if there is one,
    holds nothing that a report is made of."""
    name, _, folder = word.partition("=")
    return is_assignment(word) and bool(nearest(name, KNOWN)) and not holds_any(Path(folder))


def _report(study: Study, output: Path | None, title: str) -> None:
    """The page into the folder, if there is one, and its tables and findings on the terminal."""
    console = Console()
    comparisons = compare_each(study.every_run)
    shown, findings, notes = _tables(study, comparisons), diagnose_study(study), _notes(study, comparisons)
    if output is not None:
        with writing(f"output={output}"):
            page = write_report(study, output, title)
            record(title, study, comparisons, findings, notes).write(output)
            told = "\n".join([f"# {title}\n", *map(markdown, shown), *(f"- {line}" for line in notes)])
            write_atomically(output / "report.md", f"{told.rstrip()}\n")
    for table in shown:
        show(table, console)
    for line in notes:
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    if findings or study.has_figures:
        show_subjects(findings, console)
    if output is not None:
        console.print(
            f"report: {page}\nfigures: {output}/figures\ntables: {output}/report.md, {output}/report.json",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )


def _tables(study: Study, comparisons: Sequence[Comparison]) -> list[Table]:
    """Evaluations by model and question by question, then training runs by configuration."""
    evaluated = any(one.evaluations for one in study.subjects)
    found = [main_table(study), difference_table(study)] if evaluated else []
    return [*(one for one in found if one.rows), *tables(comparisons)]


def _notes(study: Study, comparisons: Sequence[Comparison]) -> list[str]:
    """What was left out or done otherwise; a run that the study's own notes name is named once."""
    told = " ".join(study.notes)
    lines = (line for one in comparisons for line in one.left_out)
    left_out = [line for line in lines if f" {line.partition(': ')[0]} " not in told]  # whole: seed-1 is no seed-10
    return [*study.notes, *(f"left out: {line}" for line in left_out), *remarks(study)]


def show_subjects(findings: Sequence[Seen], console: Console) -> None:
    """The findings of each subject below its name."""
    for name in dict.fromkeys(one.subject for one in findings):
        console.print(Text(name, style="bold"), soft_wrap=True)  # no markup: a name may hold square brackets
        show_findings([one.told for one in findings if one.subject == name], console)
    if not findings:
        show_findings([], console)


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
