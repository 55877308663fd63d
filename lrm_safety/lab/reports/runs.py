"""The runs behind a report: what was trained on what, their curves, samples, configuration and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from ...evaluation.judges.refusal_rules import measured_error
from ...evaluation.results import judge_notes
from ...files import flatten
from ...monitoring.progress import PHASES
from ...monitoring.registry import find
from . import figures
from .album import Album, Card, Fold, Part, Picture, Pictures, Text, slug
from .combine import graded_sets, over_questions
from .cost import Cost, cost_of, evaluation_seconds
from .folders import Study, Subject, TrainingRun
from .style import LOOKS, looks_of
from .tables import Cell, Table

PANELS = {
    "reward/raw_mean": "Reward, raw",
    "sft/loss": "Supervised loss",
    "kl/k3": "KL to the reference (k3)",
    "entropy/trace": "Entropy of the trace",
    "entropy/reflection": "Entropy at reflection tokens",
    "response/length_mean": "Response length",
    "response/trace_length_mean": "Trace length",
    "response/refusal_rate": "Refusals of training prompts",
    "train/gradient_norm": "Gradient norm",
}
"""Metrics that get a panel where any run recorded them, with its title."""
PHASE_LOOKS = looks_of([*PHASES, "controller"])
"""The phases of an iteration in their order, each drawn alike in every picture."""
NAMING = ("run.", "tracking.")
"""Keys that follow from a sweep or from where a run is told of, and make no other run."""
QUESTIONS_STAY_HIDDEN = ("gpqa",)
"""Sets whose authors ask that no question be posted in plain text."""


def trained(study: Study, album: Album) -> list[Part]:
    """What was trained on what."""
    rows: list[list[str]] = []
    for subject in study.subjects:
        config = next((run.config for run in subject.runs if run.config), {})
        evaluated = [one.results.model.path for one in subject.evaluations]
        rows.append(
            [
                subject.name,
                _method(subject.runs),
                str((config.get("model") or {}).get("path") or next(iter(evaluated), "")),
                _data(config),
                _rewards(config),
                _updates(subject.runs),
                str(max(len(subject.runs), len(subject.evaluations))),
                max((run.recorded for run in subject.runs), default="")[: len("2026-11-28")],
            ]
        )
    head = ["model", "method", "from", "on", "reward", "updates", "runs", "last record"]
    kept = [i for i in range(len(head)) if i < 2 or any(row[i] for row in rows)]
    shown = [[row[i] or "–" for i in kept] for row in rows]
    words = [place for place, i in enumerate(kept) if i < 5]
    table = Table("trained", "What was trained on what.", [head[i] for i in kept], shown, words)
    notes: list[Part] = [Text(study.notes, "care")] if study.notes else []
    return [*notes, table] if rows else notes


def _method(runs: Sequence[TrainingRun]) -> str:
    """`reinforce_pp`, as the configuration calls its algorithm; supervised runs have none."""
    if not runs:
        return "evaluated only"
    if any("reward/raw_mean" in run.series or "rollout" in run.config for run in runs):
        names = dict.fromkeys(
            (run.config.get("algorithm") or {}).get("name") or "reinforcement learning" for run in runs
        )
        return ", ".join(names)
    return "supervised fine-tuning"


def _data(config: Mapping[str, Any]) -> str:
    data = config.get("data") or {}
    return str(data.get("path") or data.get("hub_id") or data.get("name") or "")


def _rewards(config: Mapping[str, Any]) -> str:
    models = (config.get("reward") or {}).get("models") or {}
    return ", ".join(
        str(one.get("path") or one.get("function") or one.get("url") or name) for name, one in models.items()
    )


def _updates(runs: Sequence[TrainingRun]) -> str:
    """`120`, or `2 of 8` of one that stopped."""
    told = {(run.updates, max(run.planned_updates or 0, run.updates)) for run in runs}
    return ", ".join(f"{done}" if done == planned else f"{done} of {planned}" for done, planned in sorted(told))


def training(study: Study, album: Album) -> list[Part]:
    """Held-out figures first, then a panel a metric."""
    subjects = [one for one in study.subjects if one.runs]
    drawn = _held_out(subjects, album)
    notes = _judges_error(subjects) if drawn else []
    for metric, title in PANELS.items():
        series = {
            one.name: points
            for one in subjects
            if (points := [run.series[metric] for run in one.runs if metric in run.series])
        }
        if any(len(points) > 1 for runs in series.values() for points in runs):
            drawn += _panel(album, metric, title, series)
    return [*([Pictures(drawn)] if drawn else []), *([Text(notes, "note")] if notes else [])]


def _held_out(subjects: Sequence[Subject], album: Album) -> list[Picture]:
    """The evaluation inside training on shares from 0 to 1: of one run all sets in one panel, of several models a panel each."""
    names = sorted({name for one in subjects for run in one.runs for name in graded_sets(run.series)})
    if len(subjects) == 1 and len(names) > 1:
        run = subjects[0].runs[0]
        looks = {name: LOOKS[i % len(LOOKS)] for i, name in enumerate(names)}
        series = {
            name: [one.series[f"evaluation/{name}"] for one in subjects[0].runs if f"evaluation/{name}" in one.series]
            for name in names
        }
        bounds = {name: _bounds(run, name) for name in names if len(subjects[0].runs) == 1}
        told = "; ".join(f"{name} {runs[0][0][1]:.3g} to {runs[0][-1][1]:.3g}" for name, runs in series.items())
        return [
            album.picture(
                "training-held-out",
                lambda: figures.curves(series, looks, title="Held out", y_label="share", share=True, bounds=bounds),
                "Primary figure of each set of held-out prompts, evaluated during training, with 95% intervals over questions.",
                f"Held out: {told}",
            )
        ]
    drawn = []
    for name in names:
        found = {
            one.name: points
            for one in subjects
            if (points := [run.series[f"evaluation/{name}"] for run in one.runs if f"evaluation/{name}" in run.series])
        }
        bounds = {one.name: _bounds(one.runs[0], name) for one in subjects if len(one.runs) == 1}
        if any(len(points) > 1 for runs in found.values() for points in runs):
            drawn += _panel(album, f"evaluation/{name}", f"Held out: {name}", found, bounds)
    return drawn


def _bounds(run: TrainingRun, name: str) -> list[tuple[float, float | None, float | None]]:
    points = run.series.get(f"evaluation/{name}", ())
    return [(update, *over_questions(run.series, name, value)[1:]) for update, value in points]


def _judges_error(subjects: Sequence[Subject]) -> list[str]:
    """How far the rules may be off, where a run's own evaluation rests on them."""
    names = {
        name
        for one in subjects
        for run in one.runs
        for name, judge in ((run.config.get("evaluation") or {}).get("judges") or {}).items()
        if judge.get("kind") == "refusal_rules"
    }
    return judge_notes({name: {"measured": measured_error()} for name in sorted(names)})


def _panel(
    album: Album,
    metric: str,
    title: str,
    series: Mapping[str, Sequence[figures.Points]],
    bounds: Mapping[str, Sequence[tuple[float, float | None, float | None]]] | None = None,
) -> list[Picture]:
    declared = find(metric)
    return album.add(
        slug("training", metric),
        series,
        lambda mine, group: figures.curves(
            mine,
            album.looks,
            title=f"{title}, {group}" if group else title,
            y_label="share" if declared.is_share else declared.unit.replace("1", ""),
            share=declared.is_share,
            bounds=bounds,
        ),
        f"`{metric}`: {declared.description}",
        lambda mine: (
            f"{title}: "
            + "; ".join(f"{name} {runs[0][0][1]:.3g} to {runs[0][-1][1]:.3g}" for name, runs in mine.items())
        ),
    )


def samples(study: Study, album: Album) -> list[Part]:
    """For the first prompts of every set that all models answered: each model's response."""
    evaluations = [one.results.benchmarks for subject in study.subjects for one in subject.evaluations]
    hidden = {name for one in evaluations for name, entry in one.items() if entry.task in QUESTIONS_STAY_HIDDEN}
    answered: dict[str, dict[str, dict[str, Mapping[str, Any]]]] = {}
    for model, rows in study.samples.items():
        for row in rows:
            if "answer" in row:  # texts were kept
                answered.setdefault(row["set"], {}).setdefault(row["id"], {}).setdefault(model, row)
    parts: list[Part] = []
    for name, prompts in answered.items():
        if name in hidden or name in QUESTIONS_STAY_HIDDEN:
            parts.append(Text([f"{name}: its authors ask that no question be posted in plain text."], "note"))
            continue
        most = max(map(len, prompts.values()))
        cards = [_sample(of) for of in [one for one in prompts.values() if len(one) == most][: study.num_samples]]
        parts.append(Fold(f"{name}: {len(cards)} prompts, responses of {most} models", cards))
    return parts


def _sample(of: Mapping[str, Mapping[str, Any]]) -> Card:
    texts = [("Prompt", str(next(iter(of.values())).get("prompt", "")))]
    for model, row in of.items():
        grade = f" (grade {row['grade']:g})" if isinstance(row.get("grade"), float | int) else ""
        texts += [(f"{model}, trace", str(row.get("trace", ""))), (f"{model}, answer{grade}", str(row["answer"]))]
    return Card(str(next(iter(of.values())).get("id", "")), "", [(name, text) for name, text in texts if text])


def configuration(study: Study, album: Album) -> list[Part]:
    """Where models differ, and the first run and evaluation of each in full."""
    configs = {one.name: found for one in study.subjects if (found := [run.config for run in one.runs if run.config])}
    full = {name: mine[0] for name, mine in configs.items()} | {
        f"{one.name}, evaluation": one.evaluations[0].config
        for one in study.subjects
        if one.evaluations and one.evaluations[0].config
    }
    folds = [Fold(name, verbatim=yaml.safe_dump(config, sort_keys=False)) for name, config in full.items()]
    return [*(configuration_table(configs) if sum(map(len, configs.values())) > 1 else []), *folds]


def configuration_table(configs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Part]:
    """Keys in which runs differ, a column a model; what its own runs differ in stands side by side. `run.*` and
    `tracking.*`, which follow from the sweep or change nothing learned, are left out."""
    flat = {
        name: [{key: str(value) for key, value in flatten(one).items()} for one in mine]
        for name, mine in configs.items()
    }
    keys = sorted({key for mine in flat.values() for one in mine for key in one if not key.startswith(NAMING)})
    rows = []
    for key in keys:
        values = [list(dict.fromkeys(one.get(key, "–") for one in mine)) for mine in flat.values()]
        if len({value for mine in values for value in mine}) > 1:
            rows.append([f"`{key}`", *(f"`{', '.join(mine)}`" for mine in values)])
    if not rows:
        return [Text(["The configurations agree in every key but `run.*` and `tracking.*`."])]
    head = ["key", *(_with_runs(name, len(mine)) for name, mine in flat.items())]
    return [Table("settings", "Keys in which the runs differ.", head, rows, words=range(len(head)))]


def cost(study: Study, album: Album) -> list[Part]:
    """Seconds, tokens, GPU-hours: a row for each model's training and evaluations, summed over its runs."""
    rows: list[list[str | Cell]] = []
    seconds, gpu_hours = 0.0, 0.0
    for subject in study.subjects:
        if costs := [cost_of(run) for run in subject.runs]:
            rows.append(_trained(subject, costs))
            seconds += sum(one.seconds for one in costs)
            gpu_hours += sum(one.gpu_hours for one in costs)
        if subject.evaluations:
            rows.append(_evaluated(subject))
            seconds += sum(map(evaluation_seconds, subject.evaluations))
    if len(rows) > 1:
        rows.append(["all", "", f"{seconds:,.0f}", "", "", _gpu_hours(gpu_hours), ""])
    caption = (
        "Wall-clock seconds, summed over runs; tokens are speed times time of each iteration; GPU-hours count every GPU that a "
        "training run reserved, from its first record to its last."
    )
    head = ["model", "what", "seconds", "tokens generated", "tokens trained on", "GPU-hours", "longest parts"]
    drawn = [picture for subject in study.subjects for picture in _where_time_goes(subject, album)]
    table = [Table("costs", caption, head, rows, words=(0, 1, 6))] if rows else []
    return [*table, *([Pictures(drawn)] if drawn else [])]


def _where_time_goes(subject: Subject, album: Album) -> list[Picture]:
    """Phases of its first run that tells of them, stacked; nothing of a run of one record, or without phases."""
    run = next((one for one in subject.runs if len(one.series.get("time/iteration_seconds", ())) > 1), None)
    parts = {name: points for name in PHASE_LOOKS if run and (points := run.series.get(f"time/{name}_seconds"))}
    if not parts:
        return []
    means = {name: sum(seconds for _, seconds in points) / len(points) for name, points in parts.items()}
    return [
        album.picture(
            slug("cost", "phases", subject.name),
            lambda: figures.stacked(
                parts, PHASE_LOOKS, title=f"Where the time goes: {subject.name}", y_label="seconds an iteration"
            ),
            "`time/*_seconds` of each iteration by phase, without start-up; of several seeds the first.",
            f"Mean of an iteration of {subject.name}: "
            + ", ".join(f"{name} {value:.3g} s" for name, value in means.items()),
        )
    ]


def _trained(subject: Subject, costs: Sequence[Cost]) -> list[str | Cell]:
    updates = sorted({one.updates for one in costs})
    return [
        subject.name,
        _with_runs("training", len(costs))
        + f" of {' to '.join(map(str, dict.fromkeys((updates[0], updates[-1]))))} updates",
        f"{sum(one.seconds for one in costs):,.0f}",
        _tokens([one.generated_tokens for one in costs]),
        _tokens([one.trained_tokens for one in costs]),
        _gpu_hours(sum(one.gpu_hours for one in costs)),
        _longest([one.phases for one in costs]),
    ]


def _evaluated(subject: Subject) -> list[str | Cell]:
    phases = [
        {name.removesuffix("_seconds"): value for name, value in one.results.seconds.items()}
        for one in subject.evaluations
    ]
    seconds = sum(map(evaluation_seconds, subject.evaluations))
    what = _with_runs("evaluation", len(subject.evaluations))
    return [subject.name, what, f"{seconds:,.0f}", "–", "–", "–", _longest(phases)]


def _with_runs(what: str, count: int) -> str:
    return what if count == 1 else f"{what}, {count} runs"


def _longest(phases: Sequence[Mapping[str, float]]) -> str:
    """The three longest parts, summed over runs."""
    names = dict.fromkeys(name for one in phases for name in one)
    total = {name: sum(one.get(name, 0.0) for one in phases) for name in names}
    longest = sorted(total.items(), key=lambda item: -item[1])[:3]
    return ", ".join(f"{name} {seconds:,.0f} s" for name, seconds in longest)


def _gpu_hours(value: float) -> str:
    return f"{value:,.2f}" if value else "none used"


def _tokens(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known):,.0f}" if known else "–"
