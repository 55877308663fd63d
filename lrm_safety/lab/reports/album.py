"""What a page is made of: texts, tables, pictures. Templates turn them into HTML and escape everything that is a text.

A text may hold `code` between backticks.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, TypeVar

from markupsafe import Markup
from matplotlib.figure import Figure

from .style import LOOKS, before, looks_of, publish
from .tables import Table

Value = TypeVar("Value")
AT_START = ", at update 0"
"""How a model's name goes on where it is meant as it was before its training."""
START = AT_START.removeprefix(", ")
"""The name of what several models were before their training, where that is one and the same."""


@dataclass(frozen=True)
class Picture:
    """A drawing as inline SVG, what it shows, and the same for who does not see it."""

    name: str
    drawing: Markup
    caption: str
    label: str


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side; `beside`: a table to the right of a single one."""

    kind: ClassVar[str] = "pictures"

    pictures: Sequence[Picture]
    note: str = ""
    beside: Table | None = None


@dataclass(frozen=True)
class Text:
    """A paragraph, or several lines as a list."""

    kind: ClassVar[str] = "text"

    lines: Sequence[str]
    tone: str = ""
    """note, fine, care: how it looks."""


@dataclass(frozen=True)
class Fold:
    """What the reader opens."""

    kind: ClassVar[str] = "fold"

    summary: str
    parts: Sequence[Part] = ()
    verbatim: str = ""
    """A file, as it is."""


@dataclass(frozen=True)
class Card:
    """A finding, or a prompt with its responses: a heading and named texts."""

    kind: ClassVar[str] = "card"

    heading: str
    level: str
    texts: Sequence[tuple[str, str]]
    """Name (or nothing) and text."""
    evidence: Sequence[str] = ()


Part = Table | Pictures | Text | Fold | Card


@dataclass(frozen=True)
class Section:
    """Part of a page; one without parts is not shown, and `command` says what would fill it."""

    name: str
    heading: str
    parts: Sequence[Part] = field(default_factory=tuple)
    command: str = ""


def slug(*parts: str) -> str:
    """A name for files and ids."""
    return re.sub(r"[^A-Za-z0-9]+", "-", "-".join(part for part in parts if part)).strip("-")


class Album:
    """Draws the pictures of one report into its folder, one for each group of models.

    `groups`: names of models that are drawn together, by the name of the group (one group: no name is shown).
    """

    def __init__(self, folder: Path, groups: Mapping[str, Sequence[str]]) -> None:
        self._folder = folder
        self.groups = groups
        self.looks = {name: look for names in groups.values() for name, look in looks_of(names).items()}
        self.looks |= {f"{name}{AT_START}": before(look) for name, look in self.looks.items()}
        self.looks[START] = before(LOOKS[0])

    def add(
        self,
        name: str,
        values: Mapping[str, Value],
        draw: Callable[[Mapping[str, Value], str], Figure],
        caption: str,
        tell: Callable[[Mapping[str, Value]], str],
    ) -> list[Picture]:
        """A picture of the values of each group's models; `draw` gets them and the group's name, `tell` says what is to be seen."""
        pictures = []
        for group, names in self.groups.items():
            known = {*names, *(f"{one}{AT_START}" for one in names), START}
            mine = {one: value for one, value in values.items() if one in known}
            if mine.keys() - {START}:
                title = group if len(self.groups) > 1 else ""
                pictures.append(self.picture(slug(name, title), partial(draw, mine, title), caption, tell(mine)))
        return pictures

    def picture(self, name: str, draw: Callable[[], Figure], caption: str, label: str) -> Picture:
        """One picture, whatever models it shows."""
        return Picture(name, Markup(publish(draw, self._folder, name)), caption, label)
