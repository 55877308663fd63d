"""`lrm-safety compare`: evaluations side by side, and the runs of a multirun as one table with intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from ..errors import ConfigError
from ..files import write_atomically, write_json, writing
from ..lab.reports.sweep import HOW, MAIN_HEAD, difference_rows, markdown, table_rows, to_json
from ..lab.reports.sweep import compare as compare_runs
from ..results import Evaluation
from ..run_folder import refuse_what_a_job_would_lose
from ..terminal import print_table


def compare(arguments: list[str]) -> int:
    """Run `compare FOLDER [FOLDER ...] [output=FOLDER]`; returns the exit status.

    What a folder holds decides: evaluations are compared question by question with the first one, runs of train and sft in
    and below the other folders configuration by configuration.
    """
    folders = [Path(item) for item in arguments if not item.startswith(("output=", "-"))]
    if unknown := [item for item in arguments if item.startswith("-")]:
        raise ConfigError(f"compare: knows FOLDER and output=FOLDER, not {unknown[0]}")
    if not folders:
        raise ConfigError("compare: give at least one folder of runs, e.g. outputs/sweep, or two of evaluations")
    evaluations = [folder for folder in folders if (folder / Evaluation.FILE).is_file()]
    runs = [folder for folder in folders if folder not in evaluations]
    outputs = [item.partition("=")[2] for item in arguments if item.startswith("output=")]
    if len(evaluations) == 1:
        raise ConfigError(f"compare: {evaluations[0]}: is one evaluation; give a second one that asked the same")
    if outputs and not runs:
        raise ConfigError("compare: output=FOLDER is for the table of runs; evaluations are compared on the terminal")
    console = Console()
    if evaluations:
        _compare_evaluations(evaluations, console)
    if runs:
        output = Path(outputs[-1]) if outputs else runs[0]
        refuse_what_a_job_would_lose(output, "output")
        _compare_runs(runs, output, console)
    return 0


def _compare_evaluations(folders: Sequence[Path], console: Console) -> None:
    from ..evaluation.compare import compare as compare_results

    compare_results([str(folder) for folder in folders], [Evaluation.read(folder) for folder in folders], console)


def _compare_runs(folders: Sequence[Path], output: Path, console: Console) -> None:
    found = compare_runs(folders)
    with writing(f"output={output}"):
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / "comparison.md", markdown(found))
        write_json(output / "comparison.json", to_json(found))
    print_table(console, HOW, MAIN_HEAD + found.headings, table_rows(found), left=2)
    if rows := difference_rows(found):
        print_table(console, f"Difference from {found.reference.name}, paired by seed.", ["run", *found.headings], rows)
    for line in found.left_out:
        console.print(f"left out: {line}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"tables: {output}/comparison.md, {output}/comparison.json", soft_wrap=True, highlight=False)
