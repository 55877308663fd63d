"""results.json of `lrm-safety evaluate`, and the rows of `lrm-safety evaluate calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ..conversation.families import Protocol
from .base import Metric, Results


@dataclass(frozen=True)
class EvaluatedAdapter:
    """What was merged into the model."""

    path: str
    fingerprint: str


@dataclass(frozen=True)
class Model:
    """The model that was evaluated."""

    name: str
    path: str
    family: str
    dtype: str
    fingerprint: str
    """Of what lies at `path`."""
    adapter: EvaluatedAdapter | None = None


@dataclass(frozen=True)
class BenchmarkData:
    """Which questions were asked."""

    source: str
    fingerprint: str
    num_questions: int
    num_skipped_overlong: int
    """Questions left out because their prompt is too long."""
    num_unwrapped: int = 0
    """Rows of the source that held the text of a message list, whether or not they are among the questions."""
    num_repeats: int = 0
    """Those of them that then repeated another row and were left out."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """Everything about one benchmark of an evaluation (docs/evaluation.md names its figures)."""

    task: str
    kind: str
    data: BenchmarkData
    attack: str | None
    samples: int
    primary: str
    """The name of the figure that stands for the benchmark; no response may have given it."""
    statuses: Mapping[str, int]
    """Responses in each status."""
    no_verdict: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """By judge and reason, texts without a verdict."""
    figures: Mapping[str, Metric]
    questions: Mapping[str, float]
    """Each question's part of the primary figure, those that have one."""
    compared: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """The same of what else two evaluations are compared by."""
    clusters: Mapping[str, str] = field(default_factory=dict)
    """Question -> its cluster, of those that share one."""

    @property
    def headline(self) -> Metric | None:
        """The primary figure."""
        return self.figures.get(self.primary)


@dataclass(frozen=True)
class Evaluation(Results):
    """results.json; two runs of one evaluation differ in `seconds` alone."""

    FILE: ClassVar[str] = "results.json"
    COMMAND: ClassVar[str] = "lrm-safety evaluate"

    model: Model
    protocol: Protocol
    seed: int
    judges: Mapping[str, Mapping[str, Any]]
    """By name, their configuration with a `fingerprint`; `measured`: how far they may be off, where it was measured."""
    benchmarks: Mapping[str, Benchmark]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class JudgeCalibration:
    """What `lrm-safety evaluate calibrate output=FILE` writes of a judge and a set of labels."""

    judge: str
    data: str
    accuracy: float | None
    kappa: float | None
    labels: tuple[str, ...]
    confusion: tuple[tuple[int, ...], ...]
    """Items by reference label and, across, by what the judge said."""
    n: int
    n_without_verdict: int
