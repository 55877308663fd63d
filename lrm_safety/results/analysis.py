"""reflection.json and memorization.json of `lrm-safety analyze`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from .base import Difference, Metric, Results


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
