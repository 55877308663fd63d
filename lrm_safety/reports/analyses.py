"""Figures out of reflection.json and memorization.json (docs/report.md lists the keys that are read)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from .combine import Combined, combine
from .folders import Analysis

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


def own_cells(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Cells in which a model reads its own responses, at the first (sampling) temperature of the file."""
    own = [cell for cell in results.get("cells", ()) if cell["reader"] == cell["writer"]]
    first: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in own:
        first.setdefault((cell["reader"], cell["benchmark"]), cell)
    return list(first.values())


def _models_once(analyses: Iterable[Analysis]) -> Iterator[tuple[Analysis, set[str]]]:
    """Each analysis with the names of the models that no earlier one measured: the seeds of a method may share one base
    and one evaluation of it, which is then not a seed each time. The same weights on other responses or rows are."""
    seen: set[tuple[str, str, str]] = set()
    for analysis in analyses:
        measured = {
            (name, one["fingerprint"], _values_of(analysis.results, name))
            for name, one in analysis.results.get("models", {}).items()
            if one.get("fingerprint") is not None
        }
        repeated = {name for name, *_ in measured & seen}
        yield analysis, set(analysis.results.get("models", {})) - repeated
        seen |= measured


def _values_of(results: dict[str, Any], name: str) -> str:
    """What an analysis measured of a model by itself, for comparison; intervals depend on the bootstrap's seed."""
    return json.dumps(
        [
            [cell.get("benchmark"), cell.get("group"), {key: one["value"] for key, one in cell["figures"].items()}]
            for cell in results["cells"]
            if cell.get("reader", cell.get("model")) == name == cell.get("writer", name)
        ]
    )


def reflection(analyses: Iterable[Analysis], measure: str) -> dict[tuple[str, str], Combined]:
    """(model, benchmark) -> figure; several analyses are seeds."""
    found: dict[tuple[str, str], list[dict[str, Any] | None]] = {}
    for analysis, models in _models_once(analyses):
        for cell in own_cells(analysis.results):
            if cell["reader"] in models:
                found.setdefault((cell["reader"], cell["benchmark"]), []).append(cell["figures"].get(measure))
    return {key: combined for key, figures in found.items() if (combined := combine(figures))}


def deciles(analyses: Iterable[Analysis]) -> dict[tuple[str, str], list[Combined | None]]:
    """(model, benchmark) -> entropy of each tenth of the trace."""
    found: dict[tuple[str, str], list[list[dict[str, Any]]]] = {}
    for analysis, models in _models_once(analyses):
        for cell in own_cells(analysis.results):
            if cell["reader"] in models and cell.get("deciles"):
                found.setdefault((cell["reader"], cell["benchmark"]), []).append(cell["deciles"])
    return {
        key: [combine([one[i] for one in seeds]) for i in range(min(map(len, seeds)))] for key, seeds in found.items()
    }


def memorization(analyses: Iterable[Analysis]) -> dict[tuple[str, str, str], Combined]:
    """(model, group of rows, measure) -> figure."""
    found: dict[tuple[str, str, str], list[dict[str, Any] | None]] = {}
    for analysis, models in _models_once(analyses):
        for cell in analysis.results.get("cells", ()):
            for measure in cell["figures"] if cell["model"] in models else ():
                found.setdefault((cell["model"], cell["group"], measure), []).append(cell["figures"][measure])
    return {key: combined for key, figures in found.items() if (combined := combine(figures))}


def audit_by(analysis: Analysis, split: str) -> dict[tuple[str, str, str], Combined]:
    """(reward model, view, category or family) -> AUC of safe over unsafe texts; `split`: by_category or by_family.

    Of the views that the reward reads alone; what has no AUC is left out.
    """
    found: dict[tuple[str, str, str], Combined] = {}
    for model, one in analysis.results.get("models", {}).items():
        for view in one["judged_views"]:
            for name, auc in one["figures"][view].get(split, {}).items():
                if auc["value"] is not None:
                    size = auc["num_safe"] + auc["num_unsafe"]
                    found[model, view, name] = Combined(auc["value"], auc["low"], auc["high"], size, 1)
    return found
