"""What an evaluation leaves: results.json, samples.jsonl, and a table; and what of several evaluations can be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..files import digest_of, write_json_lines
from ..results import Benchmark, BenchmarkData, Difference, Evaluation, Metric
from ..statistics import paired_difference
from ..terminal import print_whole
from .figures import (
    Figures,
    Judges,
    Value,
    compared_values,
    count_statuses,
    count_without_verdict,
    is_of_group,
    lower_is_better,
    primary_figure,
)
from .in_loop import TEXT_FIELDS, record
from .plan import PlannedBenchmark
from .scoring import Scored

SAMPLES = "samples.jsonl"
SCORES = ("safety/", "over_refusal/", "pass@", "maj@", "unsafe_trace/", "first_unsafe/", "measure/", "kappa/")
RATES = ("rate/", "no_verdict/")
"""How the names of figures begin that the table shows."""


def benchmark_results(planned: PlannedBenchmark, scored: Sequence[Scored], found: Figures, judges: Judges) -> Benchmark:
    """Everything about one benchmark."""
    primary, source = primary_figure(planned, judges), planned.questions.source
    compared = {name: _per_question(scored, value) for name, value in compared_values(planned, judges).items()}
    return Benchmark(
        task=planned.benchmark.name,
        kind=planned.benchmark.kind,
        data=BenchmarkData(
            source=Path(source.name).name,
            fingerprint=planned.questions.fingerprint,
            num_questions=len(planned.questions),
            num_skipped_overlong=planned.num_skipped,
            num_unwrapped=source.num_unwrapped,
            num_repeats=source.num_repeats,
        ),
        attack=planned.attack,
        samples=planned.samples,
        primary=primary,
        statuses=count_statuses(scored),
        no_verdict=count_without_verdict(scored),
        figures={name: Metric.of(figure) for name, figure in found.items()},
        questions=compared.pop(primary),
        compared=compared,
        clusters=_clusters(scored),
    )


def _per_question(scored: Sequence[Scored], value: Value) -> dict[str, float]:
    """Each question's part of a figure, for paired comparison; questions without one are left out."""
    values: dict[str, list[float]] = {}
    for one in scored:
        if (mine := value(one)) is not None:
            values.setdefault(one.ask.question.id, []).append(mine)
    return {question: sum(mine) / len(mine) for question, mine in values.items()}


def _clusters(scored: Sequence[Scored]) -> dict[str, str]:
    """Question -> its cluster, of those that share one; a hash, which is the same in every evaluation."""
    units = {one.ask.question.id: one.ask.question.unit for one in scored}
    sizes = Counter(units.values())
    return {question: digest_of([unit])[:12] for question, unit in units.items() if sizes[unit] > 1}


def write_samples(path: Path, scored: Mapping[str, Sequence[Scored]], *, log_text: bool) -> None:
    """One JSON line per response; without `log_text` texts become sha256 and length, since they may be harmful."""
    rows = []
    for name, responses in scored.items():
        for one in responses:
            row = record(name, one)
            if not log_text:
                texts = {field: row.pop(field) for field in TEXT_FIELDS if field in row}
                for field in ("trace", "answer"):
                    text = texts[field]
                    row[f"{field}_sha256"] = digest_of([text])
                    row[f"num_{field}_characters"] = len(text)
            rows.append(row)
    write_json_lines(path, rows)


def show(results: Evaluation, console: Console) -> None:
    """The table: a benchmark's primary figure first, its other scores, and how many responses counted as nothing."""
    table = Table(title=f"{results.model.name}, protocol {results.protocol.name}", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("benchmark", no_wrap=True)
    table.add_column("figure", no_wrap=True)
    for heading in ("value", "95% interval", "n"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, one in results.benchmarks.items():
        for i, figure in enumerate(headlines(one)):
            found = one.figures.get(figure)
            questions = found.n if found else 0
            size = str(questions) if one.samples == 1 else f"{questions} x {one.samples}"
            table.add_row("" if i else name, figure, number(found.value if found else None), interval(found), size)
        table.add_section()
    print_whole(console, table)
    for name, one in results.benchmarks.items():
        for judge, reasons in one.no_verdict.items():
            told = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
            console.print(f"{name}: {judge} gave no verdict on {sum(reasons.values())} texts ({told})", soft_wrap=True)
    for line in judge_notes(results.judges):
        console.print(line, markup=False, highlight=False)


def judge_notes(judges: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """How far the judges of a results.json may be off, in sentences, as far as it was measured."""
    return [f"{name}: {line}" for name, judge in judges.items() for line in judge.get("measured", {}).get("note", ())]


def headlines(benchmark: Benchmark) -> list[str]:
    """Names of the figures that a person looks at first; rates only where something happened."""
    shown = [
        name
        for name, metric in benchmark.figures.items()
        if not is_of_group(name) and (name.startswith(SCORES) or (name.startswith(RATES) and metric.value))
    ]
    return [benchmark.primary, *(name for name in shown if name != benchmark.primary)]


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def interval(metric: Metric | None) -> str:
    """`0.123 to 0.456`, or a dash where there is none."""
    if metric is None or metric.low is None or metric.high is None:
        return "-"
    return f"{metric.low:.3f} to {metric.high:.3f}"


def compared_figures(mine: Benchmark, base: Benchmark) -> list[str]:
    """The figures of a benchmark whose questions both hold, the primary one first; of over-refusal the safety of the unsafe
    prompts too."""
    return [mine.primary, *(name for name in mine.compared if name in base.compared)]


def difference(mine: Benchmark, base: Benchmark, figure: str, seed: int) -> Difference:
    """A figure of one evaluation less another's, paired by question. `seed`: of the bootstrap."""
    one, less = ({one.primary: one.questions, **one.compared}[figure] for one in (mine, base))
    return Difference.between(paired_difference(one, less, clusters=clusters_of(mine, base), seed=seed))


def incomparable(mine: Benchmark, base: Benchmark) -> str | None:
    """Why two evaluations of a benchmark cannot be compared; None where they can. Attacks and numbers of samples may differ: what
    an attack costs is such a difference."""
    for key in ("fingerprint", "num_questions"):
        if getattr(mine.data, key) != getattr(base.data, key):
            return f"other questions were asked (data {key}); evaluate both with the same data and evaluation.limit"
    return None if mine.primary == base.primary else f"one reports {mine.primary}, the other {base.primary}"


def direction(figure: str, value: float, low: float | None, high: float | None, p_value: float | None = None) -> str:
    """`better` or `worse` of a difference whose 95% interval excludes 0 and whose test, where it has one, finds it too (p below
    0.05): the interval of a handful of questions that all say the same has no width. Else `no clear difference`."""
    if low is None or high is None or low <= 0.0 <= high or (p_value is not None and p_value >= 0.05):
        return "no clear difference"
    return "better" if (value < 0) == lower_is_better(figure) else "worse"


def clusters_of(*benchmarks: Benchmark) -> Mapping[str, str]:
    """Question -> cluster, of those that share one."""
    return {question: name for one in benchmarks for question, name in one.clusters.items()}


def otherwise(mine: Evaluation, base: Evaluation) -> list[str]:
    """What was done otherwise, a line each: it may be what is compared, or a mistake."""
    told = (
        ("protocol", mine.protocol, base.protocol),
        # The primary figure is the first judge's.
        ("the first judge", *(next(iter(one.judges.items()), None) for one in (mine, base))),
    )
    found = [
        f"differ in {what}; still compared: the differences are of models and {what} together"
        for what, one, other in told
        if one != other
    ]
    consequences = {
        "samples": "each question by the mean of its samples",
        "attack": "the difference is of models and attack together",
    }
    for name in shared(mine, base):
        for what, consequence in consequences.items():
            one, other = (getattr(evaluation.benchmarks[name], what) for evaluation in (mine, base))
            if one != other:
                found.append(f"differ in {what} of {name}: {one} and {other}; still compared: {consequence}")
    return found


def shared(mine: Evaluation, base: Evaluation) -> list[str]:
    """The benchmarks that both hold."""
    return [name for name in mine.benchmarks if name in base.benchmarks]
