"""matplotlib's SVG made fit for a page: no header, no metadata, ids of its own, ink that follows the page's colour."""

from __future__ import annotations

import io
import re

from matplotlib.figure import Figure

INK = "#0a0b0c"
"""Text, axes and ticks as they are drawn."""
FILE_INK = "#222222"


def render(figure: Figure) -> str:
    """The figure as matplotlib writes it, without a date."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return buffer.getvalue()


def for_file(text: str) -> str:
    """A file of its own: metadata and the link to the document type gone, white ground, dark ink."""
    body = _bare(text).replace(INK, FILE_INK)
    return re.sub(r"(<svg [^>]*>)", r'\1<rect width="100%" height="100%" fill="white"/>', body, count=1)


def for_page(text: str, prefix: str) -> str:
    """Inline: scales with the page, every id begins with `prefix`, ink is currentColor."""
    body = _bare(text).replace(INK, "currentColor")
    body = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', body)
    body = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", body)
    # Its own stylesheet would style the whole page; the page's has the rule (stylesheet.py).
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
    # Where the font that matplotlib measured is not installed: one of the same width, and never a serif.
    return text.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
