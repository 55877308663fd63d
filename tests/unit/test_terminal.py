"""A table on a wide console, and on a narrow one as lines."""

from __future__ import annotations

import io

from rich.console import Console

from lrm_safety.terminal import print_table

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
