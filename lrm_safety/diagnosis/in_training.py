"""The evaluation inside training as two evaluations, before and after, so that the rules of evaluations read it too.

An evaluation inside training is one of many over few questions, so the rules ask more of it: a figure counts as changed
only if the last two evaluations both say so, and only beyond what so many questions vary by chance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .evidence import Evaluated, Evidence, Role, role_by_name
from .thresholds import FEW_QUESTIONS

PRIMARY, NUM_QUESTIONS = "in training", "num_questions"
LOWER_IS_BETTER: tuple[Role, ...] = ("over_refusal",)
Point = tuple[int, float]


def in_training(evidence: Evidence) -> tuple[Evaluated, Evaluated] | None:
    """The first evaluation and, figure by figure, the better of the last two; None with fewer than three of them."""
    first: dict[str, dict[str, Any]] = {}
    last: dict[str, dict[str, Any]] = {}
    updates: list[int] = []
    for metric in evidence.training:
        group, _, name = metric.partition("/")
        if group != "evaluation" or "/" in name or len(points := evidence.points(metric)) < 3:
            continue
        role = role_by_name(name)
        counts = evidence.points(f"{metric}/{NUM_QUESTIONS}")
        num_questions = int(counts[-1][1]) if counts else None
        first[name], last[name] = ({"task": "", "kind": role, "attack": None, "primary": PRIMARY} for _ in range(2))
        pick = min if role in LOWER_IS_BETTER else max
        first[name]["figures"] = {PRIMARY: _figure(points[0][1], num_questions)}
        last[name]["figures"] = {PRIMARY: _figure(pick(value for _, value in points[-2:]), num_questions)}
        for rate, values in _rates(evidence, metric):
            first[name]["figures"][rate] = _figure(values[0][1], num_questions)
            last[name]["figures"][rate] = _figure(min(value for _, value in values[-2:]), num_questions)
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
    """95% interval of the change of a figure, the primary one by default: paired by question where the answers are there,
    otherwise that of two independent shares of so many questions, which is wider; None where not even their number is known."""
    before, after = base.benchmarks[benchmark], run.benchmarks[benchmark]
    if figure is None and after.get("questions") and before.get("questions"):
        clusters = {**before.get("clusters", {}), **after.get("clusters", {})}
        return paired_interval(after["questions"], before["questions"], clusters)
    if not run.in_training:
        return None
    first, last = (one["figures"][figure or one["primary"]] for one in (before, after))
    if not first["n"] or not last["n"]:
        return None
    variance = sum(one["value"] * (1 - one["value"]) / one["n"] for one in (first, last))
    half = 1.96 * math.sqrt(max(variance, 0.0))
    return last["value"] - first["value"] - half, last["value"] - first["value"] + half


def paired_interval(
    run: Mapping[str, float], base: Mapping[str, float], clusters: Mapping[str, str] | None = None
) -> tuple[float, float] | None:
    """95% interval of the mean of run - base over shared questions, by the normal approximation; None below 10 of them.

    Questions of one cluster (question -> cluster) are not independent: the variance is that of the clusters' sums.
    """
    differences = {key: run[key] - base[key] for key in sorted(run.keys() & base.keys())}
    n = len(differences)
    if n < FEW_QUESTIONS:
        return None
    mean = sum(differences.values()) / n
    residuals: dict[str, float] = {}
    for key, value in differences.items():
        unit = (clusters or {}).get(key, f"question {key}")
        residuals[unit] = residuals.get(unit, 0.0) + value - mean
    if len(residuals) < 2:
        return None
    error = math.sqrt(sum(one**2 for one in residuals.values()) * len(residuals) / (len(residuals) - 1)) / n
    return mean - 1.96 * error, mean + 1.96 * error


def _rates(evidence: Evidence, metric: str) -> list[tuple[str, Sequence[Point]]]:
    prefix = f"{metric}/"
    names = [name for name in evidence.training if name.startswith(f"{prefix}rate/")]
    return [(name.removeprefix(prefix), points) for name in names if len(points := evidence.points(name)) > 2]


def _figure(value: float, n: int | None) -> dict[str, Any]:
    return {"value": value, "low": None, "high": None, "n": n}
