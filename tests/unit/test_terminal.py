"""A table on a wide console, and on a narrow one as lines."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table

from lrm_safety.terminal import print_table, print_whole

HEAD = ["run", "safety", "reasoning"]
ROWS = [["a_long_name_of_a_configuration", "0.930 [0.770, 0.981]", "0.5"], ["[rl]", "–", ""]]


def printed(width: int) -> list[str]:
    file = io.StringIO()
    print_table(Console(file=file, width=width), "title", HEAD, ROWS)
    return [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]


def test_what_fits_is_a_table() -> None:
    lines = printed(80)
    assert lines[0] == "title" and lines[1].split() == HEAD
    assert " ".join(lines[3].split()) == "a_long_name_of_a_configuration 0.930 [0.770, 0.981] 0.5"


def test_what_does_not_fit_is_lines_with_names_and_numbers_whole() -> None:
    assert printed(40) == [
        "title",
        "a_long_name_of_a_configuration",
        "  safety 0.930 [0.770, 0.981]",
        "  reasoning 0.5",
        "[rl]",
        "  safety –",
    ]
    assert "  safety 0.930 [0.770, 0.981]   reasoning 0.5" in printed(50)


def test_a_row_without_a_name_goes_on_with_the_one_above() -> None:
    table = Table("benchmark", "figure", "", "n", title="mine")
    table.add_row("over_refusal_of_safe_prompts", "over_refusal/refusal_rules/answer", "0.123", "250 x 64")
    table.add_row("", "safety/refusal_rules/full\nmore", "0.456", "")
    file = io.StringIO()
    print_whole(Console(file=file, width=60), table)
    assert file.getvalue().splitlines() == [
        "mine",
        "over_refusal_of_safe_prompts",
        "  figure over_refusal/refusal_rules/answer   0.123",
        "  n 250 x 64",
        "  figure safety/refusal_rules/full more   0.456",
    ]
