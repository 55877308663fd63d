"""A study as one self-contained HTML page: no script, no font, no picture from anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

from . import sections
from .folders import Study
from .sections import Album
from .style import looks_of
from .stylesheet import CSS

SECTIONS: dict[str, tuple[str, Callable[[Study, Album], str]]] = {
    "results": ("Results", sections.results),
    "tradeoff": ("Safety against reasoning", sections.tradeoff),
    "diagnosis": ("Diagnosis", sections.diagnosis),
    "training": ("Training", sections.training),
    "categories": ("Safety by category", sections.categories),
    "entropy": ("Entropy of reflection", sections.entropy),
    "memorization": ("Memorization", sections.memorized),
    "figures": ("All figures of the evaluations", sections.every_figure),
    "configuration": ("Configuration", sections.configuration),
    "cost": ("Cost", sections.cost),
}


def write_report(study: Study, folder: Path, title: str = "Safety and reasoning") -> Path:
    """Write FOLDER/report.html and FOLDER/figures/*.png, *.svg; returns the page's path."""
    models = [name for analysis in study.analyses for name in analysis.results.get("models", {})]
    album = Album(folder / "figures", looks_of([*(one.name for one in study.subjects), *models]))
    folder.mkdir(parents=True, exist_ok=True)
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{make(study, album)}</section>'
        for name, (heading, make) in SECTIONS.items()
    )
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, (heading, _) in SECTIONS.items())
    rows = ", ".join(escape(one.name) for one in study.subjects) or "no model"
    path = folder / "report.html"
    path.write_text(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{rows}.</p>{_sources(study)}<nav><ul>{links}</ul></nav></header>"
        f"<main>{body}</main></body></html>\n",
        encoding="utf-8",
    )
    return path


def _sources(study: Study) -> str:
    """Which folders the page was made from."""
    items = []
    for subject in study.subjects:
        folders = dict.fromkeys(
            [str(one.folder) for one in subject.runs] + [str(one.folder) for one in subject.evaluations]
        )
        items.append(f"<li>{escape(subject.name)}: {', '.join(f'<code>{escape(one)}</code>' for one in folders)}</li>")
    items += [f"<li>{one.kind}: <code>{escape(str(one.folder))}</code></li>" for one in study.analyses]
    return f"<details><summary>Made from {len(items)} sources</summary><ul>{''.join(items)}</ul></details>"
