"""Tables for a terminal of any width, and sizes as people read them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLUMNS_FROM = 100
"""From this width on a table stays one, or several below one another, where it may: what is compared stands in columns."""

BELOW = "of the same rows"
"""Above the columns for which the table before had no room."""

FOLDED = 30
"""Width of a column of words then."""


def print_table(
    console: Console,
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    left: int = 1,
    spare: int | None = None,
) -> None:
    """A table of texts, none of them cut or left out. `left`: the first columns that hold words, aligned to the left; `spare`: the
    last columns that may stand below in a table of their own, with the names of the rows again, from the right and no more than
    needed, on a console that does not hold all. What words say beside the name of a row, and what belongs to a number, stand on
    several lines there; where `spare` is None they never do."""
    whole = _table(title, head, rows, left)
    if spare is None or console.width < COLUMNS_FROM or _fits(console, whole):
        print_whole(console, whole)
        return
    kept, table = _widest(console, title, head, rows, left, len(head) - spare)
    print_whole(console, table or whole)
    while table is not None and kept < len(head):
        below = [[line[0], *line[kept:]] for line in (head, *rows)]
        more, table = _widest(console, BELOW, below[0], below[1:], 1, 2)
        print_whole(console, table or _table(BELOW, below[0], below[1:], 1))
        kept += more - 1


def _widest(
    console: Console, title: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int, least: int
) -> tuple[int, Table | None]:
    """As many of the columns, from the left and not below `least`, as the console holds, and their table; None: it holds not even
    these. Texts on several lines go before columns that are missing."""
    for kept in range(len(head), least - 1, -1):
        for narrow in (_on_lines([head, *rows], left, " ("), _on_lines([head, *rows], left, " (", " [", names=True)):
            table = _table(title, narrow[0][:kept], [row[:kept] for row in narrow[1:]], left)
            if _fits(console, table):
                return kept, table
    return len(head), None


def _on_lines(rows: Sequence[Sequence[str]], left: int, *beginnings: str, names: bool = False) -> list[list[str]]:
    """The rows with their words folded, their `names` where asked, and what begins so behind a number on a line of its own."""

    def narrow(i: int, text: str) -> str:
        if i < left:
            return folded(text, FOLDED) if i or names else text
        for beginning in beginnings:
            text = text.replace(beginning, f"\n{beginning[1:]}")
        return text

    return [[narrow(i, text) for i, text in enumerate(row)] for row in rows]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> Table:
    # No markup: a title, a heading, a value may hold square brackets.
    table = Table(title=Text(title, style="table.title"), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for i, heading in enumerate(head):
        table.add_column(Text(heading), justify="left" if i < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))  # no markup: a value may hold square brackets
    return table


def _fits(console: Console, table: Table) -> bool:
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width


def print_whole(console: Console, table: Table) -> None:
    """The table where it fits. On a narrower console, such as a job's log of 80 columns, each row is its first cell on a line,
    then `heading value` pairs, broken between pairs alone: no name and no number is cut."""
    if _fits(console, table):
        console.print(table)
        return
    headings = [str(column.header) for column in table.columns]
    lines = [str(table.title or "")]
    for cells in zip(*(list(column.cells) for column in table.columns), strict=True):
        first, *others = (" ".join(str(cell).split("\n")) for cell in cells)
        lines += [first] if first else []
        line = ""
        for pair in (_pair(heading, value) for heading, value in zip(headings[1:], others, strict=True) if value):
            if line and len(line) + len(pair) + 3 > console.width:
                lines.append(line)
                line = ""
            line += f"{'   ' if line else '  '}{pair}"
        lines += [line] if line else []
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


def _pair(heading: str, value: str) -> str:
    """A value that begins with its heading, as a benchmark called `safety` under `safety`, says it once."""
    return value if value.startswith(f"{heading} ") else f"{heading} {value}".strip()


def folded(text: str, width: int, separators: str = "/,:=;") -> str:
    """`text` in lines of at most `width`, broken at spaces or behind a separator (of a path, a list, an option); inside a
    word only where the word alone is longer than a line."""
    return "\n".join(_lines(text, width, re.escape(separators)))


def fold_columns(head: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[str]]:
    """The rows with their texts folded so that all columns together take at most `width`, where that can be: the widest gives
    way first."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    while sum(widths) > width and max(widths) > 8:
        widths[widths.index(max(widths))] -= 1
    return [[folded(text, most) for text, most in zip(row, widths, strict=True)] for row in rows]


def _lines(text: str, width: int, separators: str) -> Iterator[str]:
    line = ""
    for piece in re.findall(rf"[^\s{separators}]*[{separators}]+\s*|[^\s{separators}]+\s*|\s+", text):
        if line and len(line) + len(piece.rstrip()) > width:
            yield line.rstrip()
            line = ""
        while len(piece.rstrip()) > width:
            yield piece[:width]
            piece = piece[width:]
        line += piece
    if line.strip():
        yield line.rstrip()


def told_bytes(size: float) -> str:
    """`8 MiB`: a number of bytes in the unit that keeps it below 1024."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
