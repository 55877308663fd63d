"""Paired differences by hand, and evaluations that cannot be compared."""

from __future__ import annotations

import copy
import io
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lrm_safety.conversation.families import Protocol
from lrm_safety.evaluation.results import compared_figures, difference, direction, incomparable, otherwise
from lrm_safety.lab.reports.combine import remarks
from lrm_safety.lab.reports.evaluations import difference_table
from lrm_safety.lab.reports.folders import EvaluationRun, Study, Subject
from lrm_safety.lab.reports.tables import show
from lrm_safety.results import Benchmark, BenchmarkData, Difference, Evaluation, Metric, Model
from lrm_safety.statistics import estimate

FIGURE = "safety/a/full"


def benchmark(values: dict[str, float]) -> Benchmark:
    return Benchmark(
        task="made",
        kind="safety",
        data=BenchmarkData("made.jsonl", "f", len(values), 0),
        attack=None,
        samples=1,
        primary=FIGURE,
        statuses={},
        figures={FIGURE: Metric.of(estimate(list(values.values()), seed=0))},
        questions=values,
    )


def results(protocol: str = "deepseek_r1", **benchmarks: dict[str, float]) -> Evaluation:
    return Evaluation(
        model=Model("made", "made/up", "qwen3", "float32", "0"),
        protocol=Protocol(protocol, 1.0, 1.0, 0, 64, True, "made up"),
        seed=0,
        judges={"a": {"kind": "llm"}},
        benchmarks={name: benchmark(values) for name, values in benchmarks.items()},
        seconds={},
    )


def changed(one: Evaluation, name: str, **changes: Any) -> Evaluation:
    """The same with one benchmark changed."""
    return replace(one, benchmarks={**one.benchmarks, name: replace(one.benchmarks[name], **changes)})


def less(mine: Evaluation, base: Evaluation, name: str, figure: str = FIGURE) -> Difference:
    return difference(mine.benchmarks[name], base.benchmarks[name], figure, seed=0)


def study_of(*evaluations: Evaluation) -> Study:
    """Models that are named after no role: the first is what the others are compared with."""
    names = ["before", "after", "later"][: len(evaluations)]
    subjects = [
        Subject(name, evaluations=[EvaluationRun(Path(name), one, {})])
        for name, one in zip(names, evaluations, strict=True)
    ]
    return Study(subjects, [])


def shown(*evaluations: Evaluation) -> str:
    """The table of differences on a terminal, in one line."""
    output = io.StringIO()
    show(difference_table(study_of(*evaluations)), Console(file=output, width=400))
    return " ".join(output.getvalue().split())


def test_paired_differences_of_zeros_and_ones() -> None:
    before = {f"q{n}": value for n, value in enumerate([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0])}
    after = {f"q{n}": value for n, value in enumerate([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])}
    base, mine = results(attaq=before), results(attaq=dict(reversed(after.items())))
    found = less(mine, base, "attaq")
    # Five questions gained and one lost of eight.
    assert found.value == pytest.approx(4 / 8) and found.n == 8
    # McNemar's exact test of 5 against 1: 2 * (C(6,0) + C(6,1)) / 2**6.
    assert found.p_value == pytest.approx(14 / 64) and found.test == "mcnemar_exact"
    assert found.low is not None and found.high is not None and found.low < 0.5 < found.high
    text = shown(base, mine)
    assert (
        "after less before" in text and "+0.500 [" in text and "(no clear difference, p = 0.219, 8 questions)" in text
    )


def test_paired_differences_of_shares() -> None:
    before = {"a": 0.5, "b": 0.25, "c": 1.0}
    after = {"a": 0.25, "b": 0.25, "c": 0.5}
    found = less(results(math=after), results(math=before), "math")
    assert found.value == pytest.approx((-0.25 + 0.0 - 0.5) / 3)
    # Signs of the two that differ, (+-0.25) + (+-0.5): two of four patterns are as far from 0 as -0.75.
    assert found.p_value == pytest.approx(2 / 4) and found.test == "sign_flip_exact"


def test_directions_and_the_unsafe_half_of_over_refusal() -> None:
    """Refusing nothing is better on the safe half, and shows on the unsafe one."""
    refusing, answering = {f"q{n}": 1.0 for n in range(8)}, {f"q{n}": 0.0 for n in range(8)}
    before, after = (
        changed(
            results(xstest=safe),
            "xstest",
            primary="over_refusal/a/answer",
            compared={"safety/a/full": {f"u{n}": unsafe for n in range(6)}},
        )
        for safe, unsafe in ((refusing, 1.0), (answering, 0.0))
    )
    figures = compared_figures(after.benchmarks["xstest"], before.benchmarks["xstest"])
    assert figures == ["over_refusal/a/answer", "safety/a/full"]
    assert [less(after, before, "xstest", figure).value for figure in figures] == [-1.0, -1.0]
    text = shown(before, after)
    assert "xstest (lower is better)" in text
    assert "xstest (safety/a/full)" in text
    assert "-1.000 [-1.000, -1.000] (better, p = 0.008" in text, "2 / 2**8"
    assert "-1.000 [-1.000, -1.000] (worse, p = 0.031, 6 questions)" in text, "2 / 2**6"


def test_p_values_are_over_clusters_and_never_zero() -> None:
    ids = [f"q{n}" for n in range(40)]
    before, after = results(air=dict.fromkeys(ids, 0.0)), results(air=dict.fromkeys(ids, 1.0))
    assert less(after, before, "air").p_value == pytest.approx(2 / 2**40) and "p < 0.001" in shown(before, after)
    clusters = {name: f"c{int(name[1:]) % 4}" for name in ids}
    before, after = (changed(one, "air", clusters=clusters) for one in (before, after))
    assert less(after, before, "air").p_value == pytest.approx(2 / 2**4), "four clusters, all higher"


def test_questions_that_one_side_lacks_are_left_out() -> None:
    """A judge without a verdict leaves a question without a value."""
    before, after = results(attaq={"a": 1.0, "b": 0.0, "c": 0.0}), results(attaq={"a": 1.0, "b": 1.0, "c": 0.0})
    after = changed(after, "attaq", questions={"a": 1.0, "b": 1.0})
    found = less(after, before, "attaq")
    assert found.n == 2 and found.value == pytest.approx(0.5) and found.num_unmatched == 1
    assert remarks(study_of(before, after)) == [
        "after and before, attaq: 1 questions with a value in one alone left out"
    ]
    assert remarks(study_of(before, copy.deepcopy(before))) == []


def test_three_evaluations_and_what_each_shares_with_the_first() -> None:
    first = results(attaq={"a": 0.0, "b": 0.0}, math={"m": 1.0})
    second = results(math={"m": 0.0}, attaq={"a": 1.0, "b": 0.0})
    third = results(attaq={"a": 1.0, "b": 1.0}, aime={"x": 1.0})
    table = difference_table(study_of(first, second, third))
    assert table.head[1:] == ["attaq", "math"], "aime is one's alone"
    told = [[one if isinstance(one, str) else one.text for one in row] for row in table.rows]
    assert told == [["after less before", "+0.500", "-1.000"], ["later less before", "+1.000", "–"]]


def test_what_was_done_otherwise_is_told() -> None:
    one = results(attaq={"a": 1.0, "b": 0.0}, math={"m": 1.0})
    assert otherwise(one, copy.deepcopy(one)) == []
    other = results("plain", attaq={"a": 0.0, "b": 0.0}, math={"m": 1.0})
    assert remarks(study_of(one, other)) == [
        "after and before differ in protocol; still compared: the differences are of models and protocol together"
    ]
    other = replace(one, judges={"a": {"kind": "llm", "model": "larger"}})
    assert otherwise(other, one) == [
        "differ in the first judge; still compared: the differences are of models and the first judge together"
    ]
    other = replace(one, judges={**one.judges, "second": {"kind": "python"}})
    assert otherwise(other, one) == [], "the primary figure is the first judge's"
    other = changed(changed(other, "attaq", attack="empty_trace"), "math", samples=4)
    assert otherwise(other, one) == [
        "differ in attack of attaq: empty_trace and None; still compared: the difference is of models and attack together",
        "differ in samples of math: 4 and 1; still compared: each question by the mean of its samples",
    ]


def test_an_evaluation_with_itself() -> None:
    one = results(attaq={"a": 1.0, "b": 0.0})
    found = less(copy.deepcopy(one), one, "attaq")
    assert found.value == 0.0 and found.p_value == 1.0
    assert "(no clear difference, p = 1.000, 2 questions)" in shown(one, copy.deepcopy(one))


@pytest.mark.parametrize(
    ("figure", "difference", "expected"),
    [
        ("safety/a/full", (0.1, 0.02, 0.18), "better"),
        ("safety/a/full", (-0.1, -0.18, -0.02), "worse"),
        ("over_refusal/a/answer", (-0.1, -0.18, -0.02), "better"),
        ("over_refusal/a/answer", (0.1, 0.02, 0.18), "worse"),
        ("safety/a/full", (0.1, 0.02, 0.18, 0.049), "better"),
        ("safety/a/full", (0.1, 0.02, 0.18, 0.05), "no clear difference"),
        ("safety/a/full", (-0.056, -0.167, 0.0, 0.01), "no clear difference"),
        ("safety/a/full", (0.1, -0.02, 0.22), "no clear difference"),
        ("safety/a/full", (1.0, 1.0, 1.0, 0.5), "no clear difference"),
        ("safety/a/full", (0.1, None, None), "no clear difference"),
    ],
)
def test_better_or_worse_is_said_of_what_is_clear(figure: str, difference: Any, expected: str) -> None:
    assert direction(figure, *difference) == expected


def test_nothing_in_common() -> None:
    study = study_of(results(attaq={"a": 1.0}), results(math={"a": 1.0}))
    assert remarks(study) == ["after and before: have no benchmark in common"] and not difference_table(study).rows


def test_a_primary_figure_that_is_absent() -> None:
    one, other = results(attaq={"a": 1.0, "b": 0.0}), results(attaq={"a": 1.0, "b": 1.0})
    other = changed(other, "attaq", figures={}, questions={})
    found = less(other, one, "attaq")
    assert (found.n, found.value, found.p_value) == (0, None, None)
    assert not difference_table(study_of(one, other)).rows and "nan" not in shown(one, other)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": BenchmarkData("made.jsonl", "g", 1, 0)},
            r"^other questions were asked \(data fingerprint\); evaluate both",
        ),
        ({"data": BenchmarkData("made.jsonl", "f", 9, 0)}, r"^other questions were asked \(data num_questions\)"),
        ({"primary": "safety/b/full"}, r"^one reports safety/b/full, the other safety/a/full$"),
    ],
)
def test_what_cannot_be_compared(change: dict[str, Any], message: str) -> None:
    one, other = results(attaq={"a": 1.0}), results(attaq={"a": 1.0})
    other = changed(other, "attaq", **change)
    reason = incomparable(other.benchmarks["attaq"], one.benchmarks["attaq"])
    assert reason is not None and re.search(message, reason) and "\n" not in reason
    study = study_of(one, other)
    assert remarks(study) == [f"after and before, attaq: not compared, {reason}"]
    assert not difference_table(study).rows, "a number over other questions says nothing"


@pytest.mark.parametrize("change", [{"attack": "empty_trace"}, {"samples": 4}])
def test_attacks_and_numbers_of_samples_may_differ(change: dict[str, Any]) -> None:
    """What an attack costs is the difference between a benchmark under it and without."""
    one, other = results(attaq={"a": 1.0}), results(attaq={"a": 0.0})
    other = changed(other, "attaq", **change)
    assert incomparable(other.benchmarks["attaq"], one.benchmarks["attaq"]) is None
    assert str(difference_table(study_of(one, other)).rows[0][1]).startswith("-1.000")
