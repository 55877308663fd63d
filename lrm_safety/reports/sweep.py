"""The runs of a multirun as one table: a row for every configuration, means over its seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..diagnosis import Evidence
from ..errors import ConfigError
from ..statistics import over_runs
from .cost import cost_of
from .folders import TrainingRun, read_run

NOT_COMPARED = ("seed", "run", "tracking", "checkpoint")
"""Parts of a configuration that do not make another experiment."""
SETTLED = {
    "kl/k3": "KL, nats/token",
    "response/length_mean": "response tokens",
    "response/trace_length_mean": "trace tokens",
    "response/refusal_rate": "refusals",
    "sft/loss": "loss",
}
"""Metrics of which the median of the last records is shown, with their headings."""
Interval = tuple[float, float | None, float | None]


@dataclass(frozen=True)
class Row:
    """All runs of one configuration."""

    name: str
    changed: Mapping[str, Any]
    """How it differs from the reference, by dotted key; empty for the reference itself."""
    runs: Sequence[TrainingRun]

    def cells(self) -> dict[str, Interval]:
        """Mean and Student's 95% interval over the runs that have the figure, by heading."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            for name, value in final_figures(run).items():
                found.setdefault(name, []).append(value)
        return {name: over_runs(values) for name, values in found.items()}


@dataclass(frozen=True)
class Comparison:
    """The rows, the reference first."""

    rows: Sequence[Row]
    left_out: Sequence[str]
    """A line for every run that stopped before the others of its configuration, or repeats a seed of it."""

    @property
    def reference(self) -> Row:
        return self.rows[0]

    def before(self) -> dict[str, Interval]:
        """The evaluation before the first update, of the reference: other configurations repeat it, or have another model."""
        found: dict[str, list[float]] = {}
        for run in self.reference.runs:
            for name, points in _evaluated(run):
                if points[0][0] == 0:
                    found.setdefault(name, []).append(points[0][1])
        return {name: over_runs(values) for name, values in found.items()}

    def differences(self, row: Row) -> dict[str, Interval]:
        """Row less reference, paired by seed: the same prompts and the same order, so less of it is chance."""
        mine, theirs = ({_seed(run): final_figures(run) for run in one.runs} for one in (row, self.reference))
        found: dict[str, list[float]] = {}
        for seed in sorted(mine.keys() & theirs.keys()):
            for name in mine[seed].keys() & theirs[seed].keys():
                found.setdefault(name, []).append(mine[seed][name] - theirs[seed][name])
        return {name: over_runs(values) for name, values in found.items()}

    @property
    def headings(self) -> list[str]:
        """Every column, in the order of the runs' own figures."""
        return list(dict.fromkeys(name for row in self.rows for run in row.runs for name in final_figures(run)))


def final_figures(run: TrainingRun) -> dict[str, float]:
    """What a run came to: its last evaluation, settled training metrics, seconds; by heading."""
    figures = {name: points[-1][1] for name, points in _evaluated(run)}
    evidence = Evidence(training=run.series)
    for metric, heading in SETTLED.items():
        if (late := evidence.late(metric)) is not None:
            figures[heading] = late.value
    if points := run.series.get("sft/validation_loss"):
        figures["held-out loss"] = points[-1][1]
    return figures | {"seconds": cost_of(run).seconds}


def compare(folders: Sequence[Path]) -> Comparison:
    """Every training run in or below the folders, by configuration.

    The reference is the configuration that the others differ least from: in a sweep of single changes the unchanged one. Of
    two that differ from the others alike, as any two alone do, it is the one that is no ablation.
    Raises ConfigError for a folder without runs, DataError for a torn file.
    """
    groups: dict[str, list[TrainingRun]] = {}
    for run in _runs(folders):
        compared = {key: value for key, value in run.config.items() if key not in NOT_COMPARED}
        groups.setdefault(json.dumps(compared, sort_keys=True), []).append(run)
    identities = list(groups)
    distance = [sum(len(changes(_parsed(a), _parsed(b))) for b in identities) for a in identities]
    reference = min(zip(distance, map(_ablated, groups.values()), range(len(identities)), identities, strict=True))[-1]
    ordered = [reference, *(one for one in identities if one != reference)]
    names = _names([groups[one] for one in ordered])
    rows, left_out = [], []
    for name, identity in zip(names, ordered, strict=True):
        furthest = max(_updates(run) for run in groups[identity])
        whole: dict[int, TrainingRun] = {}
        for run in groups[identity]:
            if _updates(run) < furthest:
                left_out.append(f"{run.folder}: stopped at update {_updates(run)} of {furthest}")
            elif (same := whole.setdefault(_seed(run), run)) is not run:
                left_out.append(f"{run.folder}: repeats seed {_seed(run)} of {same.folder}")
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


def markdown(comparison: Comparison) -> str:
    """The tables as Markdown."""
    parts = [
        "Mean over seeds ± half of Student's 95% interval. KL, tokens and refusals: median of the last records of training.\n",
        _table(["run", "changed", "seeds", *comparison.headings], table_rows(comparison)),
    ]
    if differences := difference_rows(comparison):
        parts += [
            f"\nDifference from {comparison.reference.name}, paired by seed:\n",
            _table(["run", *comparison.headings], differences),
        ]
    return "\n".join([*parts, *(f"\nLeft out: {line}" for line in comparison.left_out)]) + "\n"


def table_rows(comparison: Comparison) -> list[list[str]]:
    """Cells of the main table: before training, then every configuration."""
    headings, before = comparison.headings, comparison.before()
    rows = [["before training", "", "", *(cell(before.get(name)) for name in headings)]] if before else []
    for row in comparison.rows:
        cells = row.cells()
        changed = ", ".join(f"{key}={_shown(value)}" for key, value in row.changed.items()) or "reference"
        rows.append([row.name, changed, str(len(row.runs)), *(cell(cells.get(name)) for name in headings)])
    return rows


def difference_rows(comparison: Comparison) -> list[list[str]]:
    """Cells of the differences from the reference."""
    return [
        [row.name, *(cell(found.get(name), signed=True) for name in comparison.headings)]
        for row in comparison.rows[1:]
        if (found := comparison.differences(row))
    ]


def to_json(comparison: Comparison) -> dict[str, Any]:
    """Every figure, for other programs."""

    def plain(cells: Mapping[str, Interval]) -> dict[str, dict[str, float | None]]:
        return {name: dict(zip(("mean", "low", "high"), one, strict=True)) for name, one in cells.items()}

    return {
        "before": plain(comparison.before()),
        "rows": [
            {
                "name": row.name,
                "changed": dict(row.changed),
                "seeds": [_seed(run) for run in row.runs],
                "folders": [str(run.folder) for run in row.runs],
                "figures": plain(row.cells()),
                "differences": plain(comparison.differences(row)) if row is not comparison.reference else {},
            }
            for row in comparison.rows
        ],
        "left_out": list(comparison.left_out),
    }


def cell(one: Interval | None, *, signed: bool = False) -> str:
    """`0.93 ± 0.03`: mean and half of the interval; a dash where there is no figure, the mean alone of one run."""
    if one is None:
        return "–"
    mean, _, high = one
    sign = "+" if signed else ""
    text = f"{mean:{sign}.0f}" if abs(mean) >= 100 else f"{mean:{sign}.3g}"
    return text if high is None else f"{text} ± {_half(high - mean)}"


def _half(value: float) -> str:
    # Equal values differ from their mean by rounding.
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}" if value > 1e-12 else "0"


def _runs(folders: Sequence[Path]) -> Iterator[TrainingRun]:
    """Each run once, though folders overlap; what has a metrics.jsonl without updates (`lrm-safety reward`) is no run."""
    known: set[Path] = set()
    for folder in folders:
        found = [run for path in sorted(folder.rglob("metrics.jsonl")) if _updates(run := read_run(path.parent))]
        if not found:
            reason = "no run of lrm-safety train or sft in it or below it" if folder.is_dir() else "no such folder"
            raise ConfigError(f"compare: {folder}: {reason}")
        for run in found:
            if (place := run.folder.resolve()) not in known:
                known.add(place)
                yield run


def _evaluated(run: TrainingRun) -> Iterator[tuple[str, list[tuple[int, float]]]]:
    """Primary figures of the evaluation inside training."""
    for metric, points in run.series.items():
        group, _, name = metric.partition("/")
        if group == "evaluation" and "/" not in name:
            yield name, points


def _names(groups: Sequence[Sequence[TrainingRun]]) -> list[str]:
    """The folder that each configuration asks for; where several ask for one, with a number."""
    names = [Path(str((runs[0].config.get("run") or {}).get("directory", runs[0].folder))).name for runs in groups]
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        seen[name] += 1
        unique.append(name if names.count(name) == 1 else f"{name} ({seen[name]})")
    return unique


def _ablated(runs: Sequence[TrainingRun]) -> bool:
    """Whether the runs say of themselves what they change: conf/ablation names it in the tags."""
    return bool((runs[0].config.get("tracking") or {}).get("tags"))


def _seed(run: TrainingRun) -> int:
    return int(run.config.get("seed", 0))


def _updates(run: TrainingRun) -> int:
    return int(max((value for _, value in run.series.get("train/update", ())), default=0))


def _parsed(identity: str) -> dict[str, Any]:
    found = json.loads(identity)
    assert isinstance(found, dict)
    return found


def _shown(value: object) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "null" if value is None else str(value)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(text.replace('|', '/') for text in line)} |" for line in lines)
