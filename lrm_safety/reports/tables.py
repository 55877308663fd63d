"""The tables of a report as HTML: everything that comes from a file is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ..evaluation.statistics import paired_difference
from .analyses import MAIN_REFLECTION, MEMORIZATION_MEASURES, REFLECTION_MEASURES, memorization, reflection
from .combine import Combined, before_training, benchmarks_of, combine, figure_of, over_runs
from .cost import cost_of, evaluation_seconds
from .folders import Study, Subject
from .published import BENCHMARKS, NOTE, PAPER, REFLECTION, TITLES, published

ROLE_NAMES = {
    "safety": "safety",
    "reasoning": "reasoning",
    "helpfulness": "helpfulness",
    "over_refusal": "over-refusal, lower is better",
    "robustness": "robustness",
}


def table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, identity: str, numeric_from: int = 1
) -> str:
    """Cells are HTML already; the first cell of a row is its header."""
    columns = "".join(f'<th scope="col"{_figure(i, numeric_from)}>{cell}</th>' for i, cell in enumerate(head))
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>'
        + "".join(f"<td{_figure(i, numeric_from)}>{cell}</td>" for i, cell in enumerate(row[1:], start=1))
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll"><table id="{identity}"><caption>{caption}</caption>'
        f"<thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _figure(position: int, numeric_from: int) -> str:
    return ' class="figure"' if position >= numeric_from else ""


def cell(one: Combined | None, paper: str | None = None) -> str:
    """Value, interval below it, the paper's figure below that."""
    text = "–" if one is None else f"<b>{one.value:.3f}</b>"
    if one is not None and one.low is not None and one.high is not None:
        text += f"<small>{one.low:.3f} to {one.high:.3f}</small>"
    if one is not None and (one.num_runs > 1 or one.in_training):
        text += f"<small>{one.over}</small>"
    if paper is not None:
        text += f'<small class="paper">paper: {escape(paper)}</small>'
    return text


def main_table(study: Study) -> str:
    """Subjects x benchmarks, the primary figure of each; a run that was never evaluated shows its own evaluation."""
    found = benchmarks_of(study)
    if not found:
        return ""
    rows = []
    for subject in study.subjects:
        if study.base is None and not subject.evaluations and any(before_training(subject, name) for name in found):
            rows.append(
                [f"{escape(subject.name)}, at update 0", *(cell(before_training(subject, name)) for name in found)]
            )
        figures = [figure_of(subject, name) for name in found]
        if any(figures):
            rows.append(
                [
                    escape(subject.name),
                    *(cell(one, published(name, subject.role)) for name, one in zip(found, figures, strict=True)),
                ]
            )
    return table(
        "Primary figure of each benchmark with its 95% interval: bootstrap over questions of one evaluation, Student's over runs "
        "where there are several. Entries marked <i>paper</i> are printed in the paper, not measured here.",
        ["model", *(f"{escape(name)}<small>{ROLE_NAMES[role]}</small>" for name, role in found.items())],
        rows,
        identity="main",
    )


def published_table() -> str:
    """The paper's figures on their own, whether or not this report measured the like."""
    rows = [
        [
            f"{role}, {PAPER}",
            *(BENCHMARKS[name].get(role, "–") for name in TITLES),
            REFLECTION.get(role, "–"),
        ]
        for role in ("base", "sft", "rl")
    ]
    head = ["paper", *TITLES.values(), "reflection entropy on AttaQ, nats"]
    return table(NOTE, head, rows, identity="published").replace("<table ", '<table class="published" ', 1)


def difference_table(study: Study) -> str:
    """Every subject less the base on the same questions; of several seeds the mean of their differences."""
    rows = []
    for subject in study.subjects:
        base = study.base_of(subject)
        if base is None or base is subject or subject.role == "base":
            continue
        for name in benchmarks_of(study):
            found = [one for one in _differences(base, subject, name) if one["value"] is not None]
            if not found:
                continue
            if len(found) == 1:
                one, p_value = combine(found), f"{found[0]['p_value']:.3f}"
            else:
                value, low, high = over_runs([one["value"] for one in found])
                one, p_value = Combined(value, low, high, found[0]["n"], len(found)), "–"
            assert one is not None
            interval = "–" if one.low is None else f"{one.low:+.3f} to {one.high:+.3f}"
            rows.append([escape(subject.name), escape(name), f"<b>{one.value:+.3f}</b>", interval, p_value, one.over])
    if not rows:
        return ""
    return table(
        "Difference from the base (of the same model family) over the questions that both answered. p: McNemar's or the "
        "sign-flip test, of one evaluation each.",
        ["model", "benchmark", "difference", "95% interval", "p", "over"],
        rows,
        identity="differences",
        numeric_from=2,
    )


def _differences(base: Subject, subject: Subject, benchmark: str) -> list[dict[str, Any]]:
    found = []
    for i, evaluation in enumerate(subject.evaluations):
        other = base.evaluations[i if len(base.evaluations) == len(subject.evaluations) else 0]
        mine, theirs = (one.results["benchmarks"].get(benchmark) for one in (evaluation, other))
        if not mine or not theirs or mine["primary"] != theirs["primary"]:
            continue
        paired = paired_difference(mine["questions"], theirs["questions"], seed=evaluation.results.get("seed", 0))
        if paired.figure.n:
            found.append(paired.figure.to_json() | {"p_value": paired.p_value})
    return found


def figures_table(study: Study, benchmark: str, names: Sequence[str], identity: str) -> str:
    """Further figures of one benchmark: rows are figures, columns subjects."""
    shown = [one for one in study.subjects if one.evaluations]
    rows = []
    for name in names:
        values = [figure_of(subject, benchmark, name) for subject in shown]
        if any(values):
            rows.append([f"<code>{escape(name)}</code>", *(cell(one) for one in values)])
    return (
        table(escape(benchmark), ["figure", *(escape(one.name) for one in shown)], rows, identity=identity)
        if rows
        else ""
    )


def reflection_table(study: Study) -> str:
    """Rows: benchmark and measure; columns: models reading their own responses."""
    analyses = list(study.of_kind("reflection"))
    measures = {name: reflection(analyses, name) for name in REFLECTION_MEASURES}
    keys = list(dict.fromkeys(key for found in measures.values() for key in found))
    models, benchmarks = (list(dict.fromkeys(key[i] for key in keys)) for i in (0, 1))
    rows = []
    for benchmark in benchmarks:
        for name, title in REFLECTION_MEASURES.items():
            values = [measures[name].get((model, benchmark)) for model in models]
            if any(values):
                beside = benchmark.startswith("attaq") and name == MAIN_REFLECTION
                rows.append(
                    [
                        escape(benchmark),
                        title,
                        *(
                            cell(one, REFLECTION.get(model.split("-")[0]) if beside else None)
                            for model, one in zip(models, values, strict=True)
                        ),
                    ]
                )
    return table(
        "At reflection tokens (wait, but, ...) inside the trace, each model reading its own responses at the sampling temperature.",
        ["prompts", "measure", *map(escape, models)],
        rows,
        identity="reflection",
        numeric_from=2,
    )


def memorization_table(study: Study) -> str:
    """Rows: group of rows and measure; columns: models."""
    found = memorization(study.of_kind("memorization"))
    models, groups = (list(dict.fromkeys(key[i] for key in found)) for i in (0, 1))
    rows = [
        [escape(group.replace("_", " ")), title, *(cell(found.get((model, group, name))) for model in models)]
        for group in groups
        for name, title in MEMORIZATION_MEASURES.items()
        if any((model, group, name) in found for model in models)
    ]
    return table(
        "How much of the supervised rows a model knows by heart: rows it was trained on and rows held out.",
        ["rows", "measure", *map(escape, models)],
        rows,
        identity="memorized",
        numeric_from=2,
    )


def cost_table(study: Study) -> str:
    """A row a training run and an evaluation."""
    rows = []
    for subject in study.subjects:
        for run in subject.runs:
            cost = cost_of(run)
            longest = sorted(cost.phases.items(), key=lambda item: -item[1])[:3]
            rows.append(
                [
                    escape(subject.name),
                    f"training, {cost.updates} updates",
                    f"{cost.seconds:,.0f}",
                    _tokens(cost.generated_tokens),
                    _tokens(cost.trained_tokens),
                    f"{cost.gpu_hours:,.2f}" if cost.gpu_hours else "none used",
                    escape(", ".join(f"{name} {seconds:,.0f} s" for name, seconds in longest)),
                ]
            )
        for evaluation in subject.evaluations:
            phases = evaluation.results.get("seconds", {})
            rows.append(
                [
                    escape(subject.name),
                    "evaluation",
                    f"{evaluation_seconds(evaluation):,.0f}",
                    "–",
                    "–",
                    "–",
                    escape(
                        ", ".join(f"{name.removesuffix('_seconds')} {value:,.0f} s" for name, value in phases.items())
                    ),
                ]
            )
    return table(
        "Wall-clock seconds; tokens are speed times time of each iteration; GPU-hours count every GPU that the run reserved, from "
        "its first record to its last.",
        ["model", "what", "seconds", "tokens generated", "tokens trained on", "GPU-hours", "longest parts"],
        rows,
        identity="costs",
        numeric_from=2,
    )


def _tokens(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}"


def configuration_table(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """Keys in which the configurations differ; paths and names of runs left out."""
    flat = {name: dict(_flatten(config)) for name, config in configs.items()}
    keys = sorted({key for one in flat.values() for key in one})
    rows = []
    for key in keys:
        values = [one.get(key, "–") for one in flat.values()]
        if len(set(values)) > 1 and not key.startswith("run."):
            rows.append([f"<code>{escape(key)}</code>", *(f"<code>{escape(value)}</code>" for value in values)])
    if not rows:
        return "<p>The configurations agree in every key but <code>run.*</code>.</p>"
    return table(
        "Keys in which the runs differ.", ["key", *map(escape, flat)], rows, identity="settings", numeric_from=99
    )


def _flatten(config: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
