"""One figure out of one evaluation, or out of several seeds; and the Pareto frontier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..diagnosis import as_role, role_of
from ..diagnosis.evidence import Role
from ..results import Metric
from ..settings.evaluation import benchmark_kind
from ..statistics import mean_of_independent, over_runs
from .folders import Study, Subject, TrainingRun


@dataclass(frozen=True)
class Combined:
    """A value with its 95% interval (None: it has none), over `n` questions or `num_runs` > 1 runs."""

    value: float
    low: float | None
    high: float | None
    n: int | None
    num_runs: int
    in_training: bool = False

    @property
    def over(self) -> str:
        """What the interval is over, in words."""
        if self.num_runs > 1:
            return f"{self.num_runs} runs"
        return "in training, no interval" if self.in_training else f"{self.n} questions"


def combine(metrics: Sequence[Metric | None]) -> Combined | None:
    """Metrics of several results (one a seed) as one; those that are absent or have no value are left out."""
    present = [(one, one.value) for one in metrics if one is not None and one.value is not None]
    if not present:
        return None
    if len(present) == 1:
        one, only = present[0]
        return Combined(only, one.low, one.high, one.n, 1)
    value, low, high = over_runs([mine for _, mine in present])
    return Combined(value, low, high, present[0][0].n, len(present))


def figure_of(subject: Subject, benchmark: str, name: str | None = None) -> Combined | None:
    """A figure of a subject, the primary one by default; without any evaluation the last value of training."""
    found = []
    for evaluation in subject.evaluations:
        entry = evaluation.results.benchmarks.get(benchmark)
        found.append(entry.figures.get(name or entry.primary) if entry else None)
    combined = combine(found)
    if combined is None and name is None and not subject.evaluations:
        last = [points[-1][1] for run in subject.runs if (points := run.series.get(f"evaluation/{benchmark}"))]
        if last:
            value, low, high = over_runs(last)
            combined = Combined(value, low, high, None, len(last), in_training=True)
    return combined


def before_training(subject: Subject, benchmark: str) -> Combined | None:
    """What the run's own evaluation said at update 0."""
    first = [
        points[0][1]
        for run in subject.runs
        if (points := run.series.get(f"evaluation/{benchmark}")) and points[0][0] == 0
    ]
    if not first:
        return None
    value, low, high = over_runs(first)
    return Combined(value, low, high, None, len(first), in_training=True)


def benchmarks_of(study: Study) -> dict[str, str]:
    """Every benchmark with what it measures, those of evaluations first, then those that only training evaluated."""
    found: dict[str, str] = {}
    for subject in study.subjects:
        for evaluation in subject.evaluations:
            for name, entry in evaluation.results.benchmarks.items():
                found.setdefault(name, role_of(entry))
    for subject in study.subjects:
        if subject.evaluations:
            continue
        for run in subject.runs:
            for name, kind in kinds_in_training(run).items():
                if f"evaluation/{name}" in run.series:
                    found.setdefault(name, kind)
    return found


def kinds_in_training(run: TrainingRun) -> dict[str, Role]:
    """What the benchmarks of the evaluation inside training measure, as the run's config.yaml names them."""
    configured = (run.config.get("evaluation") or {}).get("benchmarks") or {}
    return {
        name: as_role(
            benchmark_kind(one["task"], one.get("arguments") or {}, one.get("attack"), f"{run.folder}: {name}")
        )
        for name, one in configured.items()
    }


def mean_of_role(study: Study, subject: Subject, role: str) -> tuple[Combined, list[str]] | None:
    """Mean over the benchmarks of a role that every evaluated subject has, and their names.

    Of several runs: Student's interval over the means of each. Of one: the half-widths of independent intervals add in squares.
    """
    candidates = [name for name, kind in benchmarks_of(study).items() if kind == role]
    shown = [one for one in study.subjects if any(figure_of(one, name) for name in candidates)]
    names = [name for name in candidates if all(figure_of(one, name) for one in shown)]
    mine = [found for name in names if (found := figure_of(subject, name))]
    if not mine:
        return None
    if len(mine) == 1:
        return mine[0], names
    runs = means_of_runs(subject, names)
    if len(runs) > 1:
        return Combined(*over_runs(runs), None, len(runs), mine[0].in_training), names
    bounded = [(one.value, one.low, one.high) for one in mine if one.low is not None and one.high is not None]
    # Intervals over the same runs are not independent, so they do not add in squares.
    if len(bounded) < len(mine) or any(one.num_runs > 1 for one in mine):
        mean = sum(one.value for one in mine) / len(mine)
        return Combined(mean, None, None, None, mine[0].num_runs, mine[0].in_training), names
    return Combined(*mean_of_independent(bounded), sum(one.n or 0 for one in mine), 1), names


def means_of_runs(subject: Subject, benchmarks: Sequence[str]) -> list[float]:
    """Each evaluation's mean over the primary figures of these benchmarks; without evaluations that of each training run's last
    figures. What lacks a benchmark is left out."""
    if not subject.evaluations:
        inside = [[run.series.get(f"evaluation/{name}") for name in benchmarks] for run in subject.runs]
        return [sum(points[-1][1] for points in one if points) / len(one) for one in inside if one and all(one)]
    found = []
    for evaluation in subject.evaluations:
        metrics = [one.headline for name in benchmarks if (one := evaluation.results.benchmarks.get(name))]
        values = [one.value for one in metrics if one is not None and one.value is not None]
        if len(values) == len(benchmarks):
            found.append(sum(values) / len(values))
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in one coordinate without losing in the other, by rising x."""
    kept = [
        i for i, (x, y) in enumerate(points) if not any((a >= x and b >= y) and (a > x or b > y) for a, b in points)
    ]
    return sorted(kept, key=lambda i: points[i])
