"""One look for every figure: Okabe and Ito's colours, a marker, a line and a hatch each, so that colour is never alone; and
matplotlib's SVG made fit for a page, with ink that follows the page's colour."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib

from ...files import write_atomically

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .folders import ROLES, role_and_rest

INK = "#0a0b0c"
"""Text, axes and ticks as they are drawn."""
FILE_INK = "#222222"


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


TIP = "tip: "
"""How the id of what is drawn begins that shows the rest of it to a pointer that rests there."""


def before(look: Look) -> Look:
    """How the model is drawn from which one was trained, where it is no model of its own."""
    return replace(look, colour="#808894", line=":", hatch="")


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
        text = _render(figure)
        plt.close(figure)
    write_atomically(folder / f"{name}.svg", _for_file(text))
    return _for_page(text, prefix=name)


def _render(figure: Figure) -> str:
    """The figure as matplotlib writes it, without a date."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def _for_file(text: str) -> str:
    """A file of its own: metadata and the link to the document type gone, white ground, dark ink."""
    body = _bare(text).replace(INK, FILE_INK)
    return re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', body, count=1)


def _for_page(text: str, prefix: str) -> str:
    """Inline: scales with the page, every id begins with `prefix`, ink is currentColor."""
    body = _bare(text).replace(INK, "currentColor")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    # Its own stylesheet would style the whole page; the page's has the rule (templates/style.css).
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    opening = re.search(r"<svg [^>]*>", body)
    assert opening is not None, "matplotlib wrote no SVG"
    box = re.search(r'viewBox="([^"]+)"', opening[0])
    assert box is not None, "matplotlib's SVG has no viewBox"
    width = float(box[1].split()[2])
    inline = f'<svg viewBox="{box[1]}" style="max-width:{width * 4 / 3:.0f}px" aria-hidden="true" focusable="false">'
    return body.replace(opening[0], inline, 1).replace("xlink:href", "href")


def _bare(text: str) -> str:
    text = text[text.index("<svg") :]
    text = re.sub(r"\s*<metadata>.*?</metadata>", "", text, flags=re.DOTALL).strip()
    text = re.sub(rf'<g id="{TIP}([^"]*)">', r"<g><title>\1</title>", text)
    # Where the font that matplotlib measured is not installed: one of the same width, and never a serif.
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
