"""What a report says, for other programs: report.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...results import Difference, Results
from .combine import Combined, arms_compared, benchmarks_of, differences, figure_of
from .findings import Seen
from .folders import Study
from .sweep import Comparison, Interval


@dataclass(frozen=True)
class Compared(Difference):
    """`model` less `other` on a benchmark, of one seed."""

    model: str
    other: str
    benchmark: str


@dataclass(frozen=True)
class Bounded:
    """A mean over seeds with its 95% interval; of one seed a number, with the interval of its questions."""

    mean: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Configuration:
    """The training runs of one configuration."""

    name: str
    changed: Mapping[str, Any]
    """How it differs from the reference, which `reference` names and which others of the list differ least from."""
    reference: str
    seeds: tuple[int, ...]
    folders: tuple[str, ...]
    figures: Mapping[str, Bounded]
    differences: Mapping[str, Bounded]
    """From the reference, paired by seed."""
    before: Mapping[str, Bounded]
    """The evaluation of its model before training."""


@dataclass(frozen=True)
class Told:
    """A finding of the diagnosis about a subject."""

    subject: str
    rule: str
    level: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Report(Results):
    """report.json."""

    FILE: ClassVar[str] = "report.json"
    COMMAND: ClassVar[str] = "lrm-safety report"

    title: str
    models: Mapping[str, Mapping[str, Combined]]
    """Primary figures by model and benchmark."""
    differences: tuple[Compared, ...]
    configurations: tuple[Configuration, ...]
    findings: tuple[Told, ...]
    notes: tuple[str, ...]


def record(
    title: str, study: Study, comparisons: Sequence[Comparison], findings: Sequence[Seen], notes: Sequence[str]
) -> Report:
    """Everything that the tables show."""
    benchmarks = benchmarks_of(study)
    return Report(
        title=title,
        models={
            one.name: {name: found for name in benchmarks if (found := figure_of(one, name))} for one in study.subjects
        },
        differences=tuple(
            Compared(
                **{**vars(found), "model": subject.name, "other": other.name, "benchmark": name},
            )
            for subject, other in arms_compared(study)
            for name in benchmarks
            for found in differences(subject, other, name)
        ),
        configurations=tuple(
            Configuration(
                row.name,
                row.changed,
                comparison.reference.name,
                tuple(row.seeds),
                tuple(str(run.folder) for run in row.runs),
                _bounded(row.cells()),
                _bounded(comparison.differences(row)) if row is not comparison.reference else {},
                _bounded(comparison.before(row)),
            )
            for comparison in comparisons
            for row in comparison.rows
        ),
        findings=tuple(Told(one.subject, one.finding.rule, one.finding.level, one.finding.text) for one in findings),
        notes=tuple(notes),
    )


def _bounded(cells: Mapping[str, Interval]) -> dict[str, Bounded]:
    return {name: Bounded(*one) for name, one in cells.items()}
