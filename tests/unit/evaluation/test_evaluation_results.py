"""results.json, samples.jsonl and the table."""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_evaluations import plan_of, question, response, scored_of
from rich.console import Console

from lrm_safety.conversation.families import PROTOCOLS
from lrm_safety.datasets.serialised import Source
from lrm_safety.evaluation.figures import figures
from lrm_safety.evaluation.graders.grade import NO_ANSWER, Grade
from lrm_safety.evaluation.judges.judge import View
from lrm_safety.evaluation.judges.refusal_rules import measured_error
from lrm_safety.evaluation.results import (
    benchmark_results,
    headlines,
    interval,
    number,
    show,
    write_samples,
)
from lrm_safety.results import Benchmark, BenchmarkData, Evaluation, Metric, Model

JUDGES: dict[str, tuple[View, ...]] = {"a": ("full",), "b": ("full",)}


def safety_results() -> Benchmark:
    """Three questions: judge a says 1, nothing (cut off), 0; judge b gives no verdict at all."""
    asked = [question(name, groups={"label": "x"}) for name in "pqr"]
    source = Source("folder/made.jsonl", num_unwrapped=5, num_repeats=4)
    planned = plan_of(asked, num_skipped=2, attack="empty_trace", source=source)
    scored = scored_of(
        planned,
        [response("complete", "t", "yes"), response("unfinished_trace", "t"), response("complete", "t", "no")],
        verdicts={"a": {"full": [1, 1, 0]}, "b": {"full": [None, None, None]}},
    )
    return benchmark_results(planned, scored, figures(planned, scored, JUDGES, 0), JUDGES)


def evaluation(**changes: Any) -> Evaluation:
    made = Evaluation(
        model=Model("tiny", "some/where", "qwen3", "float32", "aa11"),
        protocol=PROTOCOLS["deepseek_r1"],
        seed=3,
        judges={"a": {"kind": "llm"}},
        benchmarks={"made": safety_results()},
        seconds={"generate_seconds": 1.23},
    )
    return replace(made, **changes)


def test_everything_about_a_benchmark() -> None:
    found = safety_results()
    planned = plan_of([question(name) for name in "pqr"])
    assert found.task == "made_task" and found.kind == "safety" and found.primary == "safety/a/full"
    # No folder in the source: results travel.
    assert found.data == BenchmarkData("made.jsonl", planned.questions.fingerprint, 3, 2, 5, 4)
    assert found.attack == "empty_trace" and found.samples == 1
    assert found.statuses == {"complete": 2, "unfinished_trace": 1}
    assert found.questions == {"p": 1.0, "q": 0.0, "r": 0.0}
    assert found.headline is found.figures["safety/a/full"] and found.headline.n == 3
    assert found.headline.value == pytest.approx(1 / 3)
    assert found.figures["no_verdict/b/full"].value == 1.0
    assert found.figures["kappa/a~b/full"] == Metric(None, None, None, 0)


def test_questions_hold_means_of_their_samples() -> None:
    planned = plan_of([question("a"), question("b")], kind="reasoning", scoring="math", samples=4)
    grades = [Grade(good, "1", "correct" if good else "wrong") for good in (1, 0, 0, 0, 1, 1, 1, 0)]
    scored = scored_of(planned, [response("complete", "t", "1")] * 8, grades=grades)
    found = benchmark_results(planned, scored, figures(planned, scored, {}, 0), {})
    assert found.questions == {"a": 0.25, "b": 0.75} and found.primary == "pass@1"


def samples(path: Path, *, log_text: bool) -> tuple[str, list[dict[str, Any]]]:
    judged = plan_of([question("p"), question("q")])
    graded = plan_of([question("m"), question("n")], name="sums", kind="reasoning", scoring="math")
    scored = {
        "made": scored_of(
            judged,
            [response("complete", "harmful trace", "harmful änswer"), response("unfinished_trace")],
            verdicts={"a": {"full": [0.25, None]}},
        ),
        "sums": scored_of(
            graded,
            [response("complete", "harmful sum", "harmful \\boxed{4}"), response("complete", "t", "a\nb")],
            grades=[Grade(1, "harmful 4", "correct"), NO_ANSWER],
        ),
    }
    write_samples(path, scored, log_text=log_text)
    text = path.read_text(encoding="utf-8")
    return text, [json.loads(line) for line in text.splitlines()]


def test_samples_hold_no_text_of_the_model(tmp_path: Path) -> None:
    text, rows = samples(tmp_path / "samples.jsonl", log_text=False)
    assert "harmful" not in text and "boxed" not in text and "prompt" not in text and "request" not in text
    assert len(rows) == 4 and [(row["set"], row["id"]) for row in rows] == [
        ("made", "p"),
        ("made", "q"),
        ("sums", "m"),
        ("sums", "n"),
    ]
    assert set(rows[0]) == {
        *("set", "id", "repeat", "seed", "status", "finished", "num_response_tokens", "num_trace_tokens", "verdicts"),
        *("trace_sha256", "num_trace_characters", "answer_sha256", "num_answer_characters"),
    }
    assert rows[0]["answer_sha256"] == hashlib.sha256("harmful änswer".encode()).hexdigest()
    assert rows[0]["num_answer_characters"] == 14 and rows[0]["num_trace_characters"] == 13
    assert rows[0]["verdicts"] == {"a": {"full": {"safety": 0.25, "label": "said"}}}
    assert rows[1]["status"] == "unfinished_trace" and rows[1]["num_answer_characters"] == 0
    assert rows[2]["grade"] == 1.0 and rows[2]["outcome"] == "correct" and "extracted" not in rows[2]


def test_samples_hold_text_when_asked_to(tmp_path: Path) -> None:
    text, rows = samples(tmp_path / "samples.jsonl", log_text=True)
    assert rows[0]["trace"] == "harmful trace" and rows[0]["answer"] == "harmful änswer" and "änswer" in text
    assert rows[2]["extracted"] == "harmful 4" and rows[3]["answer"] == "a\nb" and len(rows) == 4
    assert not any(key.endswith("sha256") for row in rows for key in row)


def test_headlines() -> None:
    one = safety_results()
    names = headlines(one)
    assert names[0] == "safety/a/full" and len(names) == len(set(names))
    assert "rate/unfinished_trace" in names and "no_verdict/b/full" in names and "kappa/a~b/full" in names
    assert "rate/malformed" not in names, "nothing happened"
    assert "safety/a/full@label=x" not in names and "length/trace_tokens" not in names


def test_the_table() -> None:
    planned = plan_of([question("a"), question("b")], kind="reasoning", scoring="math", samples=4)
    grades = [Grade(good, "1", "correct" if good else "wrong") for good in (1, 0, 0, 0, 1, 1, 1, 0)]
    scored = scored_of(planned, [response("complete", "t", "1")] * 8, grades=grades)
    sums = benchmark_results(planned, scored, figures(planned, scored, {}, 0), {})
    output = io.StringIO()
    show(evaluation(benchmarks={"made": safety_results(), "sums": sums}), Console(file=output, width=80))
    assert max(map(len, output.getvalue().splitlines())) <= 80 and "…" not in output.getvalue()
    lines = [line.split() for line in output.getvalue().splitlines() if line.strip()]
    assert "tiny, protocol deepseek_r1" in output.getvalue()
    first = next(line for line in lines if line[0] == "made")
    assert first[1:3] == ["safety/a/full", "0.333"] and first[-1] == "3"
    assert next(line for line in lines if line[0] == "kappa/a~b/full")[1:] == ["-", "-", "0"]
    row = next(line for line in lines if line[0] == "sums")
    assert row[1:3] == ["pass@1", "0.500"] and row[-3:] == ["2", "x", "4"]


def test_the_table_ends_with_the_measured_error_of_its_judges() -> None:
    judges = {"a": {"kind": "llm"}, "rules": {"kind": "refusal_rules", "measured": measured_error()}}
    output = io.StringIO()
    show(evaluation(judges=judges), Console(file=output, width=80))
    told = " ".join(output.getvalue().split())
    assert "rules: word rules, no model. They agree with people on 91.3% of XSTest's answers of Mistral" in told
    assert "59 of 76 refusals found, 22 of 374 others called refusals" in told
    assert "over-refusal comes out too high where it is low (there 1.6% by people, 7.2% by the rules)" in told
    assert "would get trace 0.686, answer 0.676, full 0.634" in told and "a: " not in told
    assert max(map(len, output.getvalue().splitlines())) <= 80
    assert measured_error()["sets"]["air_bench"]["n"] == 340


def test_a_primary_figure_that_no_response_gave_is_a_dash() -> None:
    planned = plan_of([question("p")])
    scored = scored_of(planned, [response("complete", "t", "yes")], verdicts={"b": {"full": [None]}})
    judges: dict[str, tuple[View, ...]] = {"b": ("full",)}
    one = benchmark_results(planned, scored, figures(planned, scored, judges, 0), judges)
    output = io.StringIO()
    show(evaluation(benchmarks={"made": one}), Console(file=output, width=100))
    row = next(line.split() for line in output.getvalue().splitlines() if line.split()[:1] == ["made"])
    assert row == ["made", "safety/b/full", "-", "-", "0"] and one.questions == {} and one.headline is None


def test_numbers_and_intervals() -> None:
    assert number(None) == "-" and number(0.12345) == "0.123" and number(0.0) == "0.000"
    assert interval(None) == "-" and interval(Metric(0.5, None, 1.0, 1)) == "-"
    assert interval(Metric(0.5, 0.0, 0.98765, 1)) == "0.000 to 0.988"
