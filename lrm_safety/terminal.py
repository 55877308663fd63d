"""Tables for a terminal of any width, and sizes as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_table(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1
) -> None:
    """A table of texts, whole at every width. `left`: the first columns that hold words, aligned to the left."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(head):
        table.add_column(heading, justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # no markup: a value may hold square brackets
    print_whole(console, table)


def print_whole(console: Console, table: Table) -> None:
    """The table where it fits. On a narrower console, such as a job's log of 80 columns, each row is its first cell on a line,
    then `heading value` pairs, broken between pairs alone: no name and no number is cut."""
    if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
        console.print(table)
        return
    headings = [str(column.header) for column in table.columns]
    lines = [str(table.title or "")]
    for cells in zip(*(list(column.cells) for column in table.columns), strict=True):
        first, *others = (" ".join(str(cell).split("\n")) for cell in cells)
        lines += [first] if first else []
        line = ""
        for pair in (
            f"{heading} {value}".strip() for heading, value in zip(headings[1:], others, strict=True) if value
        ):
            if line and len(line) + len(pair) + 3 > console.width:
                lines.append(line)
                line = ""
            line += f"{'   ' if line else '  '}{pair}"
        lines += [line] if line else []
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def told_bytes(size: float) -> str:
    """`8 MiB`: a number of bytes in the unit that keeps it below 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
