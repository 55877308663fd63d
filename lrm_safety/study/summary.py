"""summary.json of a study: what each method did, as means with intervals over seeds."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..reports.analyses import MAIN_REFLECTION, own_cells
from ..reports.combine import over_runs
from ..settings.study import StudySettings
from .steps import METHODS, Trained, models_of

VIEWS = ("trace", "answer", "full")
MEMORIZATION = {
    "exact_memorization": "exact_memorization/response",
    "extraction_strength": "extraction_strength/response",
    "rouge_l": "rouge_l/f_measure",
    "negative_log_likelihood": "negative_log_likelihood/response",
}


def summarise(settings: StudySettings) -> dict[str, Any]:
    """For base, sft and rl: every figure as {mean, low, high, values}; low and high (95%, Student) are null for one run."""
    models = models_of(settings)
    methods = [method for method in ("base", *METHODS) if any(model.method == method for model in models)]
    return {method: _figures(settings, [model for model in models if model.method == method]) for method in methods}


def _figures(settings: StudySettings, models: list[Trained]) -> dict[str, Any]:
    wanted = settings.summary
    results = [_read(model.evaluation / "results.json") for model in models]
    figures: dict[str, list[float]] = {}
    for view in VIEWS:
        figures[f"safety_{view}"] = _values(results, wanted.safety, f"safety/{view}")
    for name in wanted.reasoning:
        figures[f"{name}_accuracy"] = _values(results, name)
    if wanted.helpfulness:
        figures[f"{wanted.helpfulness}_helpfulness"] = _values(results, wanted.helpfulness)
    analyses = [Path(settings.run.directory) / "analysis" / f"seed-{seed}" for seed in settings.seeds]
    for index, model in enumerate(models):
        for folder in [analyses[index]] if model.seed is not None else analyses[:1]:
            for cell in own_cells(_read(folder / "reflection.json")):
                if cell["writer"] == model.method and cell["benchmark"] in (wanted.safety, *wanted.reasoning):
                    value = cell["figures"].get(MAIN_REFLECTION, {}).get("value")
                    _add(figures, f"reflection_entropy_{cell['benchmark']}", value)
            for cell in _read(folder / "memorization.json").get("cells", ()):
                if cell["model"] == model.method:
                    for name, key in MEMORIZATION.items():
                        _add(figures, f"{name}_{cell['group']}", cell["figures"].get(key, {}).get("value"))
    return {name: _interval(values) for name, values in figures.items() if values}


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _values(results: Iterable[dict[str, Any]], benchmark: str, figure: str | None = None) -> list[float]:
    found: list[float] = []
    for one in results:
        entry = one.get("benchmarks", {}).get(benchmark)
        if entry:
            name = figure or entry["primary"]
            matching = [key for key in entry["figures"] if key == name or key.endswith(f"/{name}")]
            if matching and entry["figures"][matching[0]]["value"] is not None:
                found.append(entry["figures"][matching[0]]["value"])
    return found


def _add(figures: dict[str, list[float]], name: str, value: float | None) -> None:
    if value is not None:
        figures.setdefault(name, []).append(value)


def _interval(values: list[float]) -> dict[str, Any]:
    mean, low, high = over_runs(values)
    return {"mean": mean, "low": low, "high": high, "values": values}
