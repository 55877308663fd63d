"""Tables for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1
) -> None:
    """The table where it fits whole. On a narrower console, such as a job's log of 80 columns, each row is its first cell on
    a line, then `heading value` pairs, broken between pairs alone. No name and no number is cut.

    `left`: the first columns that hold words, aligned to the left.
    """
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(head):
        table.add_column(heading, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # no markup: a value may hold square brackets
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
        console.print(table)
        return
    lines = [title]
    for first, *others in rows:
        lines.append(first)
        line = " "
        for heading, value in zip(head[1:], others, strict=True):
            pair = f"{heading} {value}" if value else ""
            if line.strip() and len(line) + len(pair) + 3 > console.width:
                lines.append(line)
                line = " "
            line += f" {'  ' if line.strip() else ''}{pair}" if pair else ""
        lines.append(line)
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
