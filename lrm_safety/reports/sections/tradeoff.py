"""Safety against reasoning, and safety category by category."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from .. import figures
from ..album import Album
from ..combine import Combined, benchmarks_of, figure_of, mean_of_role, means_of_runs
from ..folders import Study
from ..html import absent, slug

LABELS = ("label", "category", "level2", "functional_category", "risk")
"""Groups of questions that a safety benchmark may have."""


def tradeoff(study: Study, album: Album) -> str:
    """Safety against reasoning."""
    points: dict[str, tuple[Combined, Combined]] = {}
    names: tuple[list[str], list[str]] = ([], [])
    for subject in study.subjects:
        x, y = (mean_of_role(study, subject, role) for role in ("reasoning", "safety"))
        if x and y:
            points[subject.name] = (x[0], y[0])
            names = (x[1], y[1])
    if not points:
        return absent("Needs a safety and a reasoning benchmark", "lrm-safety evaluate ... evaluation=[attaq,math500]")
    seeds = {}
    for subject in study.subjects:
        reasoning, safety = (means_of_runs(subject, mine) for mine in names)
        if len(reasoning) == len(safety) > 1:
            seeds[subject.name] = list(zip(reasoning, safety, strict=True))
    x_label, y_label = (
        f"{what}: {', '.join(mine)}" if len(mine) == 1 else f"{what}: mean of {len(mine)} benchmarks"
        for what, mine in zip(("reasoning", "safety"), names, strict=True)
    )
    averaged = (
        f" Means over {escape(', '.join(names[0]))} and over {escape(', '.join(names[1]))}."
        if max(map(len, names)) > 1
        else ""
    )
    shown = album.add(
        "tradeoff",
        points,
        lambda mine, group: figures.scatter(
            mine, album.looks, title=group, x_label=x_label, y_label=y_label, seeds=seeds
        ),
        f"Right and up is better. Bars are 95% intervals{', faint marks single runs' if seeds else ''}; the dotted line is the "
        f"Pareto frontier: models that no other beats in one without losing in the other.{averaged}",
        lambda mine: (
            "Scatter of safety against reasoning: "
            + "; ".join(f"{name} reasoning {x.value:.3f}, safety {y.value:.3f}" for name, (x, y) in mine.items())
        ),
    )
    return f'<div class="grid">{shown}</div>'


def categories(study: Study, album: Album) -> str:
    """Safety by label of every safety benchmark."""
    drawn = []
    shown = [one for one in study.subjects if one.evaluations]
    for benchmark, role in benchmarks_of(study).items():
        entry = next(
            (found for one in shown for e in one.evaluations if (found := e.results.benchmarks.get(benchmark))), None
        )
        if role != "safety" or entry is None:
            continue
        for group in LABELS:
            prefix = f"{entry.primary}@{group}="
            labels = [name.removeprefix(prefix) for name in entry.figures if name.startswith(prefix)]
            if len(labels) >= 2:
                values = {
                    one.name: row
                    for one in shown
                    if any(row := [figure_of(one, benchmark, f"{prefix}{label}") for label in labels])
                }
                caption = f"<code>{escape(entry.primary)}</code> by {escape(group)}, with 95% intervals."
                drawn.append(_by_label(album, benchmark, group, labels, values, caption))
    if not drawn:
        return absent("No evaluation has safety by label", "lrm-safety evaluate ... evaluation=[attaq]")
    return f'<div class="grid">{"".join(drawn)}</div>'


def _by_label(
    album: Album,
    benchmark: str,
    group: str,
    labels: list[str],
    values: Mapping[str, list[Combined | None]],
    caption: str,
) -> str:
    def tell(mine: Mapping[str, list[Combined | None]]) -> str:
        told = (
            f"{label} " + ", ".join(f"{name} {one.value:.2f}" for name, row in mine.items() if (one := row[i]))
            for i, label in enumerate(labels)
        )
        return f"Safety on {benchmark} by {group}: {'; '.join(told)}"

    return album.add(
        slug("categories", benchmark, group),
        values,
        lambda mine, models: figures.bars(
            labels, mine, album.looks, title=f"{benchmark}, {models}" if models else benchmark, x_label="safety"
        ),
        caption,
        tell,
    )
