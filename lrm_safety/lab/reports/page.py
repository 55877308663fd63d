"""A study as one self-contained HTML page: no script, no font, no picture from anywhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ...files import write_atomically
from ...results import Audit
from .album import Album, Part, Section
from .analyses import diagnosis, entropy, memorized
from .evaluations import categories, every_figure, glance, results
from .folders import Study, Subject
from .runs import configuration, cost, samples, trained, training

TEMPLATES = Path(__file__).parent / "templates"
SECTIONS: dict[str, tuple[str, Callable[[Study, Album], list[Part]], str]] = {
    "glance": (
        "At a glance",
        lambda study, album: [*trained(study, album), *glance(study, album)],
        "lrm-safety evaluate model=... evaluation=[attaq,math500]",
    ),
    "results": ("Results", results, "lrm-safety evaluate model=... evaluation=[...]"),
    "categories": ("Safety by category", categories, "lrm-safety evaluate ... evaluation=[attaq]"),
    "diagnosis": ("Diagnosis", diagnosis, ""),
    "training": ("Training", training, "lrm-safety train ..."),
    "entropy": ("Entropy of reflection", entropy, "lrm-safety analyze reflection ..."),
    "memorization": ("Memorization", memorized, "lrm-safety analyze memorization ..."),
    "samples": ("Samples", samples, "lrm-safety report ... samples=3"),
    "figures": ("All figures of the evaluations", every_figure, "lrm-safety evaluate ..."),
    "configuration": ("Configuration", configuration, ""),
    "cost": ("Cost", cost, ""),
}
"""Name -> heading, what makes it, the command that would fill it. One without parts is not shown."""


def write_report(study: Study, folder: Path, title: str = "Safety and reasoning") -> Path:
    """Write FOLDER/report.html and FOLDER/figures/*.png, *.svg in the place of a former report's; returns the page's path."""
    album = Album(folder / "figures", _groups(study))
    folder.mkdir(parents=True, exist_ok=True)
    made = [Section(name, heading, make(study, album), command) for name, (heading, make, command) in SECTIONS.items()]
    place = _places(study)

    def told(text: str) -> Markup:
        return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(place(text)))))

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"told": told, "place": place}
    page = environment.get_template("page.html").render(
        title=title,
        models=[_named(one) for one in study.subjects],
        sources=[line for one in study.subjects for line in _sources(one)]
        + [(one.path.stem, str(one.folder)) for one in study.analyses],
        sections=[one for one in made if one.parts],
        absent=[one for one in made if one.command and not one.parts],
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
    )
    path = folder / "report.html"
    former = _drawn(path)
    write_atomically(path, page)
    for name in former - _drawn(path):
        for ending in ("png", "svg"):
            (folder / "figures" / f"{name}.{ending}").unlink(missing_ok=True)
    return path


def _drawn(page: Path) -> set[str]:
    """Names of the pictures that a page of ours shows, whose files lie beside it; of none, none."""
    try:
        return set(re.findall(r'<figure id="figure-([A-Za-z0-9-]+)">', page.read_text(encoding="utf-8")))
    except (FileNotFoundError, UnicodeDecodeError):
        return set()


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
    return subject.name + (f", {runs} runs" if runs > 1 else "")


def _sources(subject: Subject) -> list[tuple[str, str]]:
    return [(subject.name, str(folder)) for folder in dict.fromkeys(subject.folders)]


def _places(study: Study) -> Callable[[str], str]:
    """Texts without what a page that is sent to others should not tell: where on this machine the folders lie."""
    folders: Sequence[Path] = [
        *(folder.absolute() for subject in study.subjects for folder in subject.folders),
        *(one.folder.absolute() for one in study.analyses),
    ]
    root = Path(os.path.commonpath(folders)) if folders else Path("/")
    if root in folders:
        root = root.parent
    hidden = {f"{Path.home()}/": "~/"} | ({f"{root}/": ""} if root != Path("/") else {})

    def place(text: str) -> str:
        for beginning in sorted(hidden, key=len, reverse=True):
            text = text.replace(beginning, hidden[beginning])
        return text

    return place
