"""summary.json of a study: what each method did, as means with intervals over seeds."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ..files import read_json
from ..reports.analyses import MAIN_REFLECTION, own_cells
from ..settings.study import StudySettings
from ..statistics import over_runs
from .steps import Model, analysis_of, models_of

VIEWS = ("trace", "answer", "full")
REFLECTION = {
    "reflection_entropy": MAIN_REFLECTION,
    "reflection_entropy_with_zero": "emit/response_mean_with_zero",
    "reflections_per_response": "reflections/per_response",
}
MEMORIZATION = {
    "exact_memorization": "exact_memorization/response",
    "extraction_strength": "extraction_strength/response",
    "rouge_l": "rouge_l/f_measure",
    "negative_log_likelihood": "negative_log_likelihood/response",
}
"""Name in the summary -> figure of the analysis."""


def summarise(settings: StudySettings) -> dict[str, dict[str, Any]]:
    """base, sft and rl: figure -> {mean, low, high, values}; and `differences`, "rl - sft" and so on: the same, paired by seed.

    `values` are in the order of `seeds`, null where a seed has none; mean and 95% interval (statistics.over_runs) are over the
    others, the interval null for one.
    """
    models = models_of(settings)
    found = {model: figures_of(settings, model) for model in models}
    values = {
        method: _by_figure([found[model] for model in models if model.method == method])
        for method in dict.fromkeys(model.method for model in models)
    }
    summary: dict[str, dict[str, Any]] = {
        method: {name: _interval(column, share=is_share(name)) for name, column in figures.items()}
        for method, figures in values.items()
    }
    pairs = [(later, earlier) for earlier, later in itertools.combinations(values, 2)]
    summary["differences"] = {
        f"{one} - {other}": {
            name: _interval([_less(x, y) for x, y in zip(values[one][name], values[other][name], strict=True)])
            for name in values[one]
            if name in values[other]
        }
        for one, other in pairs
    }
    return summary


def _by_figure(seeds: list[dict[str, float]]) -> dict[str, list[float | None]]:
    return {
        name: [figures.get(name) for figures in seeds]
        for name in dict.fromkeys(n for figures in seeds for n in figures)
    }


def _less(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def figures_of(settings: StudySettings, model: Model) -> dict[str, float]:
    """Every figure of one model; what was not measured is left out."""
    found = _evaluated(settings, model) | _analysed(settings, model)
    return {name: value for name, value in found.items() if value is not None}


def _evaluated(settings: StudySettings, model: Model) -> dict[str, float | None]:
    wanted = settings.summary
    benchmarks = _read(model.evaluation / "results.json").get("benchmarks", {})
    found: dict[str, float | None] = {}

    def take(name: str, benchmark: str, view: str | None = None) -> None:
        if entry := benchmarks.get(benchmark):
            figure = entry["primary"] if view is None else f"{entry['primary'].rpartition('/')[0]}/{view}"
            found[name] = entry["figures"].get(figure, {}).get("value")

    for view in VIEWS:
        take(f"safety_{view}", wanted.safety, view)
    for benchmark in wanted.reasoning:
        take(f"{benchmark}_accuracy", benchmark)
    if wanted.harmless is not None and wanted.harmless in benchmarks:
        name = "over_refusal" if benchmarks[wanted.harmless]["kind"] == "over_refusal" else "helpfulness"
        take(f"{wanted.harmless}_{name}", wanted.harmless)
    return found


def _analysed(settings: StudySettings, model: Model) -> dict[str, float | None]:
    folder = analysis_of(settings, model.seed)
    found: dict[str, float | None] = {}
    for cell in own_cells(_read(folder / "reflection.json")):
        if cell["writer"] == model.method and cell["benchmark"] in (
            settings.summary.safety,
            *settings.summary.reasoning,
        ):
            for name, figure in REFLECTION.items():
                found[f"{name}_{cell['benchmark']}"] = cell["figures"].get(figure, {}).get("value")
    for cell in _read(folder / "memorization.json").get("cells", ()):
        if cell["model"] == model.method:
            for name, figure in MEMORIZATION.items():
                found[f"{name}_{cell['group']}"] = cell["figures"].get(figure, {}).get("value")
    return found


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def is_share(name: str) -> bool:
    """Whether the figure of this name lies between 0 and 1."""
    return not name.startswith((*REFLECTION, "negative_log_likelihood"))


def _interval(values: list[float | None], *, share: bool = False) -> dict[str, Any]:
    present = [value for value in values if value is not None]
    mean, low, high = over_runs(present, share=share) if present else (None, None, None)
    return {"mean": mean, "low": low, "high": high, "values": values}
