"""The sections of a report: each takes the study and gives its HTML, or says which command would fill it."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from ..evaluation.results import headlines
from . import figures, tables
from .analyses import MAIN_REFLECTION, MEMORIZATION_MEASURES, audit_by, deciles, memorization, reflection
from .combine import Combined, benchmarks_of, figure_of, mean_of_role
from .figures import Looks
from .findings import diagnose_study
from .folders import Analysis, Study
from .style import publish

TRAINING_PANELS = {
    "reward/raw_mean": ("Reward, raw", "score"),
    "sft/loss": ("Supervised loss", "nats/token"),
    "kl/k3": ("KL to the reference (k3)", "nats/token"),
    "entropy/trace": ("Entropy of the trace", "nats/token"),
    "entropy/reflection": ("Entropy at reflection tokens", "nats/token"),
    "response/length_mean": ("Response length", "tokens"),
    "response/trace_length_mean": ("Trace length", "tokens"),
    "response/refusal_rate": ("Refusal rate on training prompts", "fraction"),
    "train/gradient_norm": ("Gradient norm", "1"),
}
"""Metrics that get a panel where any run recorded them: (title, unit)."""
LABELS = ("label", "category", "level2", "functional_category", "risk")


class Album:
    """Draws figures into a folder and gives their HTML."""

    def __init__(self, folder: Path, looks: Looks) -> None:
        self._folder = folder
        self.looks = looks
        self.names: list[str] = []

    def add(self, name: str, draw: Callable[[], Figure], caption: str, label: str) -> str:
        """A figure with its caption; `label` says what is to be seen, for who does not see it."""
        self.names.append(name)
        drawing = publish(draw, self._folder, name)
        return (
            f'<figure id="figure-{name}"><div role="img" aria-label="{escape(label)}">{drawing}</div>'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def results(study: Study, album: Album) -> str:
    """The main table, the paper's own, and differences from the base."""
    main = tables.main_table(study)
    if not main:
        main = _absent("No evaluation was given", "lrm-safety evaluate model=... evaluation=[...]")
    return main + "<h3>The paper's own figures</h3>" + tables.published_table() + tables.difference_table(study)


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
        return _absent("Needs a safety and a reasoning benchmark", "lrm-safety evaluate ... evaluation=[attaq,math500]")
    seeds = {}
    for subject in study.subjects:
        if subject.name in points and len(subject.evaluations) > 1 and len(names[0]) == len(names[1]) == 1:
            pairs = [[_primary(one.results, name[0]) for name in names] for one in subject.evaluations]
            seeds[subject.name] = [(x, y) for x, y in pairs if x is not None and y is not None]
    x_label, y_label = (
        f"{what}: {', '.join(mine)}" if len(mine) == 1 else f"{what}: mean of {len(mine)} benchmarks"
        for what, mine in zip(("reasoning", "safety"), names, strict=True)
    )
    told = "; ".join(f"{name} reasoning {x.value:.3f}, safety {y.value:.3f}" for name, (x, y) in points.items())
    averaged = (
        f" Means over {escape(', '.join(names[0]))} and {escape(', '.join(names[1]))}."
        if max(map(len, names)) > 1
        else ""
    )
    return album.add(
        "tradeoff",
        lambda: figures.scatter(points, album.looks, x_label=x_label, y_label=y_label, seeds=seeds),
        "Right and up is better. Bars are 95% intervals, faint marks single runs; the dotted line is the Pareto frontier: "
        f"models that no other beats in one without losing in the other.{averaged}",
        f"Scatter of safety against reasoning: {told}",
    )


def training(study: Study, album: Album) -> str:
    """Curves of every run, and its evaluation while it trained."""
    trained = [one for one in study.subjects if one.runs]
    if not trained:
        return _absent("No training run was given", "lrm-safety train ...")
    drawn = []
    metrics = {name: panel for name, panel in TRAINING_PANELS.items()}
    held_out = sorted({name for one in trained for run in one.runs for name in run.series if _is_benchmark(name)})
    metrics |= {name: (f"Held out: {name.partition('/')[2]}", "primary figure") for name in held_out}
    for metric, (title, unit) in metrics.items():
        series = {
            one.name: points
            for one in trained
            if (points := [run.series[metric] for run in one.runs if metric in run.series])
        }
        if not any(len(points) > 1 for runs in series.values() for points in runs):
            continue
        told = "; ".join(f"{name} {runs[0][0][1]:.3g} to {runs[0][-1][1]:.3g}" for name, runs in series.items())
        drawn.append(
            album.add(
                f"training-{metric.replace('/', '-').replace('_', '-')}",
                lambda series=series, title=title, unit=unit: figures.curves(
                    series, album.looks, title=title, y_label=unit
                ),  # type: ignore[misc]
                f"<code>{escape(metric)}</code> of {escape(', '.join(series))}.",
                f"{title}: {told}",
            )
        )
    return f'<div class="grid">{"".join(drawn)}</div>'


def _is_benchmark(name: str) -> bool:
    group, _, rest = name.partition("/")
    return group == "evaluation" and "/" not in rest


def categories(study: Study, album: Album) -> str:
    """Safety by label of every safety benchmark."""
    drawn = []
    shown = [one for one in study.subjects if one.evaluations]
    for benchmark, role in benchmarks_of(study).items():
        entry = next(
            (found for one in shown for e in one.evaluations if (found := e.results["benchmarks"].get(benchmark))), None
        )
        if role != "safety" or entry is None:
            continue
        for group in LABELS:
            prefix = f"{entry['primary']}@{group}="
            labels = [name.removeprefix(prefix) for name in entry["figures"] if name.startswith(prefix)]
            if len(labels) < 2:
                continue
            values = {one.name: [figure_of(one, benchmark, f"{prefix}{label}") for label in labels] for one in shown}
            drawn.append(
                album.add(
                    f"categories-{benchmark}-{group}".replace("_", "-"),
                    lambda labels=labels, values=values: figures.bars(labels, values, album.looks, x_label="safety"),  # type: ignore[misc]
                    f"{escape(benchmark)}: <code>{escape(entry['primary'])}</code> by {escape(group)}, with 95% intervals.",
                    f"Safety on {benchmark} by {group}: "
                    + "; ".join(
                        f"{label} " + ", ".join(f"{name} {row[i].value:.2f}" for name, row in values.items() if row[i])  # type: ignore[union-attr]
                        for i, label in enumerate(labels)
                    ),
                )
            )
    if not drawn:
        return _absent("No evaluation has safety by label", "lrm-safety evaluate ... evaluation=[attaq]")
    return f'<div class="grid">{"".join(drawn)}</div>'


def entropy(study: Study, album: Album) -> str:
    """Reflection entropy, and entropy along the trace."""
    analyses = list(study.of_kind("reflection"))
    if not analyses:
        return _absent("No reflection analysis was given", "lrm-safety analyze reflection ...")
    main = reflection(analyses, MAIN_REFLECTION)
    models, benchmarks = (list(dict.fromkeys(key[i] for key in main)) for i in (0, 1))
    values = {model: [main.get((model, name)) for name in benchmarks] for model in models}
    drawn = [
        album.add(
            "reflection",
            lambda: figures.bars(
                benchmarks, values, album.looks, x_label="entropy at reflection tokens, nats", share=False
            ),
            "Mean entropy of the distribution that a reflection token was drawn from, with 95% intervals. The paper reports 0.24 → "
            "0.09 nats on AttaQ (its own definition).",
            "Entropy at reflection tokens: "
            + "; ".join(f"{model} on {name} {one.value:.3f}" for (model, name), one in main.items()),
        )
    ]
    tenths = deciles(analyses)
    for benchmark in dict.fromkeys(name for _, name in tenths):
        mine = {model: row for (model, name), row in tenths.items() if name == benchmark}
        drawn.append(
            album.add(
                f"trace-entropy-{benchmark}".replace("_", "-"),
                lambda mine=mine, benchmark=benchmark: figures.along_trace(mine, album.looks, title=benchmark),  # type: ignore[misc]
                f"Entropy along the trace on {escape(benchmark)}: mean of each tenth, with 95% intervals.",
                f"Entropy along the trace on {benchmark}",
            )
        )
    return f'<div class="grid">{"".join(drawn)}</div>{tables.reflection_table(study)}'


def memorized(study: Study, album: Album) -> str:
    """How much of the supervised data is known by heart."""
    found = memorization(study.of_kind("memorization"))
    if not found:
        return _absent("No memorization analysis was given", "lrm-safety analyze memorization ...")
    models, groups = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    names = [name for name in MEMORIZATION_MEASURES if "likelihood" not in name]
    rows = [
        (group, name) for group in groups for name in names if any((model, group, name) in found for model in models)
    ]
    values = {model: [found.get((model, group, name)) for group, name in rows] for model in models}
    labels = [f"{MEMORIZATION_MEASURES[name].split(' of ')[0]},\n{group.replace('_', ' ')}" for group, name in rows]
    figure = album.add(
        "memorization",
        lambda: figures.bars(labels, values, album.looks, x_label="share"),
        "Rows that the supervised model was trained on, and rows held out: a gap between the two is memorization.",
        "Memorization: " + "; ".join(f"{m} {g} {n} {one.value:.3f}" for (m, g, n), one in found.items() if n in names),
    )
    return f'<div class="grid">{figure}</div>{tables.memorization_table(study)}'


def diagnosis(study: Study, album: Album) -> str:
    """Findings with their evidence and remedies."""
    cards = []
    for seen in diagnose_study(study):
        one = seen.finding
        often = (
            f' <span class="note">seen in {seen.num_seen} of {seen.num_runs} runs, the worst shown</span>'
            if seen.num_runs > 1
            else ""
        )
        evidence = "".join(f"<li>{escape(str(measured))}</li>" for measured in one.evidence)
        cards.append(
            f'<article class="finding {one.level}"><h3><span class="level">{one.level.upper()}</span>{escape(seen.subject)}: '
            f"<code>{one.rule}</code></h3><p>{escape(one.text)}{often}</p><ul>{evidence}</ul>"
            f"<p><b>Remedy.</b> {escape(one.remedy)}</p></article>"
        )
    audits = "".join(_audit(one, i) for i, one in enumerate(study.of_kind("audit")))
    nothing = (
        '<p class="fine">No failure signature was found in the figures that are here. '
        "Rules whose figures are absent say nothing.</p>"
    )
    return ("".join(cards) or nothing) + audits


def _audit(audit: Analysis, position: int) -> str:
    """A reward-model audit: verdict, reasons, and where the reward separates."""
    parts = [
        f"<h3>Reward-model audit, <code>{escape(str(audit.folder))}</code>: {escape(str(audit.results['verdict']))}</h3>"
    ]
    for model, one in audit.results["models"].items():
        reasons = "".join(f"<li>{escape(reason)}</li>" for reason in one["reasons"]) or "<li>no reason to doubt it</li>"
        parts.append(f"<p>{escape(model)}: <b>{escape(one['verdict'])}</b></p><ul>{reasons}</ul>")
    separation = audit_by(audit, "by_category") | audit_by(audit, "by_family")
    rows = [
        [escape(name), escape(model), escape(view), tables.cell(auc)] for (model, view, name), auc in separation.items()
    ]
    if rows:
        head = ["category or family", "reward model", "view", "AUC"]
        caption = "How well the reward tells safe from unsafe texts: 1 is always, 0.5 is a coin."
        parts.append(tables.table(caption, head, rows, identity=f"audit-{position}", numeric_from=3))
    return "".join(parts)


def every_figure(study: Study, album: Album) -> str:
    """The figures behind the primary ones, benchmark by benchmark."""
    parts = []
    for benchmark in benchmarks_of(study):
        names = dict.fromkeys(
            name
            for subject in study.subjects
            for evaluation in subject.evaluations
            if (entry := evaluation.results["benchmarks"].get(benchmark))
            for name in [*headlines(entry), *(name for name in entry["figures"] if name.startswith("length/"))]
        )
        if names and (shown := tables.figures_table(study, benchmark, list(names), f"all-{benchmark}")):
            parts.append(f"<details><summary>{escape(benchmark)}</summary>{shown}</details>")
    return "".join(parts) or _absent("No evaluation was given", "lrm-safety evaluate ...")


def configuration(study: Study, album: Album) -> str:
    """Where the runs differ, and each in full."""
    runs = {}
    for subject in study.subjects:
        for i, run in enumerate(subject.runs):
            if run.config:
                runs[subject.name if len(subject.runs) == 1 else f"{subject.name} {i + 1}"] = run.config
    evaluations = {
        f"{subject.name}, evaluation": one.config
        for subject in study.subjects
        for one in subject.evaluations[:1]
        if one.config
    }
    if not runs and not evaluations:
        return "<p>No folder holds a config.yaml.</p>"
    full = "".join(
        f"<details><summary>{escape(name)}</summary><pre>{escape(yaml.safe_dump(config, sort_keys=False))}</pre></details>"
        for name, config in (runs | evaluations).items()
    )
    return (tables.configuration_table(runs) if len(runs) > 1 else "") + full


def cost(study: Study, album: Album) -> str:
    """Seconds, tokens, GPU-hours."""
    return tables.cost_table(study)


def _primary(found: dict[str, Any], benchmark: str) -> float | None:
    entry = found["benchmarks"].get(benchmark)
    figure = entry["figures"].get(entry["primary"]) if entry else None
    return figure["value"] if figure else None


def _absent(what: str, command: str) -> str:
    return f'<p class="note">{escape(what)}: <code>{escape(command)}</code> makes one.</p>'
