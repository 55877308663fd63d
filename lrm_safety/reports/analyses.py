"""Figures out of reflection.json and memorization.json (docs/report.md lists the keys that are read)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from ..results import Audit, Memorization, Metric, Reflection
from .combine import Combined, combine
from .folders import Analysis

Read = TypeVar("Read", Reflection, Memorization)

REFLECTION_MEASURES = {
    "emit/token_mean": "entropy where the token is emitted, nats",
    "next/token_mean": "entropy at the next token, nats",
    "emit/response_sum": "sum over a response, nats",
    "emit/response_mean_with_zero": "mean of a response, 0 without reflection, nats",
    "other/token_mean": "entropy of the other trace tokens, nats",
    "reflections/per_1000_trace_tokens": "reflections per 1,000 trace tokens",
    "reflections/per_response": "reflections per response",
    "forking/share_of_trace_tokens": "share of forking tokens in the trace",
}
MAIN_REFLECTION = "emit/token_mean"
MEMORIZATION_MEASURES = {
    "exact_memorization/response": "exact memorization",
    "extraction_strength/response": "extraction strength",
    "rouge_l/f_measure": "ROUGE-L of the greedy continuation",
    "negative_log_likelihood/response": "negative log-likelihood, nats/token",
}
"""Names that are shown; every other figure of a cell stands in the file alone."""


def _models_once(analyses: Iterable[Analysis[Read]]) -> Iterator[tuple[Read, set[str]]]:
    """Each analysis' results with the names of the models that no earlier one measured: the seeds of a method may share one base
    and one evaluation of it, which is then not a seed each time. The same weights on other responses or rows are."""
    seen: set[tuple[str, str, Values]] = set()
    for results in (one.results for one in analyses):
        measured = {(name, one.fingerprint, _values_of(results, name)) for name, one in results.models.items()}
        repeated = {name for name, *_ in measured & seen}
        yield results, set(results.models) - repeated
        seen |= measured


Values = tuple[tuple[str, tuple[tuple[str, float | None], ...]], ...]
"""Of each benchmark, or group of rows, the names and values of its figures."""


def _values_of(results: Reflection | Memorization, name: str) -> Values:
    """What an analysis measured of a model by itself, for comparison; intervals depend on the bootstrap's seed."""
    if isinstance(results, Reflection):
        mine = [(cell.benchmark, cell.figures) for cell in results.cells if cell.reader == name == cell.writer]
    else:
        mine = [(cell.group, cell.figures) for cell in results.cells if cell.model == name]
    return tuple((on, tuple((measure, one.value) for measure, one in figures.items())) for on, figures in mine)


def reflection(analyses: Iterable[Analysis[Reflection]], measure: str) -> dict[tuple[str, str], Combined]:
    """(model, benchmark) -> figure; several analyses are seeds."""
    found: dict[tuple[str, str], list[Metric | None]] = {}
    for results, models in _models_once(analyses):
        for cell in results.own_cells():
            if cell.reader in models:
                found.setdefault((cell.reader, cell.benchmark), []).append(cell.figures.get(measure))
    return {key: combined for key, figures in found.items() if (combined := combine(figures))}


def deciles(analyses: Iterable[Analysis[Reflection]]) -> dict[tuple[str, str], list[Combined | None]]:
    """(model, benchmark) -> entropy of each tenth of the trace."""
    found: dict[tuple[str, str], list[tuple[Metric, ...]]] = {}
    for results, models in _models_once(analyses):
        for cell in results.own_cells():
            if cell.reader in models and cell.deciles:
                found.setdefault((cell.reader, cell.benchmark), []).append(cell.deciles)
    return {
        key: [combine([one[i] for one in seeds]) for i in range(min(map(len, seeds)))] for key, seeds in found.items()
    }


def memorization(analyses: Iterable[Analysis[Memorization]]) -> dict[tuple[str, str, str], Combined]:
    """(model, group of rows, measure) -> figure."""
    found: dict[tuple[str, str, str], list[Metric | None]] = {}
    for results, models in _models_once(analyses):
        for cell in results.cells:
            for measure, metric in cell.figures.items() if cell.model in models else ():
                found.setdefault((cell.model, cell.group, measure), []).append(metric)
    return {key: combined for key, figures in found.items() if (combined := combine(figures))}


def audit_by(audit: Audit, split: Literal["by_category", "by_family"]) -> dict[tuple[str, str, str], Combined]:
    """(reward model, view, category or family) -> AUC of safe over unsafe texts.

    Of the views that the reward reads alone; what has no AUC is left out.
    """
    found: dict[tuple[str, str, str], Combined] = {}
    for model, one in audit.models.items():
        for view in one.judged_views:
            figures = one.figures[view]
            for name, auc in (figures.by_category if split == "by_category" else figures.by_family).items():
                if auc.value is not None:
                    size = auc.num_safe + auc.num_unsafe
                    found[model, view, name] = Combined(auc.value, auc.low, auc.high, size, 1)
    return found
