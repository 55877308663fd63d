"""`lrm-safety compare`: the runs of a multirun as one table, with intervals over seeds."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ..errors import ConfigError
from ..files import write_atomically, write_json, writing
from ..reports.sweep import HOW, MAIN_HEAD, difference_rows, markdown, table_rows, to_json
from ..reports.sweep import compare as compare_runs
from ..run_folder import refuse_what_a_job_would_lose
from ..terminal import print_table


def compare(arguments: list[str]) -> int:
    """Run `compare FOLDER [FOLDER ...] [output=FOLDER]`; returns the exit status."""
    folders = [Path(item) for item in arguments if not item.startswith(("output=", "-"))]
    if unknown := [item for item in arguments if item.startswith("-")]:
        raise ConfigError(f"compare: knows FOLDER and output=FOLDER, not {unknown[0]}")
    if not folders:
        raise ConfigError("compare: give at least one folder of runs, e.g. outputs/sweep")
    outputs = [item.partition("=")[2] for item in arguments if item.startswith("output=")]
    output = Path(outputs[-1]) if outputs else folders[0]
    refuse_what_a_job_would_lose(output, "output")
    found = compare_runs(folders)
    with writing(f"output={output}"):
        output.mkdir(parents=True, exist_ok=True)
        write_atomically(output / "comparison.md", markdown(found))
        write_json(output / "comparison.json", to_json(found))
    console = Console()
    print_table(console, HOW, MAIN_HEAD + found.headings, table_rows(found), left=2)
    if rows := difference_rows(found):
        print_table(console, f"Difference from {found.reference.name}, paired by seed.", ["run", *found.headings], rows)
    for line in found.left_out:
        console.print(f"left out: {line}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"tables: {output}/comparison.md, {output}/comparison.json", soft_wrap=True, highlight=False)
    return 0
