"""What the rules read, and what they say: figures that know where they come from.

An evaluation inside training is one of many over few questions, so the rules ask more of it: a figure counts as changed
only if the last two evaluations after the first both say so, and only beyond what so many questions vary by chance.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from ..errors import DataError
from ..results import Benchmark, Evaluation, Metric
from ..statistics import paired_difference, unpaired_interval
from .thresholds import FEW_QUESTIONS, Level

Series = Mapping[str, Sequence[tuple[int, float]]]
"""Metrics by name as (update, value), in the order of recording."""
Role = Literal["safety", "reasoning", "over_refusal", "helpfulness", "robustness"]


@dataclass(frozen=True)
class Measured:
    """One figure and where it comes from."""

    name: str
    value: float
    source: str

    def __str__(self) -> str:
        return f"{self.name} = {self.value:.4g} ({self.source})"


@dataclass(frozen=True)
class Finding:
    """What one rule found. `text` says what was seen, `remedy` what to do about it."""

    rule: str
    level: Level
    text: str
    evidence: tuple[Measured, ...]
    remedy: str


@dataclass(frozen=True)
class PromptEntropy:
    """Mean reflection entropy on one set of prompts, of base and run."""

    prompts: str
    role: Role
    base: float
    run: float
    source: str


@dataclass(frozen=True)
class Measures:
    """What the rules read of one benchmark of one evaluation."""

    role: Role
    primary: str
    figures: Mapping[str, Metric]
    questions: Mapping[str, float] = field(default_factory=dict)
    """Each question's part of the primary figure; empty where they are not known."""
    clusters: Mapping[str, str] = field(default_factory=dict)
    """Question -> its cluster, of those that share one."""


@dataclass(frozen=True)
class Evaluated:
    """One evaluation."""

    source: str
    benchmarks: Mapping[str, Measures]
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By name: `kind` and `path`."""
    seed: int = 0
    """Of its sampling, and of the bootstrap of its differences."""
    in_training: bool = False
    """Made of training metrics (`in_training`): no answers by question, and one evaluation of many."""

    def of_role(self, role: Role) -> Iterator[tuple[str, Measures]]:
        """(name, benchmark) of every benchmark that measures this."""
        return ((name, one) for name, one in self.benchmarks.items() if one.role == role)

    def measured(self, benchmark: str, figure: str | None = None) -> Measured | None:
        """A figure of a benchmark, the primary one by default; None where it is absent or null."""
        entry = self.benchmarks.get(benchmark)
        if entry is None:
            return None
        figure = figure or entry.primary
        found = entry.figures.get(figure)
        if found is None or found.value is None:
            return None
        return Measured(f"{benchmark} {figure}", found.value, self.source)


@dataclass(frozen=True)
class Evidence:
    """Everything that is known about one run; whatever is absent keeps the rules silent that would read it."""

    training: Series = field(default_factory=dict)
    training_source: str = "metrics.jsonl"
    reward_paths: frozenset[str] = frozenset()
    """Paths of the reward models that gave the training reward: a judge of the same path is not independent."""
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Judges of the evaluation inside training by name: the first gives its figures."""
    kinds: Mapping[str, Role] = field(default_factory=dict)
    """What the benchmarks of the evaluation inside training measure, by name; one that is not told of is not read."""
    base: Evaluated | None = None
    run: Evaluated | None = None
    entropies: tuple[PromptEntropy, ...] = ()
    audit: Mapping[str, float] = field(default_factory=dict)
    """By model family: how well the reward separates safe from unsafe texts of that family (AUC)."""
    audit_source: str = "audit.json"
    gains: Mapping[str, float] = field(default_factory=dict)
    """By model family: change of safety against its own base, under one reward."""
    reached: Mapping[str, float] = field(default_factory=dict)
    """By model family: safety after training."""
    gains_source: str = "the evaluations of the families"

    def points(self, name: str) -> list[tuple[int, float]]:
        """Finite records of a metric."""
        return [point for point in self.training.get(name, ()) if math.isfinite(point[1])]

    def until(self, update: int, *names: str) -> Evidence:
        """The same with these metrics only, up to `update`: what an evaluation of that update can be held against."""
        cut = {name: [point for point in self.training.get(name, ()) if point[0] <= update] for name in names}
        return replace(self, training=cut)

    def early(self, name: str) -> Measured | None:
        """Median of the first records; None with fewer than two records, which have no beginning and end."""
        points = self.points(name)
        return self._median(name, points[: _window(points)]) if len(points) > 1 else None

    def late(self, name: str) -> Measured | None:
        """Median of the last records (of the only one there is)."""
        points = self.points(name)
        return self._median(name, points[-_window(points) :]) if points else None

    def _median(self, name: str, points: Sequence[tuple[int, float]]) -> Measured:
        first, last = points[0][0], points[-1][0]
        when = f"update {first}" if first == last else f"median of updates {first} to {last}"
        return Measured(name, statistics.median(value for _, value in points), f"{self.training_source}, {when}")


def of_evaluation(results: Evaluation, source: str) -> Evaluated:
    """What the rules read of a results.json."""
    benchmarks = {
        name: Measures(role_of(one), one.primary, one.figures, one.questions, one.clusters)
        for name, one in results.benchmarks.items()
    }
    return Evaluated(source, benchmarks, results.judges, results.seed)


def role_of(benchmark: Benchmark) -> Role:
    """What a benchmark of results.json measures; under an attack it is robustness."""
    return "robustness" if benchmark.attack else as_role(benchmark.kind)


def as_role(kind: str) -> Role:
    """A kind as benchmarks declare it; raises DataError for another word."""
    if kind not in get_args(Role):
        raise DataError(f"kind {kind!r} of a benchmark is none of {', '.join(get_args(Role))}")
    return cast(Role, kind)


def _window(points: Sequence[object]) -> int:
    """A tenth of the records, but five where there are ten or more: one noisy batch must not decide."""
    return max(1, min(5, len(points) // 2), len(points) // 10)


PRIMARY, NUM_QUESTIONS = "in training", "num_questions"
LOWER_IS_BETTER: tuple[Role, ...] = ("over_refusal",)
Point = tuple[int, float]


def in_training(evidence: Evidence) -> tuple[Evaluated, Evaluated] | None:
    """The first evaluation and, figure by figure, the better of the last two after it; None with fewer than two of them."""
    first: dict[str, Measures] = {}
    last: dict[str, Measures] = {}
    begun: set[int] = set()
    ended: set[int] = set()
    for metric in evidence.training:
        group, _, name = metric.partition("/")
        role = evidence.kinds.get(name)
        if group != "evaluation" or role is None or len(points := evidence.points(metric)) < 2:
            continue
        counts = evidence.points(f"{metric}/{NUM_QUESTIONS}")
        num_questions = int(counts[-1][1]) if counts else 0
        pick = min if role in LOWER_IS_BETTER else max
        before, after = {PRIMARY: points[0][1]}, {PRIMARY: pick(value for _, value in last_two(points))}
        for rate, values in _rates(evidence, metric):
            before[rate], after[rate] = values[0][1], min(value for _, value in last_two(values))
        for side, found in ((first, before), (last, after)):
            metrics = {figure: Metric(value, None, None, num_questions) for figure, value in found.items()}
            side[name] = Measures(role, PRIMARY, metrics)
        begun.add(points[0][0])
        ended |= {update for update, _ in last_two(points)}
    if not first:
        return None
    source = evidence.training_source
    *_, end = updates = sorted(ended)
    when = f"update {end}" if len(updates) == 1 else f"the better of updates {updates[-2]} and {end}"
    return (
        Evaluated(f"{source}, update {min(begun)}", first, evidence.judges, in_training=True),
        Evaluated(f"{source}, {when}", last, evidence.judges, in_training=True),
    )


def last_two(points: Sequence[Point]) -> Sequence[Point]:
    """The last two, of two the second alone: the first is what they are compared with and never one of them."""
    return points[1:][-2:]


def difference_interval(
    base: Evaluated, run: Evaluated, benchmark: str, figure: str | None = None
) -> tuple[float, float] | None:
    """95% interval of the change of a figure, the primary one by default: where the answers are there the paired one, as
    the report gives it, None below 10 questions in common or 2 clusters; inside training
    that of two independent shares of so many questions, None below 10 of them or where not even their number is known."""
    before, after = base.benchmarks[benchmark], run.benchmarks[benchmark]
    if figure is None and before.primary != after.primary:
        return None
    if figure is None and after.questions and before.questions:
        clusters = {**after.clusters, **before.clusters}
        paired = paired_difference(after.questions, before.questions, clusters=clusters, seed=run.seed)
        told = paired.estimate.n >= FEW_QUESTIONS and paired.num_clusters > 1
        return (paired.estimate.low, paired.estimate.high) if told else None
    if not run.in_training:
        return None
    first, last = (one.figures[figure or one.primary] for one in (before, after))
    if first.value is None or last.value is None or min(first.n, last.n) < FEW_QUESTIONS:
        return None
    return unpaired_interval(last.value, last.n, first.value, first.n)


def _rates(evidence: Evidence, metric: str) -> list[tuple[str, Sequence[Point]]]:
    prefix = f"{metric}/"
    names = [name for name in evidence.training if name.startswith(f"{prefix}rate/")]
    return [(name.removeprefix(prefix), points) for name in names if len(points := evidence.points(name)) > 1]
