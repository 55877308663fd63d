"""What commands leave for people and for other commands: results.json of an evaluation, reflection.json, memorization.json
and audit.json.

Each file is one of the dataclasses below, written and read here alone: a field is the key of its name, None is null, and
what could not be measured is None. A later version may add a field with a default, which older files then lack; any other
change of shape is another `FORMAT`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin, get_type_hints

from .conversation import Protocol
from .errors import DataError
from .files import read_json, write_json
from .statistics import Estimate, PairedDifference

Level = Literal["pass", "warn", "fail"]
CheckLevel = Literal["pass", "warn", "fail", "none"]


class Results:
    """A file of results. `FORMAT` is its first key; an audit of before had none, which counts as 1."""

    FILE: ClassVar[str]
    COMMAND: ClassVar[str]
    """What makes the file, for messages."""
    FORMAT: ClassVar[int] = 1

    def write(self, folder: Path) -> None:
        """Write FOLDER/FILE."""
        write_json(folder / self.FILE, {"format": self.FORMAT} | as_json(self))

    @classmethod
    def read(cls, path: Path) -> Self:
        """The file at `path`, or FILE in the folder `path`. Raises DataError in one line."""
        path = path if path.is_file() else path / cls.FILE
        content = read_json(path, mend=f"run {cls.COMMAND}, or name another folder")
        number = content.pop("format", 1)
        if type(number) is not int or number != cls.FORMAT:
            raise DataError(
                f"{path}: has format {number!r}, this version of lrm-safety reads {cls.FORMAT}; run {cls.COMMAND} again, or use "
                "the version that wrote it"
            )
        try:
            result: Self = _fit(cls, content, "")
        except _Misfit as error:
            raise DataError(
                f"{path}: {error}; this version of {cls.COMMAND} writes no such file: run it again, or name another folder"
            ) from error
        return result


@dataclass(frozen=True)
class Metric:
    """A number with its 95% interval over `n` questions, responses or rows."""

    value: float | None
    low: float | None
    high: float | None
    n: int

    @classmethod
    def of(cls, estimate: Estimate) -> Metric:
        """A statistic, whose numbers may be NaN."""
        return cls(known(estimate.value), known(estimate.low), known(estimate.high), estimate.n)


@dataclass(frozen=True)
class Difference(Metric):
    """A paired difference; without a question in common it has no value and no p-value."""

    p_value: float | None
    test: str
    num_unmatched: int
    """Questions that only one side has, which are left out."""

    @classmethod
    def between(cls, paired: PairedDifference) -> Difference:
        """A paired statistic, whose numbers may be NaN."""
        one = Metric.of(paired.estimate)
        return cls(one.value, one.low, one.high, one.n, known(paired.p_value), paired.test, paired.num_unmatched)


# --- results.json of lrm-safety evaluate


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


# --- reflection.json and memorization.json of lrm-safety analyze


@dataclass(frozen=True)
class AnalysedModel:
    """A model that reads; its name is its key."""

    path: str
    family: str
    dtype: str
    fingerprint: str


@dataclass(frozen=True)
class ReflectionTokens:
    """A list of words as one tokenizer has it."""

    preset: str
    """Name of the list; `own` for the user's."""
    words: tuple[str, ...]
    ids: Mapping[str, int]
    """Id by the tokenizer's own spelling of the token (`ĠWait`)."""
    words_without_token: tuple[str, ...]
    """Words that are several tokens in both forms, and so count for nothing."""


@dataclass(frozen=True)
class ForkingThreshold:
    """From which entropy on a token forks, at one temperature."""

    temperature: float
    nats: float | None


@dataclass(frozen=True)
class Forking:
    """How forking tokens are told; `percentile` is None where the threshold was given."""

    percentile: float | None
    thresholds: tuple[ForkingThreshold, ...]


@dataclass(frozen=True)
class ReflectionCell:
    """One model's reading of one model's responses."""

    reader: str
    writer: str
    benchmark: str
    temperature: float
    num_responses: int
    figures: Mapping[str, Metric]
    deciles: tuple[Metric, ...]
    """Entropy of each tenth of the trace."""


@dataclass(frozen=True)
class _ReadingCompared:
    kind: Literal["own_responses", "same_responses"]
    reader: str
    writer: str
    benchmark: str
    temperature: float
    measure: str


@dataclass(frozen=True)
class ReadingDifference(Difference, _ReadingCompared):
    """`reader` less the base, each on its own responses or both on `writer`'s."""


@dataclass(frozen=True, kw_only=True)
class Reflection(Results):
    """reflection.json."""

    FILE: ClassVar[str] = "reflection.json"
    COMMAND: ClassVar[str] = "lrm-safety analyze reflection"

    kind: Literal["reflection"] = "reflection"
    base: str
    models: Mapping[str, AnalysedModel]
    sampling_temperatures: Mapping[str, float]
    """By writer."""
    tokens: ReflectionTokens
    forking: Forking
    seed: int
    cells: tuple[ReflectionCell, ...]
    differences: tuple[ReadingDifference, ...]

    def own_cells(self) -> list[ReflectionCell]:
        """Cells in which a model reads its own responses, at the first (sampling) temperature of the file."""
        first: dict[tuple[str, str], ReflectionCell] = {}
        for cell in self.cells:
            if cell.reader == cell.writer:
                first.setdefault((cell.reader, cell.benchmark), cell)
        return list(first.values())


@dataclass(frozen=True)
class SupervisedData:
    """The rows that memorization is looked for in."""

    name: str
    fingerprint: str
    num_rows: int
    num_dropped: int


@dataclass(frozen=True)
class MemorizationCell:
    """One model and one group of rows."""

    model: str
    group: str
    num_rows: int
    figures: Mapping[str, Metric]
    rows: Mapping[str, Mapping[str, float]]
    """Each row's measures by its id."""


@dataclass(frozen=True)
class _KnowledgeCompared:
    model: str
    group: str
    measure: str


@dataclass(frozen=True)
class KnowledgeDifference(Difference, _KnowledgeCompared):
    """`model` less the base, paired by row."""


@dataclass(frozen=True, kw_only=True)
class Memorization(Results):
    """memorization.json."""

    FILE: ClassVar[str] = "memorization.json"
    COMMAND: ClassVar[str] = "lrm-safety analyze memorization"

    kind: Literal["memorization"] = "memorization"
    base: str
    models: Mapping[str, AnalysedModel]
    data: SupervisedData
    max_new_tokens: int
    seed: int
    cells: tuple[MemorizationCell, ...]
    differences: tuple[KnowledgeDifference, ...]


# --- audit.json of lrm-safety audit-reward


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


# --- dataclasses as JSON and back


def known(value: float) -> float | None:
    """None for NaN, which JSON lacks."""
    return None if math.isnan(value) else value


def as_json(value: Any) -> Any:
    """A dataclass and everything in it as JSON has it. A field that is None by default is left out where it is None."""
    if is_dataclass(value):
        return {
            one.name: as_json(member)
            for one in fields(value)
            if (member := getattr(value, one.name)) is not None or one.default is not None
        }
    if isinstance(value, Mapping):
        return {key: as_json(member) for key, member in value.items()}
    return [as_json(member) for member in value] if isinstance(value, list | tuple) else value


class _Misfit(Exception):
    """A field that is not what its dataclass says; `str(error)` names it."""


_NAMES: dict[type, str] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _fit(kind: Any, value: Any, where: str) -> Any:
    """`value` of a JSON file as the type hint `kind` has it; `where` names it from the top of the file."""
    origin, members = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):  # of something and None
        return None if value is None else _fit(members[0], value, where)
    if origin is Literal:
        if value not in members:
            raise _Misfit(f"{where} is {value!r} and not {' or '.join(members)}")
        return value
    json_type: Any = dict if is_dataclass(kind) or origin is Mapping else list if origin is tuple else kind
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not json_type:
        raise _Misfit(f"{where} is {_NAMES[type(value)]} and not {_NAMES[json_type]}")
    if kind is float and not math.isfinite(value):
        raise _Misfit(f"{where} is {value} and not {_NAMES[float]}")
    if is_dataclass(kind):
        return _fit_fields(kind, value, where)
    if origin is Mapping:
        return {key: _fit(members[1], member, _below(where, key)) for key, member in value.items()}
    if origin is tuple:
        return tuple(_fit(members[0], member, f"{where}[{place}]") for place, member in enumerate(value))
    return value


def _fit_fields(kind: Any, content: Mapping[str, Any], where: str) -> Any:
    hints = _hints(kind)
    known_fields = {one.name: one for one in fields(kind)}
    if unknown := next((key for key in content if key not in known_fields), None):
        raise _Misfit(f"holds the unknown key {_below(where, unknown)}")
    for name, one in known_fields.items():
        if name not in content and one.default is MISSING and one.default_factory is MISSING:
            raise _Misfit(f"lacks {_below(where, name)}")
    return kind(**{name: _fit(hints[name], member, _below(where, name)) for name, member in content.items()})


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
