"""summary.json of a study: what each method did, as means with intervals over seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ...files import write_json
from ...results import Evaluation, Memorization, Metric, Reflection, Results, as_json
from ...settings.study import StudySettings
from ...statistics import over_differences, over_runs
from ..reports.combine import MAIN_REFLECTION
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


@dataclass(frozen=True)
class OverSeeds:
    """Mean and 95% interval (statistics.over_runs) over the seeds that have a value; without two of them no interval."""

    mean: float | None
    low: float | None
    high: float | None
    values: tuple[float | None, ...]
    """In the order of `seeds`."""


@dataclass(frozen=True)
class Summary:
    """By figure, what each method did, and how much more than another."""

    methods: Mapping[str, Mapping[str, OverSeeds]]
    """base, sft, rl."""
    differences: Mapping[str, Mapping[str, OverSeeds]]
    """`rl - sft` and so on, paired by seed."""

    def write(self, folder: Path) -> None:
        """Write FOLDER/summary.json."""
        write_json(folder / "summary.json", as_json({**self.methods, "differences": self.differences}))


def summarise(settings: StudySettings) -> Summary:
    """What the finished folders of a study say. Raises DataError in one line for a file that is torn or of another format."""
    models = models_of(settings)
    found = {model: figures_of(settings, model) for model in models}
    values = {
        method: _by_figure([found[model] for model in models if model.method == method])
        for method in dict.fromkeys(model.method for model in models)
    }
    return Summary(
        methods={
            method: {name: _over_seeds(column, share=is_share(name)) for name, column in figures.items()}
            for method, figures in values.items()
        },
        differences={
            f"{one} - {other}": {
                name: _over_seeds(
                    [_less(x, y) for x, y in zip(values[one][name], values[other][name], strict=True)],
                    share=is_share(name),
                    over=over_differences,
                )
                for name in values[one]
                if name in values[other]
            }
            for other, one in itertools.combinations(values, 2)
        },
    )


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
    results = _read(Evaluation, model.evaluation)
    benchmarks = results.benchmarks if results else {}
    found: dict[str, float | None] = {}

    def take(name: str, benchmark: str, view: str | None = None) -> None:
        if entry := benchmarks.get(benchmark):
            figure = entry.primary if view is None else f"{entry.primary.rpartition('/')[0]}/{view}"
            found[name] = _value(entry.figures.get(figure))

    for view in VIEWS:
        take(f"safety_{view}", wanted.safety, view)
    for benchmark in wanted.reasoning:
        take(f"{benchmark}_accuracy", benchmark)
    if wanted.harmless is not None and wanted.harmless in benchmarks:
        name = "over_refusal" if benchmarks[wanted.harmless].kind == "over_refusal" else "helpfulness"
        take(f"{wanted.harmless}_{name}", wanted.harmless)
    return found


def _analysed(settings: StudySettings, model: Model) -> dict[str, float | None]:
    folder = analysis_of(settings, model.seed)
    found: dict[str, float | None] = {}
    benchmarks = (settings.summary.safety, *settings.summary.reasoning)
    if reflection := _read(Reflection, folder):
        for cell in reflection.own_cells():
            if cell.writer == model.method and cell.benchmark in benchmarks:
                for name, figure in REFLECTION.items():
                    found[f"{name}_{cell.benchmark}"] = _value(cell.figures.get(figure))
    if memorization := _read(Memorization, folder):
        for known in memorization.cells:
            if known.model == model.method:
                for name, figure in MEMORIZATION.items():
                    found[f"{name}_{known.group}"] = _value(known.figures.get(figure))
    return found


Kind = TypeVar("Kind", bound=Results)


def _read(kind: type[Kind], folder: Path) -> Kind | None:
    """None where the study's steps leave no such file."""
    return kind.read(folder) if (folder / kind.FILE).exists() else None


def _value(metric: Metric | None) -> float | None:
    return None if metric is None else metric.value


def is_share(name: str) -> bool:
    """Whether the figure of this name lies between 0 and 1."""
    return not name.startswith((*REFLECTION, "negative_log_likelihood"))


def _over_seeds(
    values: list[float | None],
    *,
    share: bool,
    over: Callable[..., tuple[float, float | None, float | None]] = over_runs,
) -> OverSeeds:
    present = [value for value in values if value is not None]
    mean, low, high = over(present, share=share) if present else (None, None, None)
    return OverSeeds(mean, low, high, tuple(values))
