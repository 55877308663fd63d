"""Training runs by configuration: a row for each, means over its seeds, and how it differs from the others."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...diagnosis.evidence import Evidence
from ...monitoring.registry import find
from ...statistics import over_differences, over_runs, unpaired_interval
from .combine import graded_sets, num_questions, over_questions
from .cost import cost_of
from .folders import TrainingRun, stopped
from .names import NOT_COMPARED, differing, names_of, shown
from .tables import ABSENT, Table, bounded

MAIN_HEAD = ["run", "changed", "seeds"]
BEFORE = "before training"
SAME_FIGURES = ("every_updates", "log_text")
"""Keys of an evaluation inside training that leave its figures as they are."""
SETTLED = {
    "kl/k3": "KL, nats/token",
    "response/length_mean": "response tokens",
    "response/trace_length_mean": "trace tokens",
    "response/refusal_rate": "refusals",
    "sft/loss": "loss",
}
"""Metrics of which the median of the last records is shown, with their headings."""
BESIDE = (
    "KL, nats/token",
    "refusals",
    "loss",
    "held-out loss",
    "response tokens",
    "trace tokens",
    "seconds",
)
"""Headings beside those of evaluations, the most important first."""
AMOUNTS = ("KL, nats/token", "response tokens", "trace tokens", "loss", "held-out loss", "seconds")
"""Headings of what is never below 0."""
Interval = tuple[float, float | None, float | None]
"""Value, low, high."""
HOW = (
    "Mean over seeds [95% interval of that mean over seeds: Student's t, of shares such as safety on the logit scale, which stays "
    "within 0..1]; of two seeds it is 12.7 standard errors to each side and decides little. Of one seed [95% interval over the "
    "questions of its evaluation, Wilson's], which knows nothing of how seeds differ; what is no share has none. KL, tokens and "
    "refusals: median of the last records of training. Seconds: wall-clock of all iterations after the start of their processes; "
    "what stops a machine meanwhile counts."
)
WITHOUT_WIDTH = "[–]"
ALIKE = f" {WITHOUT_WIDTH}: no interval, since the seeds, or of one seed the answers, are alike in every digit shown."
"""What a caption adds where a table holds such a cell."""


@dataclass(frozen=True)
class Row:
    """All runs of one configuration."""

    name: str
    changed: Mapping[str, Any]
    """How it differs from the reference, by dotted key; empty for the reference itself."""
    runs: Sequence[TrainingRun]

    @property
    def seeds(self) -> list[int]:
        return [_seed(run) for run in self.runs]

    def cells(self) -> dict[str, Interval]:
        """Mean and 95% interval over the runs that have the figure, by heading."""
        return intervals([final_figures(run) for run in self.runs], self.runs)


@dataclass(frozen=True)
class Start:
    """What a model was before its first update."""

    name: str
    rows: Sequence[Row]
    """The configurations that train this model and evaluate it alike."""
    cells: Mapping[str, Interval]


@dataclass(frozen=True)
class Comparison:
    """The rows, the reference first."""

    rows: Sequence[Row]
    left_out: Sequence[str]
    """A line for every run that stopped before the others of its configuration, or repeats a seed of it."""

    @property
    def reference(self) -> Row:
        return self.rows[0]

    @property
    def starts(self) -> list[Start]:
        """The evaluation before the first update of every model and way to evaluate it; of each seed once, since configurations
        of one model repeat it."""
        groups: dict[str, list[Row]] = {}
        for row in self.rows:
            groups.setdefault(json.dumps(_at_start(row), sort_keys=True), []).append(row)
        found = []
        for name, rows in zip(_names_of_starts(list(groups.values())), groups.values(), strict=True):
            seeds: dict[int, tuple[dict[str, float], TrainingRun]] = {}
            for run in (run for row in rows for run in row.runs):
                first = {benchmark: points[0][1] for benchmark, points in _evaluated(run) if points[0][0] == 0}
                if first:
                    seeds.setdefault(_seed(run), (first, run))
            if seeds:
                figures, runs = zip(*(seeds[seed] for seed in sorted(seeds)), strict=True)
                found.append(Start(name, rows, intervals(figures, runs)))
        return found

    def before(self, row: Row) -> Mapping[str, Interval]:
        """What the model of a row was before training; empty where it was not evaluated."""
        return next((one.cells for one in self.starts if any(row is mine for mine in one.rows)), {})

    def differences(self, row: Row) -> dict[str, Interval]:
        """Row less reference, paired by seed: the same prompts and the same order, so less of it is chance. Of one seed the
        interval of two independent shares, which is wide for the same questions."""
        mine, theirs = ({_seed(run): run for run in one.runs} for one in (row, self.reference))
        found: dict[str, list[float]] = {}
        shares: set[str] = set()
        alone: dict[str, Interval] = {}
        for seed in sorted(mine.keys() & theirs.keys()):
            after, before = final_figures(mine[seed]), final_figures(theirs[seed])
            for name in after.keys() & before.keys():
                found.setdefault(name, []).append(after[name] - before[name])
                shares |= {name} if _is_share(name, mine[seed]) else set()
                n, m = (num_questions(run.series, name) for run in (mine[seed], theirs[seed]))
                if n and m:
                    low, high = unpaired_interval(after[name], n, before[name], m)
                    alone[name] = (after[name] - before[name], low, high)
        return {
            name: alone[name] if len(values) == 1 and name in alone else over_differences(values, share=name in shares)
            for name, values in found.items()
        }

    @property
    def headings(self) -> list[str]:
        """Every column: the evaluations in the order of the runs' own, then the others, what may be left out first at the end."""
        found = dict.fromkeys(name for row in self.rows for run in row.runs for name in final_figures(run))
        return [*(name for name in found if name not in BESIDE), *(name for name in BESIDE if name in found)]

    @property
    def spare(self) -> int:
        """Columns at the right that a narrow terminal may show below the others: none that an evaluation fills."""
        return min(sum(name in BESIDE for name in self.headings), len(self.headings) - 1)


def final_figures(run: TrainingRun) -> dict[str, float]:
    """What a run came to: its last evaluation, settled training metrics, seconds; by heading."""
    figures = {name: points[-1][1] for name, points in _evaluated(run)}
    evidence = Evidence(training=run.series)
    for metric, heading in SETTLED.items():
        if (late := evidence.late(metric)) is not None:
            figures[heading] = late.value
    if points := run.series.get("sft/validation_loss"):
        figures["held-out loss"] = points[-1][1]
    return figures | {"seconds": cost_of(run).seconds_after_start}


def intervals(figures: Sequence[Mapping[str, float]], runs: Sequence[TrainingRun]) -> dict[str, Interval]:
    """The figures of several runs, by heading, as means with intervals: over the runs; of one run over the questions of its
    evaluation, where their number is known."""
    found: dict[str, list[tuple[float, TrainingRun]]] = {}
    for mine, run in zip(figures, runs, strict=True):
        for name, value in mine.items():
            found.setdefault(name, []).append((value, run))
    return {
        name: over_questions(of[0][1].series, name, of[0][0])
        if len(of) == 1
        else over_runs([value for value, _ in of], share=_is_share(name, of[0][1]), positive=name in AMOUNTS)
        for name, of in found.items()
    }


def _is_share(heading: str, run: TrainingRun) -> bool:
    """Whether a column holds shares, as its metric is declared."""
    metrics = {title: metric for metric, title in SETTLED.items()} | {
        name: f"evaluation/{name}" for name in graded_sets(run.series)
    }
    return heading in metrics and find(metrics[heading]).is_share


def by_configuration(runs: Sequence[TrainingRun]) -> dict[str, list[TrainingRun]]:
    """The runs of each configuration, by what it is as JSON."""
    groups: dict[str, list[TrainingRun]] = {}
    for run in runs:
        compared = {key: value for key, value in run.config.items() if key not in NOT_COMPARED}
        groups.setdefault(json.dumps(compared, sort_keys=True), []).append(run)
    return groups


def compare_each(runs: Sequence[TrainingRun]) -> list[Comparison]:
    """The runs of reinforcement learning among themselves, and the supervised ones: what one of the others changed is not told
    by keys."""
    groups: dict[bool, list[TrainingRun]] = {}
    for run in runs:
        groups.setdefault("algorithm" in run.config, []).append(run)
    return [compare(mine) for mine in groups.values() if any(run.updates for run in mine)]


def compare(runs: Sequence[TrainingRun]) -> Comparison:
    """Training runs by configuration; at least one of them has a record.

    The reference is the configuration that the others differ least from: in a sweep of single changes the unchanged one. Of
    two that differ from the others alike, as any two alone do, it is the one that is no ablation.
    """
    groups = by_configuration(runs)
    identities = list(groups)
    distance = [sum(len(changes(_parsed(a), _parsed(b))) for b in identities) for a in identities]
    unrecorded = [not any(run.updates for run in runs) for runs in groups.values()]  # all of them: no row to refer to
    order = zip(unrecorded, distance, map(_ablated, groups.values()), range(len(identities)), identities, strict=True)
    reference = min(order)[-1]
    ordered = [reference, *(one for one in identities if one != reference)]
    names = names_of([groups[one] for one in ordered])
    rows, left_out = [], []
    for name, identity in zip(names, ordered, strict=True):
        furthest = max(run.updates for run in groups[identity])
        whole: dict[int, TrainingRun] = {}
        for run in groups[identity]:
            if run.updates < furthest or not run.updates:
                left_out.append(f"{run.folder}: {stopped(run, run.planned_updates or furthest)}")
            elif (same := whole.setdefault(_seed(run), run)) is not run:
                left_out.append(f"{run.folder}: repeats seed {_seed(run)} of {same.folder}")
        if whole:
            rows.append(Row(name, changes(_parsed(reference), _parsed(identity)), list(whole.values())))
    return Comparison(rows, left_out)


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted keys whose values differ, with the new ones; dictionaries without a common key are named by their keys,
    so that a group that was exchanged is one change (`files.differences` would tell each of its members)."""
    found: dict[str, Any] = {}
    for key in {**old, **new}:
        a, b = old.get(key), new.get(key)
        if a == b:
            continue
        if isinstance(a, dict) and isinstance(b, dict) and a.keys() & b.keys():
            found |= changes(a, b, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = sorted(b) if isinstance(b, dict) else b
    return found


def tables(comparisons: Sequence[Comparison]) -> list[Table]:
    """Of each: the configurations, the evaluation before training first; and how they differ from the reference."""
    return [table for i, one in enumerate(comparisons) for table in _tables(one, f"-{i}" if i else "")]


def _tables(comparison: Comparison, number: str) -> list[Table]:
    places = _places(comparison)
    rows = [[one.name, "", "", *_cells(one.cells, places)] for one in comparison.starts]
    unchanged = "(the reference)" if len(comparison.rows) > 1 else ABSENT
    for row in comparison.rows:
        changed = ", ".join(f"{key}={shown(value)}" for key, value in row.changed.items()) or unchanged
        rows.append([row.name, changed, str(len(row.runs)), *_cells(row.cells(), places)])
    less, unpaired = [], []
    for row in comparison.rows[1:]:
        found = comparison.differences(row)
        less += [[row.name, *_cells(found, places, signed=True)]] if found else []
        unpaired += [] if found else [row.name]
    reference = comparison.reference.name
    lacking = f" Without a difference, since no seed is one of {reference}: {', '.join(unpaired)}." if unpaired else ""
    made = [
        Table(
            f"configurations{number}",
            captioned(HOW + lacking * (not less), rows),
            [*MAIN_HEAD, *comparison.headings],
            rows,
            words=(0, 1),
            spare=comparison.spare,
        )
    ]
    if less:
        caption = captioned(f"Difference from {reference}, paired by seed.{lacking}", less)
        made.append(
            Table(
                f"configurations-less{number}",
                caption,
                ["run", *comparison.headings],
                less,
                spare=comparison.spare,
            )
        )
    return made


def _places(comparison: Comparison) -> dict[str, int]:
    """Decimal places of each column."""
    cells = [row.cells() for row in comparison.rows]
    return {name: places_of([one[name][0] for one in cells if name in one]) for name in comparison.headings}


def _cells(found: Mapping[str, Interval], places: Mapping[str, int], *, signed: bool = False) -> list[str]:
    return [cell(found.get(name), number, signed=signed) for name, number in places.items()]


def places_of(values: Sequence[float]) -> int:
    """Decimal places that all numbers of a column are shown with, by the largest of them."""
    largest = max(map(abs, values), default=0.0)
    return 0 if largest >= 100 else 1 if largest >= 10 else 3 if largest >= 0.1 else 4


def cell(one: Interval | None, places: int = 3, *, signed: bool = False) -> str:
    """`0.930 [0.770, 0.981]`: mean and interval; a dash where there is no figure, the mean alone where it has no interval,
    and a dash in its place where its width could not be seen: seeds that agree do not tell how far others would."""
    if one is None:
        return ABSENT
    told = bounded(*one, places, signed=signed)
    return f"{told.text} {WITHOUT_WIDTH}" if told.interval and len(set(told.interval)) == 1 else str(told)


def captioned(caption: str, rows: Sequence[Sequence[str]]) -> str:
    """The caption, with the reason for what stands in the place of an interval where it stands there."""
    return caption + ALIKE * any(one.endswith(WITHOUT_WIDTH) for row in rows for one in row)


def _evaluated(run: TrainingRun) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Primary figures of the evaluation inside training."""
    return ((name, run.series[f"evaluation/{name}"]) for name in graded_sets(run.series))


def _ablated(runs: Sequence[TrainingRun]) -> bool:
    """Whether the runs say of themselves what they change: conf/ablation names it in the tags, where a sweep puts the overrides
    of every run."""
    return any("=" not in str(tag) for tag in (runs[0].config.get("tracking") or {}).get("tags") or ())


def _at_start(row: Row) -> dict[str, Any]:
    """What the evaluation before the first update depends on."""
    config = row.runs[0].config
    evaluation = {key: value for key, value in (config.get("evaluation") or {}).items() if key not in SAME_FIGURES}
    return {"model": config.get("model"), "evaluation": evaluation}


def _names_of_starts(groups: Sequence[Sequence[Row]]) -> list[str]:
    """`before training`, of several with the model's name, or else with what tells them apart."""
    if len(groups) < 2:
        return [BEFORE]
    settings = [_at_start(rows[0]) for rows in groups]
    models = [str((one["model"] or {}).get("name")) for one in settings]
    told = models if len(set(models)) == len(models) else differing(settings)
    return [f"{BEFORE}, {one}" for one in told or [" and ".join(row.name for row in rows) for rows in groups]]


def _seed(run: TrainingRun) -> int:
    return int(run.config.get("seed", 0))


def _parsed(identity: str) -> dict[str, Any]:
    found = json.loads(identity)
    assert isinstance(found, dict)
    return found
