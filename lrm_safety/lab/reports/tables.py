"""Tables of a report: one for the terminal, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.console import Console

from ...terminal import print_table
from .combine import Combined

ABSENT = "–"
NO_WIDTH = "no interval: all alike"
"""In the place of an interval whose width could not be seen."""


@dataclass(frozen=True)
class Cell:
    """A number, and what belongs to it: `0.930 [0.770, 0.981]`, and on a page below it."""

    text: str
    interval: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()
    paper: str | None = None
    """What the paper printed, told apart from what was measured."""

    @property
    def small(self) -> tuple[str, ...]:
        """Lines below the number."""
        return ((" to ".join(self.interval),) if self.interval else ()) + self.notes

    def __str__(self) -> str:
        interval = f" [{', '.join(self.interval)}]" if self.interval else ""
        return f"{self.text}{interval}" + (f" ({', '.join(self.notes)})" if self.notes else "")


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of a row is its header. A heading may be (text, what stands small below it)."""

    kind: ClassVar[str] = "table"

    name: str
    caption: str
    head: Sequence[str | tuple[str, str]]
    rows: Sequence[Sequence[str | Cell]]
    words: Iterable[int] = (0,)
    """Columns of words, aligned to the left; the others hold numbers."""
    spare: int | None = None
    """Columns at the right that a narrow terminal may show below the others; with None it folds nothing either (`print_table`)."""
    printed: bool = False
    """Whether its numbers are the paper's."""

    @property
    def plain(self) -> list[list[str]]:
        """Headings and rows as texts."""
        head = [one if isinstance(one, str) else f"{one[0]} ({one[1]})" for one in self.head]
        return [head, *([str(value).replace("`", "") for value in row] for row in self.rows)]


def bounded(value: float, low: float | None, high: float | None, places: int = 3, *, signed: bool = False) -> Cell:
    """A number with its interval where it has one."""
    mean, *ends = (None if one is None else f"{one:{'+' if signed else ''}.{places}f}" for one in (value, low, high))
    return Cell(str(mean), None if None in ends else (str(ends[0]), str(ends[1])))


def cell(one: Combined | None, paper: str | None = None, *, signed: bool = False) -> Cell:
    """Value, interval, what it is over where that is not a number of questions, the paper's figure."""
    if one is None:
        return Cell(ABSENT, paper=paper)
    told = bounded(one.value, one.low, one.high, signed=signed)
    over = (one.over,) if one.num_runs > 1 or one.in_training else ()
    if not signed and told.interval and one.ends is None:  # a difference is called better or worse by its interval
        return Cell(told.text, None, (*over, NO_WIDTH), paper)
    return Cell(told.text, told.interval, over, paper)


def in_a_sentence(one: Combined) -> str:
    """`0.930 (0.770 to 0.981)`: value and interval, or why it has none."""
    told = cell(one)
    interval = " to ".join(told.interval) if told.interval else NO_WIDTH if NO_WIDTH in told.notes else ""
    return f"{told.text} ({interval})" if interval else told.text


def show(table: Table, console: Console) -> None:
    """The table on a terminal of any width."""
    head, *rows = table.plain
    caption, left = table.caption.replace("`", ""), len(tuple(table.words))
    print_table(console, caption, head, rows, left=left, spare=table.spare)


def markdown(table: Table) -> str:
    """The table as Markdown, its caption above it."""
    head, *rows = table.plain
    lines = [head, ["---"] * len(head), *rows]
    told = "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)
    return f"{table.caption}\n\n{told}\n"
