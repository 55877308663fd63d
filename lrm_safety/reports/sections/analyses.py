"""What the analyses found: entropy of reflection, memorization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ...results import Memorization, Reflection
from .. import figures
from ..album import Album
from ..analyses import (
    MAIN_REFLECTION,
    MEMORIZATION_MEASURES,
    REFLECTION_MEASURES,
    deciles,
    memorization,
    reflection,
)
from ..combine import Combined
from ..folders import Study, role_and_rest
from ..html import absent, cell, slug, table
from ..published import published_entropy

Row = list[Combined | None]


def entropy(study: Study, album: Album) -> str:
    """Reflection entropy, and entropy along the trace."""
    analyses = list(study.of_kind(Reflection))
    if not analyses:
        return absent("No reflection analysis was given", "lrm-safety analyze reflection ...")
    main = reflection(analyses, MAIN_REFLECTION)
    models, benchmarks = (list(dict.fromkeys(key[i] for key in main)) for i in (0, 1))
    drawn = album.add(
        "reflection",
        {model: [main.get((model, name)) for name in benchmarks] for model in models},
        lambda mine, group: figures.bars(
            benchmarks, mine, album.looks, title=group, x_label="entropy at reflection tokens, nats", share=False
        ),
        "Mean entropy of the distribution that a reflection token was drawn from, with 95% intervals. The paper reports "
        f"{published_entropy('attaq', 'base')} → {published_entropy('attaq', 'rl')} on AttaQ and "
        f"{published_entropy('aime24', 'base')} → {published_entropy('aime24', 'rl')} on AIME 2024, by a definition of its own.",
        lambda mine: f"Entropy at reflection tokens: {_told(mine, benchmarks)}",
    )
    tenths = deciles(analyses)
    for benchmark in dict.fromkeys(name for _, name in tenths):
        rows = {model: row for (model, name), row in tenths.items() if name == benchmark}
        drawn += _along_trace(album, benchmark, rows)
    return f'<div class="grid">{drawn}</div>{reflection_table(study)}'


def _along_trace(album: Album, benchmark: str, tenths: Mapping[str, Row]) -> str:
    return album.add(
        slug("trace-entropy", benchmark),
        tenths,
        lambda mine, group: figures.along_trace(
            mine, album.looks, title=f"{benchmark}, {group}" if group else benchmark
        ),
        f"Entropy along the trace on {escape(benchmark)}: mean of each tenth, with 95% intervals.",
        lambda mine: (
            f"Entropy along the trace on {benchmark}, first to last tenth: "
            + "; ".join(
                f"{model} {row[0].value:.3f} to {row[-1].value:.3f}"
                for model, row in mine.items()
                if row[0] and row[-1]
            )
        ),
    )


def reflection_table(study: Study) -> str:
    """Rows: benchmark and measure; columns: models reading their own responses."""
    analyses = list(study.of_kind(Reflection))
    measures = {name: reflection(analyses, name) for name in REFLECTION_MEASURES}
    keys = list(dict.fromkeys(key for found in measures.values() for key in found))
    models, benchmarks = (list(dict.fromkeys(key[i] for key in keys)) for i in (0, 1))
    rows = []
    for benchmark in benchmarks:
        for name, title in REFLECTION_MEASURES.items():
            values = [measures[name].get((model, benchmark)) for model in models]
            if any(values):
                beside = name == MAIN_REFLECTION
                paper = [published_entropy(benchmark, role_and_rest(model)[0]) if beside else None for model in models]
                rows.append([escape(benchmark), title, *map(cell, values, paper)])
    caption = (
        "At reflection tokens (wait, but, ...) inside the trace, each model reading its own responses at the sampling "
        "temperature."
    )
    return _by_model(caption, "prompts", models, rows, "reflection")


def memorized(study: Study, album: Album) -> str:
    """How much of the supervised data is known by heart."""
    found = memorization(study.of_kind(Memorization))
    if not found:
        return absent("No memorization analysis was given", "lrm-safety analyze memorization ...")
    models, groups = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    shares = [name for name in MEMORIZATION_MEASURES if "likelihood" not in name]
    rows = [
        (group, name) for name in shares for group in groups if any((model, group, name) in found for model in models)
    ]
    labels = [f"{MEMORIZATION_MEASURES[name].split(' of ')[0]}, {group.replace('_', ' ')}" for group, name in rows]
    figure = album.add(
        "memorization",
        {model: [found.get((model, group, name)) for group, name in rows] for model in models},
        lambda mine, group: figures.bars(labels, mine, album.looks, title=group, x_label="share"),
        "Rows that the supervised model was trained on, and rows held out: a gap between the two is memorization.",
        lambda mine: f"Memorization: {_told(mine, labels)}",
    )
    return f'<div class="grid">{figure}</div>{memorization_table(study)}'


def memorization_table(study: Study) -> str:
    """Rows: group of rows and measure; columns: models."""
    found = memorization(study.of_kind(Memorization))
    models, groups = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    rows = [
        [escape(group.replace("_", " ")), title, *(cell(found.get((model, group, name))) for model in models)]
        for group in groups
        for name, title in MEMORIZATION_MEASURES.items()
        if any((model, group, name) in found for model in models)
    ]
    caption = "How much of the supervised rows a model knows by heart: rows it was trained on and rows held out."
    return _by_model(caption, "rows", models, rows, "memorized")


def _by_model(caption: str, first: str, models: Sequence[str], rows: Sequence[Sequence[str]], identity: str) -> str:
    """A row for each `first` and measure, a column for each model."""
    head = [first, "measure", *map(escape, models)]
    return table(caption, head, rows, identity=identity, figures=range(2, 2 + len(models)))


def _told(values: Mapping[str, Row], labels: list[str]) -> str:
    return "; ".join(
        f"{model} on {label} {one.value:.3f}"
        for model, row in values.items()
        for label, one in zip(labels, row, strict=True)
        if one
    )
