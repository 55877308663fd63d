"""The figures of one report: drawn into its folder, given back as HTML, one for each group of models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TypeVar

from matplotlib.figure import Figure

from .html import slug
from .style import looks_of, publish

Value = TypeVar("Value")


class Album:
    """`groups`: names of models that are drawn together, by the name of the group (one group: no name is shown)."""

    def __init__(self, folder: Path, groups: Mapping[str, Sequence[str]]) -> None:
        self._folder = folder
        self._groups = groups
        self.looks = {name: look for names in groups.values() for name, look in looks_of(names).items()}

    def add(
        self,
        name: str,
        values: Mapping[str, Value],
        draw: Callable[[Mapping[str, Value], str], Figure],
        caption: str,
        tell: Callable[[Mapping[str, Value]], str],
    ) -> str:
        """A figure of the values of each group's models, with its caption (above them where there are several).

        `draw` gets them and the group's name, `tell` says what is to be seen for who does not see it.
        """
        groups = {group: {one: values[one] for one in names if one in values} for group, names in self._groups.items()}
        groups = {group: mine for group, mine in groups.items() if mine}
        named, side_by_side = len(self._groups) > 1, len(groups) > 1
        figures = "".join(
            self._figure(
                slug(name, group if named else ""),
                lambda mine=mine, group=group: draw(mine, group if named else ""),  # type: ignore[misc]
                escape(group) if side_by_side else caption,
                tell(mine),
            )
            for group, mine in groups.items()
        )
        return f'<p class="note">{caption}</p>{figures}' if side_by_side else figures

    def _figure(self, name: str, draw: Callable[[], Figure], caption: str, label: str) -> str:
        drawing = publish(draw, self._folder, name)
        return (
            f'<figure id="figure-{name}"><div role="img" aria-label="{escape(label)}">{drawing}</div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )
