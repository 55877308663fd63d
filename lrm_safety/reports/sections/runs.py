"""How the runs were configured and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import yaml

from ...files import flatten
from ..album import Album
from ..cost import Cost, cost_of, evaluation_seconds
from ..folders import Study, Subject
from ..html import folded, table


def configuration(study: Study, album: Album) -> str:
    """Where models differ, and the first run and evaluation of each in full."""
    trained = {
        one.name: configs for one in study.subjects if (configs := [run.config for run in one.runs if run.config])
    }
    full = {name: configs[0] for name, configs in trained.items()} | {
        f"{one.name}, evaluation": one.evaluations[0].config
        for one in study.subjects
        if one.evaluations and one.evaluations[0].config
    }
    if not full:
        return "<p>No folder holds a config.yaml.</p>"
    shown = "".join(
        folded(escape(name), f"<pre>{escape(yaml.safe_dump(config, sort_keys=False))}</pre>")
        for name, config in full.items()
    )
    return (configuration_table(trained) if sum(map(len, trained.values())) > 1 else "") + shown


def configuration_table(configs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Keys in which runs differ, a column a model; what its own runs differ in stands side by side. `run.*` is left out."""
    flat = {
        name: [{key: str(value) for key, value in flatten(config).items()} for config in mine]
        for name, mine in configs.items()
    }
    keys = sorted({key for mine in flat.values() for one in mine for key in one if not key.startswith("run.")})
    rows = []
    for key in keys:
        values = [list(dict.fromkeys(one.get(key, "–") for one in mine)) for mine in flat.values()]
        if len({value for mine in values for value in mine}) > 1:
            rows.append(
                [f"<code>{escape(key)}</code>", *(f"<code>{escape(', '.join(mine))}</code>" for mine in values)]
            )
    if not rows:
        return "<p>The configurations agree in every key but <code>run.*</code>.</p>"
    head = ["key", *(escape(_with_runs(name, len(mine))) for name, mine in flat.items())]
    return table("Keys in which the runs differ.", head, rows, identity="settings", figures=())


def cost(study: Study, album: Album) -> str:
    """Seconds, tokens, GPU-hours: a row for each model's training and evaluations, summed over its runs."""
    rows, seconds, gpu_hours = [], 0.0, 0.0
    for subject in study.subjects:
        if costs := [cost_of(run) for run in subject.runs]:
            rows.append(_trained(subject, costs))
            seconds += sum(one.seconds for one in costs)
            gpu_hours += sum(one.gpu_hours for one in costs)
        if subject.evaluations:
            rows.append(_evaluated(subject))
            seconds += sum(map(evaluation_seconds, subject.evaluations))
    if not rows:
        return "<p>No run and no evaluation was given.</p>"
    rows.append(["all", "", f"{seconds:,.0f}", "", "", _gpu_hours(gpu_hours), ""])
    return table(
        "Wall-clock seconds, summed over runs; tokens are speed times time of each iteration; GPU-hours count every GPU that a "
        "training run reserved, from its first record to its last.",
        ["model", "what", "seconds", "tokens generated", "tokens trained on", "GPU-hours", "longest parts"],
        rows,
        identity="costs",
        figures=range(2, 6),
    )


def _trained(subject: Subject, costs: Sequence[Cost]) -> list[str]:
    updates = sorted({one.updates for one in costs})
    return [
        escape(subject.name),
        _with_runs("training", len(costs))
        + f" of {' to '.join(map(str, dict.fromkeys((updates[0], updates[-1]))))} updates",
        f"{sum(one.seconds for one in costs):,.0f}",
        _tokens([one.generated_tokens for one in costs]),
        _tokens([one.trained_tokens for one in costs]),
        _gpu_hours(sum(one.gpu_hours for one in costs)),
        _longest([one.phases for one in costs]),
    ]


def _evaluated(subject: Subject) -> list[str]:
    phases = [
        {name.removesuffix("_seconds"): value for name, value in one.results.seconds.items()}
        for one in subject.evaluations
    ]
    seconds = sum(map(evaluation_seconds, subject.evaluations))
    what = _with_runs("evaluation", len(subject.evaluations))
    return [escape(subject.name), what, f"{seconds:,.0f}", "–", "–", "–", _longest(phases)]


def _with_runs(what: str, count: int) -> str:
    return what if count == 1 else f"{what}, {count} runs"


def _longest(phases: Sequence[Mapping[str, float]]) -> str:
    """The three longest parts, summed over runs."""
    names = dict.fromkeys(name for one in phases for name in one)
    total = {name: sum(one.get(name, 0.0) for one in phases) for name in names}
    longest = sorted(total.items(), key=lambda item: -item[1])[:3]
    return escape(", ".join(f"{name} {seconds:,.0f} s" for name, seconds in longest))


def _gpu_hours(value: float) -> str:
    return f"{value:,.2f}" if value else "none used"


def _tokens(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known):,.0f}" if known else "–"
