"""Two and more evaluations side by side: paired differences over the questions they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..errors import DataError
from ..results import Benchmark, Difference, Evaluation, Metric
from ..statistics import paired_difference
from ..terminal import print_whole
from .figures import lower_is_better
from .results import chance, interval, judge_notes, number


@dataclass(frozen=True)
class Row:
    """One figure of one evaluation beside the first one's."""

    benchmark: str
    figure: str
    better: Literal["higher", "lower"]
    """Which direction is."""
    evaluation: str
    metric: Metric | None
    difference: Difference | None
    """From the first evaluation, which has none itself."""


def check_comparable(names: Sequence[str], results: Sequence[Evaluation]) -> list[str]:
    """The benchmarks that all evaluations hold; raises DataError when there is none or their questions differ."""
    shared = [name for name in results[0].benchmarks if all(name in other.benchmarks for other in results[1:])]
    if not shared:
        raise DataError(f"{', '.join(names)}: have no benchmark in common")
    for name in shared:
        first, *others = (one.benchmarks[name] for one in results)
        for label, other in zip(names[1:], others, strict=True):
            for key in ("fingerprint", "num_questions"):
                if getattr(other.data, key) != getattr(first.data, key):
                    raise DataError(
                        f"{name}: {names[0]} and {label} asked other questions (data {key}); evaluate both with the same data "
                        "and evaluation.limit"
                    )
            if other.primary != first.primary:
                raise DataError(f"{name}: {names[0]} reports {first.primary}, {label} {other.primary}")
    return shared


def compare(names: Sequence[str], results: Sequence[Evaluation], console: Console) -> list[Row]:
    """Print and return, per shared benchmark, every evaluation's primary figure and its paired difference from the first; of
    over-refusal the safety of the unsafe prompts too.

    What else differs is said below the table.
    """
    shared = check_comparable(names, results)
    letters = [chr(ord("A") + i) if i < 26 else str(i) for i in range(len(names))]
    for letter, name in zip(letters, names, strict=True):
        console.print(f"{letter}: {name}")
    table = Table(title="paired differences from A", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("benchmark", ""):
        table.add_column(heading)
    for heading in ("value", "difference", "p", "n"):
        table.add_column(heading, justify="right")
    rows: list[Row] = []
    left_out = []
    for benchmark, compared in ((name, figure) for name in shared for figure in compared_figures(results, name)):
        base = results[0].benchmarks[benchmark]
        better: Literal["higher", "lower"] = "lower" if lower_is_better(compared) else "higher"
        for i, (letter, name, one) in enumerate(zip(letters, names, results, strict=True)):
            mine = one.benchmarks[benchmark]
            metric, difference = mine.figures.get(compared), None
            cells = [letter, f"{number(metric.value if metric else None)}\n{interval(metric)}"]
            if i:
                paired = paired_difference(
                    _questions(mine, compared),
                    _questions(base, compared),
                    clusters=clusters_of(mine, base),
                    seed=one.seed,
                )
                difference = Difference.between(paired)
                if paired.num_unmatched:
                    left_out.append(
                        f"{benchmark}: {paired.num_unmatched} questions with a value in A or {letter} alone left out"
                    )
                change = number(None) if difference.value is None else f"{difference.value:+.3f}"
                if verdict := _verdict(difference.value, better):
                    change = f"{change} {verdict}"
                cells += [f"{change}\n{interval(difference)}", chance(difference.p_value), str(difference.n)]
            rows.append(Row(benchmark, compared, better, name, metric, difference))
            table.add_row("" if i else f"{benchmark}\n{compared}\n{better} is better", *cells)
        table.add_section()
    print_whole(console, table)
    primary = {row.figure for row in rows}
    notes = dict.fromkeys(
        line
        for one in results
        for name, judge in one.judges.items()
        if any(f"/{name}/" in figure for figure in primary)
        for line in judge_notes({name: judge})
    )
    for line in [*left_out, *differences(shared, results), *notes]:
        console.print(line, markup=False, highlight=False)
    return rows


def compared_figures(results: Sequence[Evaluation], benchmark: str) -> list[str]:
    """The figures of a benchmark whose questions all evaluations hold, the primary one first."""
    first, *others = (one.benchmarks[benchmark] for one in results)
    return [first.primary, *(name for name in first.compared if all(name in other.compared for other in others))]


def clusters_of(*benchmarks: Benchmark) -> dict[str, str]:
    """Question -> cluster, of those that share one."""
    return {question: name for one in benchmarks for question, name in one.clusters.items()}


def _questions(benchmark: Benchmark, figure: str) -> Mapping[str, float]:
    return benchmark.questions if figure == benchmark.primary else benchmark.compared[figure]


def _verdict(difference: float | None, better: str) -> str:
    """`better` or `worse`; nothing where there is no difference."""
    if not difference:
        return ""
    return "better" if (difference < 0) == (better == "lower") else "worse"


def differences(shared: Sequence[str], results: Sequence[Evaluation]) -> list[str]:
    """What was done otherwise, a line each: it may be what is compared, or a mistake."""
    found = [
        f"the evaluations differ in {what}"
        for what, values in (
            ("protocol", [one.protocol for one in results]),
            ("the first judge", [next(iter(one.judges.items()), None) for one in results]),
        )
        if any(value != values[0] for value in values)
    ]
    for name in shared:
        for what in ("samples", "attack"):
            values = [getattr(one.benchmarks[name], what) for one in results]
            if any(value != values[0] for value in values):
                found.append(f"{name} differs in {what}: {', '.join(map(str, values))}")
    return found
