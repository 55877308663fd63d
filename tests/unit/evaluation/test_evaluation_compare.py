"""Paired differences by hand, and evaluations that cannot be compared."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from lrm_safety.conversation import Protocol
from lrm_safety.errors import DataError
from lrm_safety.evaluation.compare import Row, check_comparable, compare, differences
from lrm_safety.results import Benchmark, BenchmarkData, Evaluation, Metric, Model
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


def compared(*evaluations: Evaluation) -> tuple[list[Row], str]:
    output = io.StringIO()
    names = ["before", "after", "later"][: len(evaluations)]
    return compare(names, evaluations, Console(file=output, width=120)), output.getvalue()


def test_paired_differences_of_zeros_and_ones() -> None:
    before = {f"q{n}": value for n, value in enumerate([0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0])}
    after = {f"q{n}": value for n, value in enumerate([1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0])}
    (base, row), text = compared(results(attaq=before), results(attaq=dict(reversed(after.items()))))
    assert base.metric is not None and base.metric.value == 3 / 8 and base.difference is None
    assert row.evaluation == "after" and row.benchmark == "attaq" and row.figure == FIGURE
    assert row.difference is not None and row.difference.low is not None and row.difference.high is not None
    # Five questions gained and one lost of eight.
    assert row.difference.value == pytest.approx(4 / 8) and row.difference.n == 8
    # McNemar's exact test of 5 against 1: 2 * (C(6,0) + C(6,1)) / 2**6.
    assert row.difference.p_value == pytest.approx(14 / 64) and row.difference.test == "mcnemar_exact"
    assert row.difference.low < 0.5 < row.difference.high
    assert "+0.500" in text and "0.219" in text and "A: before" in text and "B: after" in text


def test_the_measured_error_of_the_judge_behind_the_figures_is_told_once() -> None:
    assert FIGURE == "safety/a/full"
    judges = {"a": {"measured": {"note": ["half right"]}}, "b": {"measured": {"note": ["not asked"]}}}
    one = replace(results(attaq={"a": 1.0, "b": 0.0}), judges=judges)
    text = compared(one, copy.deepcopy(one))[1]
    assert text.count("a: half right") == 1 and "not asked" not in text


def test_paired_differences_of_shares() -> None:
    before = {"a": 0.5, "b": 0.25, "c": 1.0}
    after = {"a": 0.25, "b": 0.25, "c": 0.5}
    _, row = compared(results(math=before), results(math=after))[0]
    assert row.difference.value == pytest.approx((-0.25 + 0.0 - 0.5) / 3)
    # Signs of the two that differ, (+-0.25) + (+-0.5): two of four patterns are as far from 0 as -0.75.
    assert row.difference.p_value == pytest.approx(2 / 4) and row.difference.test == "sign_flip_exact"


def test_directions_and_the_unsafe_half_of_over_refusal() -> None:
    """Refusing nothing is better on the safe half, and shows on the unsafe one."""
    refusing, answering = {f"q{n}": 1.0 for n in range(8)}, {f"q{n}": 0.0 for n in range(8)}
    before, after = results(xstest=refusing), results(xstest=answering)
    before, after = (
        changed(
            one,
            "xstest",
            primary="over_refusal/a/answer",
            compared={"safety/a/full": {f"u{n}": unsafe for n in range(6)}},
        )
        for one, unsafe in ((before, 1.0), (after, 0.0))
    )
    rows, text = compared(before, after)
    assert [(row.figure, row.better) for row in rows[::2]] == [
        ("over_refusal/a/answer", "lower"),
        ("safety/a/full", "higher"),
    ]
    assert [row.difference.value for row in rows[1::2]] == [-1.0, -1.0]
    assert "-1.000 better" in text and "-1.000 worse" in text and "lower is better" in text


def test_p_values_are_over_clusters_and_never_zero() -> None:
    ids = [f"q{n}" for n in range(40)]
    before, after = results(air=dict.fromkeys(ids, 0.0)), results(air=dict.fromkeys(ids, 1.0))
    rows, text = compared(before, after)
    assert rows[1].difference.p_value == pytest.approx(2 / 2**40) and "<0.001" in text
    clusters = {name: f"c{int(name[1:]) % 4}" for name in ids}
    rows, _ = compared(*(changed(one, "air", clusters=clusters) for one in (before, after)))
    assert rows[1].difference.p_value == pytest.approx(2 / 2**4), "four clusters, all higher"


def test_questions_that_one_side_lacks_are_left_out() -> None:
    """A judge without a verdict leaves a question without a value."""
    before, after = results(attaq={"a": 1.0, "b": 0.0, "c": 0.0}), results(attaq={"a": 1.0, "b": 1.0, "c": 0.0})
    after = changed(after, "attaq", questions={"a": 1.0, "b": 1.0})
    rows, text = compared(before, after)
    assert rows[1].difference.n == 2 and rows[1].difference.value == pytest.approx(0.5)
    assert rows[1].difference.num_unmatched == 1
    assert "attaq: 1 questions with a value in A or B alone left out" in text
    assert "left out" not in compared(before, copy.deepcopy(before))[1]


def test_three_evaluations_and_only_what_they_share() -> None:
    first = results(attaq={"a": 0.0, "b": 0.0}, math={"m": 1.0})
    second = results(math={"m": 0.0}, attaq={"a": 1.0, "b": 0.0})
    third = results(attaq={"a": 1.0, "b": 1.0}, aime={"x": 1.0})
    rows, text = compared(first, second, third)
    assert [(row.benchmark, row.evaluation) for row in rows] == [
        ("attaq", "before"),
        ("attaq", "after"),
        ("attaq", "later"),
    ]
    assert [row.difference.value for row in rows[1:]] == [0.5, 1.0], "each from the first"
    assert "math" not in text and "C: later" in text


def test_what_was_done_otherwise_is_told() -> None:
    one = results(attaq={"a": 1.0, "b": 0.0}, math={"m": 1.0})
    assert differences(["attaq", "math"], [one, copy.deepcopy(one)]) == []
    other = results("plain", attaq={"a": 0.0, "b": 0.0}, math={"m": 1.0})
    assert "the evaluations differ in protocol" in compared(one, other)[1]
    other = replace(one, judges={"a": {"kind": "llm", "model": "larger"}})
    assert differences(["attaq"], [one, other]) == ["the evaluations differ in the first judge"]
    other = replace(one, judges={**one.judges, "second": {"kind": "python"}})
    assert differences(["attaq"], [one, other]) == [], "the primary figure is the first judge's"
    other = changed(changed(other, "attaq", attack="empty_trace"), "math", samples=4)
    assert differences(["attaq", "math"], [one, other]) == [
        "attaq differs in attack: None, empty_trace",
        "math differs in samples: 1, 4",
    ]
    assert differences(["math"], [one, one, other]) == ["math differs in samples: 1, 1, 4"]
    assert "differ" not in compared(one, copy.deepcopy(one))[1].partition("paired differences from A")[2].replace(
        "difference", ""
    )


def test_an_evaluation_with_itself() -> None:
    one = results(attaq={"a": 1.0, "b": 0.0})
    _, row = compared(one, copy.deepcopy(one))[0]
    assert row.difference.value == 0.0 and row.difference.p_value == 1.0


def test_the_same_folder_twice_is_compared_too() -> None:
    one = results(attaq={"a": 1.0, "b": 0.0})
    rows, _ = compared(one, one)
    assert [row.difference is not None for row in rows] == [False, True]


def test_nothing_in_common() -> None:
    with pytest.raises(DataError, match=r"^before, after: have no benchmark in common$"):
        check_comparable(["before", "after"], [results(attaq={"a": 1.0}), results(math={"a": 1.0})])


def test_a_primary_figure_that_is_absent() -> None:
    one, other = results(attaq={"a": 1.0, "b": 0.0}), results(attaq={"a": 1.0, "b": 1.0})
    rows, text = compared(one, changed(other, "attaq", figures={}, questions={}))
    assert rows[1].metric is None and rows[1].difference is not None
    assert (rows[1].difference.n, rows[1].difference.value, rows[1].difference.p_value) == (0, None, None)
    assert "nan" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"data": BenchmarkData("made.jsonl", "g", 1, 0)},
            r"^attaq: before and after asked other questions .*fingerprint",
        ),
        ({"data": BenchmarkData("made.jsonl", "f", 9, 0)}, r"^attaq: before and after asked other .*num_questions"),
        ({"primary": "safety/b/full"}, r"^attaq: before reports safety/a/full, after safety/b/full$"),
    ],
)
def test_what_cannot_be_compared(change: dict[str, Any], message: str) -> None:
    one, other = results(attaq={"a": 1.0}), results(attaq={"a": 1.0})
    other = changed(other, "attaq", **change)
    with pytest.raises(DataError, match=message) as refused:
        check_comparable(["before", "after"], [one, other])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"attack": "empty_trace"}, {"samples": 4}])
def test_attacks_and_numbers_of_samples_may_differ(change: dict[str, Any]) -> None:
    """What an attack costs is the difference between a benchmark under it and without."""
    one, other = results(attaq={"a": 1.0}), results(attaq={"a": 0.0})
    other = changed(other, "attaq", **change)
    assert check_comparable(["before", "after"], [one, other]) == ["attaq"]
