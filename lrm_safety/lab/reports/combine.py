"""The numbers of a report: out of one evaluation or analysis, of several seeds, of the evaluation inside training."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from ...diagnosis.evidence import Role, as_role, role_of
from ...errors import ConfigError
from ...evaluation.figures import is_share
from ...evaluation.results import compared_figures, difference, incomparable, otherwise, shared
from ...results import Audit, Difference, Evaluation, Memorization, Metric, Reflection
from ...settings.evaluation import benchmark_kind
from ...statistics import mean_of_independent, over_differences, over_runs, wilson_interval
from .folders import Analysis, Series, Study, Subject, TrainingRun, paired

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Combined:
    """A value with its 95% interval (None: it has none), over `n` questions or `num_runs` > 1 runs."""

    value: float
    low: float | None
    high: float | None
    n: int | None
    num_runs: int
    in_training: bool = False

    @property
    def ends(self) -> tuple[float, float] | None:
        """The interval, of several runs where its width can be seen: runs that agree do not tell how far others would be."""
        if self.low is None or self.high is None or (self.num_runs > 1 and f"{self.low:.3f}" == f"{self.high:.3f}"):
            return None
        return self.low, self.high

    @property
    def over(self) -> str:
        """What the interval is over, in words."""
        over = f"{self.num_runs} runs" if self.num_runs > 1 else "" if self.n is None else f"{self.n} questions"
        return ", ".join(filter(None, (over, "in training" if self.in_training else "")))


def combine(metrics: Sequence[Metric | None], *, share: bool = False) -> Combined | None:
    """Metrics of several results (one a seed) as one; those that are absent or have no value are left out."""
    present = [(one, one.value) for one in metrics if one is not None and one.value is not None]
    if not present:
        return None
    if len(present) == 1:
        one, only = present[0]
        return Combined(only, one.low, one.high, one.n, 1)
    over = over_differences if isinstance(present[0][0], Difference) else over_runs
    value, low, high = over([mine for _, mine in present], share=share)
    return Combined(value, low, high, present[0][0].n, len(present))


def figure_of(subject: Subject, benchmark: str, name: str | None = None) -> Combined | None:
    """A figure of a subject, the primary one by default; without any evaluation the last value of training."""
    found = []
    for evaluation in subject.evaluations:
        entry = evaluation.results.benchmarks.get(benchmark)
        found.append(entry.figures.get(name or entry.primary) if entry else None)
    combined = combine(found, share=name is None or is_share(name))
    if combined is None and name is None and not subject.evaluations:
        return _in_training(subject, benchmark, -1)
    return combined


def before_training(subject: Subject, benchmark: str) -> Combined | None:
    """What the run's own evaluation said at update 0."""
    return _in_training(subject, benchmark, 0)


def _in_training(subject: Subject, benchmark: str, place: Literal[0, -1]) -> Combined | None:
    """The first evaluation of each run, which is that of update 0 or none, or the last."""
    found = []
    for run in subject.runs:
        points = run.series.get(f"evaluation/{benchmark}")
        if points and (place == -1 or points[0][0] == 0):
            found.append((points[place][1], run.series))
    if not found:
        return None
    value, low, high = over_runs([one for one, _ in found], share=True)
    n = num_questions(found[0][1], benchmark)
    if len(found) == 1:
        value, low, high = over_questions(found[0][1], benchmark, value)
    return Combined(value, low, high, None if n is None else int(n), len(found), in_training=True)


def over_questions(series: Series, benchmark: str, value: float) -> tuple[float, float | None, float | None]:
    """A figure of an evaluation inside training with Wilson's interval; without one where the number of questions is not
    recorded."""
    n = num_questions(series, benchmark)
    return (value, *wilson_interval(value * n, n)) if n and 0 <= value <= 1 else (value, None, None)


def num_questions(series: Series, benchmark: str) -> float | None:
    """Of an evaluation inside training."""
    points = series.get(f"evaluation/{benchmark}/num_questions")
    return points[-1][1] if points else None


def graded_sets(series: Series) -> list[str]:
    """Names of the benchmarks of an evaluation inside training."""
    return [name.removeprefix("evaluation/") for name in series if re.fullmatch(r"evaluation/[^/]+", name)]


def pairs_of(subject: Subject, other: Subject) -> list[tuple[Evaluation, Evaluation]]:
    """The evaluations of a subject with another's, for each seed that both have."""
    theirs = paired(subject.evaluations, other.evaluations)
    return [
        (mine.results, one.results) for mine, one in zip(subject.evaluations, theirs, strict=True) if one is not None
    ]


def differences(subject: Subject, other: Subject, benchmark: str, figure: str | None = None) -> list[Difference]:
    """A figure of a subject, the primary one by default, less another's on the same questions, for each seed that both have."""
    found = []
    for mine, theirs in pairs_of(subject, other):
        one, less = mine.benchmarks.get(benchmark), theirs.benchmarks.get(benchmark)
        if one and less and not incomparable(one, less) and (figure or one.primary) in compared_figures(one, less):
            found.append(difference(one, less, figure or one.primary, mine.seed))
    return [one for one in found if one.n]


def remarks(study: Study) -> list[str]:
    """What a reader of the differences must know: what could not be compared, was left out, or was done otherwise."""
    found = []
    for subject, other in arms_compared(study):
        names = f"{subject.name} and {other.name}"
        for mine, theirs in pairs_of(subject, other):
            both = shared(mine, theirs)
            found += [] if both else [f"{names}: have no benchmark in common"]
            for name in both:
                one, less = mine.benchmarks[name], theirs.benchmarks[name]
                if reason := incomparable(one, less):
                    found.append(f"{names}, {name}: not compared, {reason}")
                    continue
                for figure in compared_figures(one, less):
                    if left := difference(one, less, figure, mine.seed).num_unmatched:
                        found.append(f"{names}, {name}: {left} questions with a value in one alone left out")
            found += [f"{names} {line}" for line in otherwise(mine, theirs)]
    return list(dict.fromkeys(found))


def arms_compared(study: Study) -> list[tuple[Subject, Subject]]:
    """Which subject is compared with which: every one with its base; RL also with all that is trained otherwise from that
    base, and with the first RL."""
    pairs = []
    for group in study.groups().values():
        first = next((one for one in group if one.role == "rl"), None)
        reference = next((one for one in group if one.evaluations), None) if first is None else None
        for subject in group:
            base = study.base_of(subject) or reference
            others = [one for one in group if subject.role == "rl" and one.role not in ("rl", "base")]
            others += [first] if first is not None and subject.role == "rl" else []
            pairs += [(subject, one) for one in filter(None, (base, *others)) if one is not subject]
    return pairs


def benchmarks_of(study: Study) -> dict[str, str]:
    """Every benchmark with what it measures, those of evaluations first, then those that only training evaluated."""
    found: dict[str, str] = {}
    for subject in study.subjects:
        for evaluation in subject.evaluations:
            for name, entry in evaluation.results.benchmarks.items():
                found.setdefault(name, role_of(entry))
    for subject in study.subjects:
        if subject.evaluations:
            continue
        for run in subject.runs:
            for name, kind in kinds_in_training(run).items():
                if f"evaluation/{name}" in run.series:
                    found.setdefault(name, kind)
    return found


def kinds_in_training(run: TrainingRun) -> dict[str, Role]:
    """What the benchmarks of the evaluation inside training measure, as the run's config.yaml names them."""
    found: dict[str, Role] = {}
    for name, one in ((run.config.get("evaluation") or {}).get("benchmarks") or {}).items():
        try:
            kind = benchmark_kind(one["task"], one.get("arguments") or {}, one.get("attack"), name)
        except ConfigError as error:  # a package that is not here any more: its figures are of no kind
            logger.warning("%s: %s", run.folder, error)
            continue
        found[name] = as_role(kind)
    return found


def mean_of_role(study: Study, subject: Subject, role: str) -> tuple[Combined, list[str]] | None:
    """Mean over the benchmarks of a role that every evaluated subject has, and their names.

    Of several runs: Student's interval over the means of each. Of one: the half-widths of independent intervals add in squares.
    """
    candidates = [name for name, kind in benchmarks_of(study).items() if kind == role]
    shown = [one for one in study.subjects if any(figure_of(one, name) for name in candidates)]
    names = [name for name in candidates if all(figure_of(one, name) for one in shown)]
    mine = [found for name in names if (found := figure_of(subject, name))]
    if not mine:
        return None
    if len(mine) == 1:
        return mine[0], names
    runs = means_of_runs(subject, names)
    if len(runs) > 1:
        return Combined(*over_runs(runs, share=True), None, len(runs), mine[0].in_training), names
    bounded = [(one.value, one.low, one.high) for one in mine if one.low is not None and one.high is not None]
    # Intervals over the same runs are not independent, so they do not add in squares.
    if len(bounded) < len(mine) or any(one.num_runs > 1 for one in mine):
        mean = sum(one.value for one in mine) / len(mine)
        return Combined(mean, None, None, None, mine[0].num_runs, mine[0].in_training), names
    return Combined(*mean_of_independent(bounded), sum(one.n or 0 for one in mine), 1), names


def start_of_role(study: Study, subject: Subject, role: str) -> Combined | None:
    """The same of what a run that was never evaluated by itself, and has no base, said of itself at update 0."""
    if study.base_of(subject) is not None or subject.evaluations:
        return None
    found = [before_training(subject, name) for name, kind in benchmarks_of(study).items() if kind == role]
    mine = [one for one in found if one is not None]
    if len(mine) < 2:
        return mine[0] if mine else None
    bounded = [(one.value, one.low, one.high) for one in mine if one.low is not None and one.high is not None]
    if len(bounded) == len(mine) and len(subject.runs) == 1:
        return Combined(*mean_of_independent(bounded), sum(one.n or 0 for one in mine), 1, in_training=True)
    return Combined(sum(one.value for one in mine) / len(mine), None, None, None, len(subject.runs), in_training=True)


def means_of_runs(subject: Subject, benchmarks: Sequence[str]) -> list[float]:
    """Each evaluation's mean over the primary figures of these benchmarks; without evaluations that of each training run's last
    figures. What lacks a benchmark is left out."""
    if not subject.evaluations:
        inside = [[run.series.get(f"evaluation/{name}") for name in benchmarks] for run in subject.runs]
        return [sum(points[-1][1] for points in one if points) / len(one) for one in inside if one and all(one)]
    found = []
    for evaluation in subject.evaluations:
        metrics = [one.headline for name in benchmarks if (one := evaluation.results.benchmarks.get(name))]
        values = [one.value for one in metrics if one is not None and one.value is not None]
        if len(values) == len(benchmarks):
            found.append(sum(values) / len(values))
    return found


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other beats in one coordinate without losing in the other, by rising x."""
    kept = [
        i for i, (x, y) in enumerate(points) if not any((a >= x and b >= y) and (a > x or b > y) for a, b in points)
    ]
    return sorted(kept, key=lambda i: points[i])


# Analyses

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
SHARES = (
    "exact_memorization/response",
    "extraction_strength/response",
    "rouge_l/f_measure",
    "forking/share_of_trace_tokens",
)


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
    return {key: combined for key, figures in found.items() if (combined := combine(figures, share=measure in SHARES))}


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
    return {key: combined for key, figures in found.items() if (combined := combine(figures, share=key[2] in SHARES))}


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
