"""A study as one self-contained HTML page: no script, no font, no picture from anywhere else."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

from ..files import write_atomically
from ..results import Audit
from .album import Album
from .folders import Study, Subject
from .sections.analyses import entropy, memorized
from .sections.diagnosis import diagnosis
from .sections.results import every_figure, results
from .sections.runs import configuration, cost
from .sections.tradeoff import categories, tradeoff
from .sections.training import training
from .stylesheet import CSS

SECTIONS: dict[str, tuple[str, Callable[[Study, Album], str]]] = {
    "results": ("Results", results),
    "tradeoff": ("Safety against reasoning", tradeoff),
    "diagnosis": ("Diagnosis", diagnosis),
    "training": ("Training", training),
    "categories": ("Safety by category", categories),
    "entropy": ("Entropy of reflection", entropy),
    "memorization": ("Memorization", memorized),
    "figures": ("All figures of the evaluations", every_figure),
    "configuration": ("Configuration", configuration),
    "cost": ("Cost", cost),
}


def write_report(study: Study, folder: Path, title: str = "Safety and reasoning") -> Path:
    """Write FOLDER/report.html and FOLDER/figures/*.png, *.svg; returns the page's path."""
    album = Album(folder / "figures", _groups(study))
    folder.mkdir(parents=True, exist_ok=True)
    body = "".join(
        f'<section id="{name}"><h2>{heading}</h2>{make(study, album)}</section>'
        for name, (heading, make) in SECTIONS.items()
    )
    links = "".join(f'<li><a href="#{name}">{heading}</a></li>' for name, (heading, _) in SECTIONS.items())
    rows = "; ".join(_named(one) for one in study.subjects) or "no model"
    path = folder / "report.html"
    write_atomically(
        path,
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body>"
        f"<header><h1>{escape(title)}</h1><p>{rows}.</p>{_sources(study)}<nav><ul>{links}</ul></nav></header>"
        f"<main>{body}</main></body></html>\n",
    )
    return path


def _groups(study: Study) -> dict[str, list[str]]:
    """Names that are drawn together: the study's groups; models that only an analysis read stand with the first."""
    groups = {name: [one.name for one in mine] for name, mine in study.groups().items()}
    known = {name for mine in groups.values() for name in mine}
    read = [name for one in study.analyses if not isinstance(one.results, Audit) for name in one.results.models]
    first = next(iter(groups), "")
    groups[first] = [*groups.get(first, []), *(name for name in dict.fromkeys(read) if name not in known)]
    return groups


def _named(subject: Subject) -> str:
    runs = max(len(subject.runs), len(subject.evaluations))
    return escape(subject.name) + (f", {runs} runs" if runs > 1 else "")


def _sources(study: Study) -> str:
    """Which folders the page was made from."""
    items = []
    for subject in study.subjects:
        folders = dict.fromkeys(
            [str(one.folder) for one in subject.runs] + [str(one.folder) for one in subject.evaluations]
        )
        items.append(f"<li>{escape(subject.name)}: {', '.join(f'<code>{escape(one)}</code>' for one in folders)}</li>")
    items += [f"<li>{one.path.stem}: <code>{escape(str(one.folder))}</code></li>" for one in study.analyses]
    return f"<details><summary>Made from {len(items)} sources</summary><ul>{''.join(items)}</ul></details>"
