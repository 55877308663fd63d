"""One look for every figure: Okabe and Ito's colours, a marker, a line and a hatch each, so that colour is never alone."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

from lrm_safety.files import write_atomically

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .folders import ROLES, role_and_rest
from .svg import INK, for_file, for_page, render


@dataclass(frozen=True)
class Look:
    """How one subject or series is drawn everywhere."""

    colour: str
    line: str
    marker: str
    hatch: str


LOOKS = (
    Look("#0072B2", "-", "o", ""),
    Look("#D55E00", "--", "s", "///"),
    Look("#009E73", "-.", "^", "\\\\\\"),
    Look("#CC79A7", ":", "D", "xxx"),
    Look("#E69F00", (0, (5, 1, 1, 1, 1, 1)), "v", "---"),  # type: ignore[arg-type]
    Look("#56B4E9", (0, (1, 1)), "P", "+++"),  # type: ignore[arg-type]
)
"""Okabe and Ito's palette without black and yellow, which vanish on a dark and on a light page."""

RC = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "legend.fontsize": 10,
    "font.family": "DejaVu Sans",
    "svg.fonttype": "none",
    "svg.hashsalt": "lrm-safety",
    "axes.facecolor": "none",
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": INK,
    "hatch.color": INK,
    "hatch.linewidth": 0.6,
}


def looks_of(names: Sequence[str]) -> dict[str, Look]:
    """A look for each name: the first base, sft and rl have the first three, so that they look alike in every group of
    models. Beyond six, colours come back with another line, marker and hatch."""
    places: dict[str, int] = {}
    for place, role in enumerate(ROLES):
        mine = next((name for name in names if role_and_rest(name)[0] == role), None)
        if mine is not None:
            places[mine] = place
    for name in names:
        if name not in places:
            places[name] = next(place for place in itertools.count() if place not in places.values())
    return {name: _look(places[name]) for name in names}


def _look(place: int) -> Look:
    """The place's colour; line, marker and hatch are shifted by one for each time that the colours were used up."""
    shifted = LOOKS[(place + place // len(LOOKS)) % len(LOOKS)]
    return replace(shifted, colour=LOOKS[place % len(LOOKS)].colour)


def tidy(axes: Axes, grid: str = "y") -> None:
    """No frame above and right, a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis=grid, alpha=0.18)  # type: ignore[arg-type]
    axes.set_axisbelow(True)


def publish(draw: Callable[[], Figure], folder: Path, name: str) -> str:
    """Draw, write NAME.png and NAME.svg (white ground, dark ink), return the SVG for a page."""
    with matplotlib.rc_context(RC):
        figure = draw()
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", dpi=200, facecolor="white")
        text = render(figure)
        plt.close(figure)
    write_atomically(folder / f"{name}.svg", for_file(text))
    return for_page(text, prefix=name)
