"""The evaluation inside training as two evaluations, before and after, so that the rules of evaluations read it too.

An evaluation inside training is one of many over few questions, so the rules ask more of it: a figure counts as changed
only if the last two evaluations both say so, and only beyond what so many questions vary by chance.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..results import Metric
from ..statistics import paired_difference, unpaired_interval
from .evidence import Evaluated, Evidence, Measures, Role
from .thresholds import FEW_QUESTIONS

PRIMARY, NUM_QUESTIONS = "in training", "num_questions"
LOWER_IS_BETTER: tuple[Role, ...] = ("over_refusal",)
Point = tuple[int, float]


def in_training(evidence: Evidence) -> tuple[Evaluated, Evaluated] | None:
    """The first evaluation and, figure by figure, the better of the last two; None with fewer than three of them."""
    first: dict[str, Measures] = {}
    last: dict[str, Measures] = {}
    updates: list[int] = []
    for metric in evidence.training:
        group, _, name = metric.partition("/")
        role = evidence.kinds.get(name)
        if group != "evaluation" or role is None or len(points := evidence.points(metric)) < 3:
            continue
        counts = evidence.points(f"{metric}/{NUM_QUESTIONS}")
        num_questions = int(counts[-1][1]) if counts else 0
        pick = min if role in LOWER_IS_BETTER else max
        before, after = {PRIMARY: points[0][1]}, {PRIMARY: pick(value for _, value in points[-2:])}
        for rate, values in _rates(evidence, metric):
            before[rate], after[rate] = values[0][1], min(value for _, value in values[-2:])
        for side, found in ((first, before), (last, after)):
            metrics = {figure: Metric(value, None, None, num_questions) for figure, value in found.items()}
            side[name] = Measures(role, PRIMARY, metrics)
        updates = sorted({*updates, points[0][0], points[-2][0], points[-1][0]})
    if not first:
        return None
    source = evidence.training_source
    return (
        Evaluated(f"{source}, update {updates[0]}", first, evidence.judges, in_training=True),
        Evaluated(
            f"{source}, the better of updates {updates[-2]} and {updates[-1]}", last, evidence.judges, in_training=True
        ),
    )


def difference_interval(
    base: Evaluated, run: Evaluated, benchmark: str, figure: str | None = None
) -> tuple[float, float] | None:
    """95% interval of the change of a figure, the primary one by default: where the answers are there the paired one, as
    the report gives it, None below 10 questions in common or 2 clusters; inside training
    that of two independent shares of so many questions, None where not even their number is known."""
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
    if first.value is None or last.value is None or not first.n or not last.n:
        return None
    return unpaired_interval(last.value, last.n, first.value, first.n)


def _rates(evidence: Evidence, metric: str) -> list[tuple[str, Sequence[Point]]]:
    prefix = f"{metric}/"
    names = [name for name in evidence.training if name.startswith(f"{prefix}rate/")]
    return [(name.removeprefix(prefix), points) for name in names if len(points := evidence.points(name)) > 2]
