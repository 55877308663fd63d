"""What the analyses found: entropy of reflection, memorization, findings with their evidence, audits of the reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...results import Audit, Memorization, Reflection
from . import figures
from .album import Album, Card, Part, Picture, Pictures, Text, slug
from .combine import (
    MAIN_REFLECTION,
    MEMORIZATION_MEASURES,
    REFLECTION_MEASURES,
    SHARES,
    Combined,
    audit_by,
    deciles,
    memorization,
    reflection,
)
from .evaluations import REFLECTION as PAPERS_ENTROPY
from .evaluations import published_entropy
from .findings import Seen, diagnose_study
from .folders import Analysis, Study, role_and_rest
from .tables import Cell, Table, cell

Row = list[Combined | None]


def entropy(study: Study, album: Album) -> list[Part]:
    """Reflection entropy, and entropy along the trace."""
    analyses = list(study.of_kind(Reflection))
    main = reflection(analyses, MAIN_REFLECTION)
    models, benchmarks = (list(dict.fromkeys(key[i] for key in main)) for i in (0, 1))
    paper = [
        f"{row['base']} → {row['rl']} on {name}"
        for name, row in PAPERS_ENTROPY.items()
        if any(published_entropy(one, "rl") == row["rl"] for one in benchmarks)
    ]
    drawn = album.add(
        "reflection",
        {model: [main.get((model, name)) for name in benchmarks] for model in models},
        lambda mine, group: figures.bars(
            benchmarks, mine, album.looks, title=group, x_label="entropy at reflection tokens, nats", share=False
        ),
        "Mean entropy of the distribution that a reflection token was drawn from, with 95% intervals."
        + (f" The paper reports {' and '.join(paper)}, by a definition of its own." if paper else ""),
        lambda mine: f"Entropy at reflection tokens: {_told(mine, benchmarks)}",
    )
    tenths = deciles(analyses)
    for benchmark in dict.fromkeys(name for _, name in tenths):
        rows = {model: row for (model, name), row in tenths.items() if name == benchmark}
        drawn += _along_trace(album, benchmark, rows)
    return [Pictures(drawn), reflection_table(study)] if drawn else []


def _along_trace(album: Album, benchmark: str, tenths: Mapping[str, Row]) -> list[Picture]:
    return album.add(
        slug("trace-entropy", benchmark),
        tenths,
        lambda mine, group: figures.along_trace(
            mine, album.looks, title=f"{benchmark}, {group}" if group else benchmark
        ),
        f"Entropy along the trace on {benchmark}: mean of each tenth, with 95% intervals.",
        lambda mine: (
            f"Entropy along the trace on {benchmark}, first to last tenth: "
            + "; ".join(
                f"{model} {row[0].value:.3f} to {row[-1].value:.3f}"
                for model, row in mine.items()
                if row[0] and row[-1]
            )
        ),
    )


def reflection_table(study: Study) -> Table:
    """Rows: benchmark and measure; columns: models reading their own responses."""
    analyses = list(study.of_kind(Reflection))
    measures = {name: reflection(analyses, name) for name in REFLECTION_MEASURES}
    keys = list(dict.fromkeys(key for found in measures.values() for key in found))
    models, benchmarks = (list(dict.fromkeys(key[i] for key in keys)) for i in (0, 1))
    rows: list[list[str | Cell]] = []
    for benchmark in benchmarks:
        for name, title in REFLECTION_MEASURES.items():
            values = [measures[name].get((model, benchmark)) for model in models]
            if any(values):
                beside = name == MAIN_REFLECTION
                paper = [published_entropy(benchmark, role_and_rest(model)[0]) if beside else None for model in models]
                rows.append([benchmark, title, *map(cell, values, paper)])
    caption = (
        "At reflection tokens (wait, but, ...) inside the trace, each model reading its own responses at the sampling "
        "temperature."
    )
    return Table("reflection", caption, ["prompts", "measure", *models], rows, words=(0, 1))


def memorized(study: Study, album: Album) -> list[Part]:
    """How much of the supervised data is known by heart."""
    found = memorization(study.of_kind(Memorization))
    models, groups = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    rows = [
        (group, name) for name in SHARES for group in groups if any((model, group, name) in found for model in models)
    ]
    labels = [f"{MEMORIZATION_MEASURES[name].split(' of ')[0]}, {group.replace('_', ' ')}" for group, name in rows]
    drawn = album.add(
        "memorization",
        {model: [found.get((model, group, name)) for group, name in rows] for model in models},
        lambda mine, group: figures.bars(labels, mine, album.looks, title=group, x_label="share"),
        "Rows that the supervised model was trained on, and rows held out: a gap between the two is memorization.",
        lambda mine: f"Memorization: {_told(mine, labels)}",
    )
    table = Table(
        "memorized",
        "How much of the supervised rows a model knows by heart: rows it was trained on and rows held out.",
        ["rows", "measure", *models],
        [
            [group.replace("_", " "), title, *(cell(found.get((model, group, name))) for model in models)]
            for group in groups
            for name, title in MEMORIZATION_MEASURES.items()
            if any((model, group, name) in found for model in models)
        ],
        words=(0, 1),
    )
    if len(drawn) == 1:
        return [Pictures(drawn, beside=table)]
    return [Pictures(drawn), table] if drawn else []


def _told(values: Mapping[str, Row], labels: Sequence[str]) -> str:
    return "; ".join(
        f"{model} on {label} {one.value:.3f}"
        for model, row in values.items()
        for label, one in zip(labels, row, strict=True)
        if one
    )


def diagnosis(study: Study, album: Album) -> list[Part]:
    """Findings first, failures before warnings; then the audits."""
    nothing = (
        "No failure signature was found in the figures that are here. Rules whose figures are absent say nothing.",
    )
    cards: list[Part] = [_card(seen) for seen in diagnose_study(study)]
    audits = [part for i, one in enumerate(study.of_kind(Audit)) for part in _audit(one, i)]
    return [*(cards or ([Text(nothing, "fine")] if study.has_figures else [])), *audits]


def _card(seen: Seen) -> Card:
    one = seen.told
    return Card(
        f"{seen.subject}: `{one.rule}`",
        one.level,
        [("", one.text), ("Remedy", one.remedy)],
        [str(measured) for measured in one.evidence],
    )


def _audit(audit: Analysis[Audit], position: int) -> list[Part]:
    """A reward-model audit: verdict, reasons, and where the reward separates."""
    lines = []
    for model, one in audit.results.models.items():
        lines += [f"{model}: {one.verdict}", *(one.reasons or ["no reason to doubt it"])]
    parts: list[Part] = [Text([f"Reward-model audit, `{audit.folder}`: {audit.results.verdict}", *lines])]
    separation = audit_by(audit.results, "by_category") | audit_by(audit.results, "by_family")
    rows: list[list[str | Cell]] = [[name, model, view, cell(auc)] for (model, view, name), auc in separation.items()]
    if rows:
        head = ["category or family", "reward model", "view", "AUC"]
        caption = "How well the reward tells safe from unsafe texts: 1 is always, 0.5 is a coin."
        parts.append(Table(f"audit-{position}", caption, head, rows, words=(0, 1, 2)))
    return parts
