"""results.json of `lrm-safety reward` and audit.json of `lrm-safety audit-reward`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from .base import Metric, Results

Level = Literal["pass", "warn", "fail"]
CheckLevel = Literal["pass", "warn", "fail", "none"]


@dataclass(frozen=True)
class Separation:
    """AUC of safe over unsafe texts with its 95% interval."""

    value: float | None
    low: float | None
    high: float | None
    num_safe: int
    num_unsafe: int


@dataclass(frozen=True)
class RankAgreement:
    """Rank correlation of two layouts' or families' scores over `n` texts."""

    spearman: float | None
    kendall: float | None
    n: int


@dataclass(frozen=True)
class LengthBias:
    """How scores go with length within a label, and separation among texts of like length."""

    effect: float | None
    """Standard deviations of the score with one of log length."""
    correlation: float | None
    length_alone_auc: float | None
    matched_auc: float | None
    matched_drop: float | None
    matched_share_of_pairs: float


@dataclass(frozen=True)
class OpenerBias:
    """What a refusal as the answer's first sentence is worth, in standard deviations. `added` is the phrase alone; `removed`,
    from a safe text whose own first sentence it was, may take the point of the text with it."""

    safe_shift_added: float | None
    safe_shift_removed: float | None
    unsafe_shift_added: float | None
    num_safe_added: int
    num_safe_removed: int
    num_unsafe: int
    auc_against_opened_unsafe: float | None
    unsafe_above_median_safe: float | None


@dataclass(frozen=True)
class AuditedView:
    """What the scores of one view say. Shifts are in standard deviations of the view's scores over all texts, both labels."""

    separation: Separation
    by_category: Mapping[str, Separation]
    by_family: Mapping[str, Separation]
    agreement_of_families: Mapping[str, RankAgreement]
    """By `ONE | OTHER`."""
    length: LengthBias
    overlong: Mapping[str, float | None]
    """Share of texts over the model's token limit, by format."""
    by_format: Mapping[str, Separation] | None = None
    """This and the next two are of the view `full` alone."""
    agreement_of_formats: Mapping[str, RankAgreement] | None = None
    format_shift: Mapping[str, float | None] | None = None
    """Mean change of score against the composed layout."""
    refusal_opener: OpenerBias | None = None
    """Not of the view `trace`."""


@dataclass(frozen=True)
class Check:
    """One figure and what it means; `level` is none where it could not be judged."""

    view: str
    figure: str
    value: float | None
    level: CheckLevel
    reason: str


@dataclass(frozen=True)
class AuditedModel:
    """One reward model: the verdict over the views that the reward reads, and the figures of all."""

    verdict: Level
    judged_views: tuple[str, ...]
    reasons: tuple[str, ...]
    """One line for each check that did not pass, the worst first."""
    checks: tuple[Check, ...]
    figures: Mapping[str, AuditedView]


@dataclass(frozen=True)
class Audit(Results):
    """audit.json."""

    FILE: ClassVar[str] = "audit.json"
    COMMAND: ClassVar[str] = "lrm-safety audit-reward"

    verdict: Level
    num_texts: int
    num_prompts: int
    rows: str | None
    seed: int
    models: Mapping[str, AuditedModel]


@dataclass(frozen=True)
class PairsRead:
    """What reading one side of the split came to."""

    pairs: int
    overlong_responses: int
    respelled_responses: int
    dropped_pairs: int
    equal_pairs: int
    """Pairs whose two responses read the same in the view."""


@dataclass(frozen=True)
class ReliabilityBin:
    """Predictions in [low, high): how many, their mean, and how often they came true; None where there are none."""

    low: float
    high: float
    count: int
    mean_prediction: float | None
    share_true: float | None


@dataclass(frozen=True)
class HeldOutPairs:
    """How good a reward model is on pairs that it was not trained on."""

    num_pairs: int
    num_prompts: int
    accuracy: Metric
    loss: float
    """The plain Bradley-Terry loss, without margin or smoothing."""
    mean_margin: float
    expected_calibration_error: float
    reliability: tuple[ReliabilityBin, ...]
    by_category: Mapping[str, Metric]


@dataclass(frozen=True, kw_only=True)
class RewardTraining(Results):
    """results.json of a reward model's training."""

    FILE: ClassVar[str] = "results.json"
    COMMAND: ClassVar[str] = "lrm-safety reward"

    base: str
    head_is_new: bool
    num_updates: int
    data_fingerprint: str
    pairs_left_out: int
    train: PairsRead
    held_out_reading: PairsRead
    held_out: HeldOutPairs
    largest_difference_of_export: float
    """Between a score in training and that of the export."""
    seconds: float
