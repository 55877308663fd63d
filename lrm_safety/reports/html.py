"""Pieces of HTML that sections are made of. Cells and captions are HTML already: everything from a file is escaped before."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from .combine import Combined


def table(
    caption: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    identity: str,
    figures: Iterable[int] | None = None,
    kind: str = "",
) -> str:
    """A table that scrolls inside its own frame, below its caption; the first cell of a row is its header.

    `figures`: the columns of numbers, aligned to the right; all but the first by default.
    """
    numeric = set(range(1, len(head)) if figures is None else figures)
    numbers = [' class="figure"' if i in numeric else "" for i in range(len(head))]
    columns = "".join(f'<th scope="col"{number}>{cell}</th>' for number, cell in zip(numbers, head, strict=True))
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{number}>{cell}</td>" for number, cell in zip(numbers[1:], row[1:], strict=True))
        + "</tr>"
        for row in rows
    )
    name = f"{identity}-caption"
    # Not a <caption>, which would be as wide as the table and scroll away with it.
    return (
        f'<p class="caption" id="{name}">{caption}</p>'
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">'
        f'<table id="{identity}" aria-labelledby="{name}"{f" class={kind}" if kind else ""}>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def cell(one: Combined | None, paper: str | None = None) -> str:
    """Value, interval below it, the paper's figure below that."""
    text = "–" if one is None else f"<b>{one.value:.3f}</b>"
    if one is not None and one.low is not None and one.high is not None:
        text += f"<small>{one.low:.3f} to {one.high:.3f}</small>"
    if one is not None and (one.num_runs > 1 or one.in_training):
        text += f"<small>{one.over}</small>"
    if paper is not None:
        text += f'<small class="paper">paper: {escape(paper)}</small>'
    return text


def absent(what: str, command: str) -> str:
    """What stands in an empty section."""
    return f'<p class="note">{escape(what)}: <code>{escape(command)}</code> makes one.</p>'


def folded(summary: str, body: str) -> str:
    """Closed until the reader opens it."""
    return f"<details><summary>{summary}</summary>{body}</details>"


def slug(*parts: str) -> str:
    """A name for files and ids."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(part for part in parts if part)).strip("-")
