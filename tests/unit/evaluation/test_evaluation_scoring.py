"""Views, grades and stored verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_evaluations import POLICY, Killed, plan_of, question, response, scored_of

from lrm_safety.conversation.families import get_family
from lrm_safety.conversation.response import ParsedResponse, ResponseParser
from lrm_safety.errors import DataError, JudgeError
from lrm_safety.evaluation.benchmarks.custom import GradedQuestion
from lrm_safety.evaluation.graders.math import MathGrader
from lrm_safety.evaluation.judges.judge import JudgeItem, Verdict, View
from lrm_safety.evaluation.plan import Ask, PlannedBenchmark
from lrm_safety.evaluation.responses import Generated
from lrm_safety.evaluation.scoring import Scored, VerdictStore, answered, grade, judge_batch, parse, views_of
from lrm_safety.modeling.configuration import load_tokenizer
from lrm_safety.settings import ModelSettings

VIEWS: tuple[View, ...] = ("trace", "answer", "full")


class CountingJudge:
    """Safety 1 for a text of even length, no verdict for `silence`; keeps what it was given."""

    name = "counting"

    def __init__(self, *, dies_at: int | None = None) -> None:
        self.calls: list[list[JudgeItem]] = []
        self._dies_at = dies_at

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        if len(self.calls) == self._dies_at:
            raise Killed
        self.calls.append(list(items))
        return [
            Verdict(None, "silent")
            if item.text == "silence"
            else Verdict(float(len(item.text) % 2 == 0), "said", {"n": 1.5})
            for item in items
        ]

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("one", "views", "counts"),
    [
        (
            response("complete", "why", "yes"),
            {"trace": "why", "answer": "yes", "full": "<think>\nwhy\n</think>\n\nyes"},
            True,
        ),
        (response("no_trace", "", "yes"), {"answer": "yes", "full": "yes"}, True),
        (response("unfinished_trace", "why"), {"trace": "why", "full": "<think>\nwhy"}, False),
        (response("unfinished_trace"), {}, False),
        (
            response("unfinished_answer", "why", "ye"),
            {"trace": "why", "answer": "ye", "full": "<think>\nwhy\n</think>\n\nye"},
            False,
        ),
        (response("empty_answer", "why"), {"trace": "why", "full": "<think>\nwhy"}, False),
        (response("empty_answer"), {}, False),
        (response("complete", "", "the " * 40), {"answer": "the " * 40, "full": "the " * 40}, False),
        (response("complete", "", "0" * 40), {"answer": "0" * 40, "full": "0" * 40}, False),
        (response("complete", "", "no, no, no"), {"answer": "no, no, no", "full": "no, no, no"}, True),
        (response("malformed", "why"), {"trace": "why", "full": "<think>\nwhy"}, False),
        (response("malformed", "", "a </think> b"), {"answer": "a </think> b", "full": "a </think> b"}, True),
        (
            replace(response("malformed", "", "a </think> b"), finished=False),
            {"answer": "a </think> b", "full": "a </think> b"},
            False,
        ),
    ],
)
def test_views_and_what_may_count_as_safe(one: ParsedResponse, views: dict[str, str], counts: bool) -> None:
    assert views_of(one) == views
    assert answered(one) is counts


def test_a_prefilled_beginning_is_part_of_the_response() -> None:
    tokenizer = load_tokenizer(ModelSettings(name="miniature", path=str(POLICY), family="miniature"))
    family = get_family("miniature")
    prefill = tokenizer.encode("Sure.\n", add_special_tokens=False)
    ids = [*tokenizer.encode("because.\n</think>\n\nyes.", add_special_tokens=False), tokenizer.eos_token_id]
    bare = plan_of([question("a")])
    ask = Ask(bare.asks[0].question, 0, "", "", np.zeros(1, np.int32), np.asarray(prefill, np.int32), 0)
    planned = PlannedBenchmark(bare.name, bare.benchmark, bare.questions, 1, "compliant_trace", (ask,), 0)
    generated = Generated(np.asarray(ids, np.int32), np.zeros(len(ids), np.float32), "stop")
    (one,) = parse(planned, [generated], ResponseParser(family, tokenizer))
    assert one.response.trace == "Sure.\nbecause." and one.response.answer == "yes."
    assert one.num_tokens == len(ids), "forced tokens are not generated ones"
    assert one.response.num_trace_tokens + one.response.num_answer_tokens == len(prefill) + len(ids)
    cut = Generated(generated.ids[:3], generated.logprobs[:3], "length")
    (one,) = parse(planned, [cut], ResponseParser(family, tokenizer))
    assert one.response.status == "unfinished_trace" and not one.answered


def test_grading_by_kind() -> None:
    boxed = response("complete", "\\boxed{1}", "it is \\boxed{\\frac{1}{2}}")
    items = [
        (question("a"), boxed, "0.5"),
        (question("b"), boxed, "\\frac{1}{3}"),
        (question("c"), response("unfinished_trace", "\\boxed{0.5}"), "0.5"),
        (question("d"), response("unfinished_answer", "t", "\\boxed{0.5}"), "0.5"),
        (question("e"), response("complete", "t", "I do not know"), "0.5"),
    ]
    with MathGrader() as grader:
        found = grade("math", items, grader)
        assert [one.outcome for one in found] == ["correct", "wrong", "unfinished", "unfinished", "no_answer"]
        assert [float(one.correct) for one in found] == [1, 0, 0, 0, 0]
        integers = [
            (question("a"), response("complete", "t", f"\\boxed{{{text}}}"), "025") for text in ("25", "025", "25.5")
        ]
        assert [one.outcome for one in grade("integer", integers, grader)] == ["correct", "correct", "wrong"]
        letters = [(question("a"), response("complete", "t", f"\\boxed{{{text}}}"), "B") for text in ("B", "C", "x")]
        assert [one.outcome for one in grade("choice", letters, grader)] == ["correct", "wrong", "no_answer"]


def test_own_graders_see_the_row_and_the_response() -> None:
    seen: list[Any] = []

    def grader(row: dict[str, Any], trace: str, answer: str, finished: bool) -> float:
        seen.append((row, trace, answer, finished))
        return row["worth"]

    def asked(worth: float) -> GradedQuestion:
        return GradedQuestion("q", "p", "r", row={"worth": worth}, grader=grader)

    complete, cut = response("complete", "t", "a"), response("unfinished_answer", "t", "a")
    items = [(asked(1.0), complete, ""), (asked(0.25), complete, ""), (asked(0.0), complete, ""), (asked(0.0), cut, "")]
    found = grade("own", items, MathGrader())
    assert [(one.correct, one.outcome) for one in found] == [
        (1, "correct"),
        (0.25, "wrong"),
        (0, "wrong"),
        (0, "unfinished"),
    ]
    assert seen[0] == ({"worth": 1.0}, "t", "a", True) and seen[3][3] is False


def failing(row: dict[str, Any], trace: str, answer: str, finished: bool) -> Any:
    return 1 / row["worth"] if isinstance(row["worth"], int) else row["worth"]


@pytest.mark.parametrize(
    ("worth", "told"),
    [
        (0, "raised ZeroDivisionError: division by zero"),
        (None, "returned None; must be a finite number"),
        (float("nan"), "returned nan; must be a finite number"),
        (float("inf"), "returned inf; must be a finite number"),
        ("good", "returned 'good'; must be a finite number"),
    ],
)
def test_a_grader_that_fails_is_told_with_its_question(worth: Any, told: str) -> None:
    asked = GradedQuestion("q7", "p", "r", row={"worth": worth}, grader=failing)
    with pytest.raises(JudgeError) as refused:
        grade("own", [(asked, response("complete", "t", "a"), "")], MathGrader())
    message = str(refused.value)
    assert message.startswith(f"grader {__name__}:failing, question q7: {told}") and "\n" not in message


def test_each_view_is_judged_once_and_blank_ones_never() -> None:
    planned = plan_of([question("a", category="1.2"), question("b"), question("c"), question("d")])
    scored = scored_of(
        planned,
        [
            response("complete", "why", "yes!"),
            response("unfinished_trace"),
            response("no_trace", "", "silence"),
            response("empty_answer", "hm"),
        ],
    )
    judge = CountingJudge()
    found = judge_batch(scored, judge, ["answer", "trace"])
    assert judge.calls == [
        [
            JudgeItem("request a", "yes!", "answer", "1.2"),
            JudgeItem("request a", "why", "trace", "1.2"),
            JudgeItem("request c", "silence", "answer"),
            JudgeItem("request d", "hm", "trace"),
        ]
    ]
    safety = [{view: verdict.safety for view, verdict in one.items()} for one in found]
    assert safety == [{"answer": 1.0, "trace": 0.0}, {}, {"answer": None}, {"trace": 1.0}]


def test_a_judge_is_not_called_without_anything_to_read() -> None:
    scored = scored_of(plan_of([question("a")]), [response("unfinished_trace")])
    judge = CountingJudge()
    assert judge_batch(scored, judge, VIEWS) == [{}] and judge.calls == []


def five() -> tuple[PlannedBenchmark, list[Scored]]:
    planned = plan_of([question(name) for name in "abcde"])
    texts = ["one", "four", "silence", "", "seven"]
    return planned, scored_of(
        planned, [response("complete", "t", text) if text else response("unfinished_trace") for text in texts]
    )


def store_at(folder: Path, **configuration: Any) -> VerdictStore:
    return VerdictStore(folder, "counting", {"kind": "python", **configuration}, ["answer"], 2)


def judged(folder: Path, judge: CountingJudge) -> int:
    planned, scored = five()
    store = store_at(folder)
    store.open(planned)
    steps: list[None] = []
    store.complete(planned, scored, judge, lambda: steps.append(None))
    return len(steps)


def verdicts_of(folder: Path) -> list[Verdict | None]:
    planned, scored = five()
    store_at(folder).read(planned, scored)
    return [one.verdicts["counting"].get("answer") for one in scored]


def test_verdicts_come_back_as_they_were_given(tmp_path: Path) -> None:
    planned, scored = five()
    assert judged(tmp_path, CountingJudge()) == 4, "one response has no answer"
    store_at(tmp_path).read(planned, scored)
    found = [one.verdicts["counting"].get("answer") for one in scored]
    assert found[0] == Verdict(0.0, "said", {"n": 1.5}) and found[1] == Verdict(1.0, "said", {"n": 1.5})
    assert found[2] == Verdict(None, "silent") and found[3] is None and found[4] == Verdict(0.0, "said", {"n": 1.5})


@pytest.mark.parametrize(("dies_at", "missing"), [(0, 4), (1, 2), (2, 2)])
def test_a_killed_judge_goes_on_where_it_stopped(tmp_path: Path, dies_at: int, missing: int) -> None:
    """Of five responses one has no answer to judge, and `silence` is asked about at every start."""
    judged(tmp_path / "whole", CountingJudge())
    with pytest.raises(Killed):
        judged(tmp_path / "killed", CountingJudge(dies_at=dies_at))
    planned, scored = five()
    assert store_at(tmp_path / "killed").num_missing(planned, scored) == missing
    again = CountingJudge()
    assert judged(tmp_path / "killed", again) == missing
    assert sum(len(call) for call in again.calls) == missing
    assert verdicts_of(tmp_path / "killed") == verdicts_of(tmp_path / "whole")


def test_what_has_a_verdict_is_never_judged_again_and_what_has_none_is(tmp_path: Path) -> None:
    judged(tmp_path, CountingJudge())
    judge = CountingJudge()
    assert judged(tmp_path, judge) == 1
    assert [[item.text for item in call] for call in judge.calls] == [["silence"]]


def test_a_verdict_that_comes_late_counts(tmp_path: Path) -> None:
    class Speaking(CountingJudge):
        def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
            return [Verdict(0.5, "at last") for _ in items]

    judged(tmp_path, CountingJudge())
    judged(tmp_path, Speaking())
    assert verdicts_of(tmp_path)[2] == Verdict(0.5, "at last")
    assert judged(tmp_path, CountingJudge()) == 0


def test_a_text_that_is_too_long_for_the_judge_is_not_asked_about_again(tmp_path: Path) -> None:
    class Short(CountingJudge):
        def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
            return [Verdict(None, "unread") for _ in items]

    judged(tmp_path, Short())
    assert judged(tmp_path, CountingJudge()) == 0


def test_a_judge_that_speaks_verdict_by_verdict_loses_none(tmp_path: Path) -> None:
    told: list[bool] = []

    class OneByOne(CountingJudge):
        def judge_each(self, items: Sequence[JudgeItem], *, proven: bool = False) -> Any:
            told.append(proven)
            for position in reversed(range(len(items))):
                if items[position].text == "four":
                    raise Killed
                yield position, Verdict(1.0, "said")

    planned, scored = five()
    with pytest.raises(Killed):
        judged(tmp_path, OneByOne())
    held = store_at(tmp_path)._held(planned)
    assert len(held) == 2, "the last two texts were read before the judge died"
    assert store_at(tmp_path).num_missing(planned, scored) == 2
    with pytest.raises(Killed):
        judged(tmp_path, OneByOne())
    assert told == [False, True]


def test_a_text_that_comes_twice_is_read_once(tmp_path: Path) -> None:
    planned = plan_of([question("a")], samples=3)
    scored = scored_of(planned, [response("complete", "t", text) for text in ("same", "same", "other")])
    store, judge = VerdictStore(tmp_path, "counting", {}, ["answer"], 3), CountingJudge()
    store.open(planned)
    steps: list[None] = []
    store.complete(planned, scored, judge, lambda: steps.append(None))
    assert sorted(item.text for call in judge.calls for item in call) == ["other", "same"]
    assert len(steps) == 3
    store.read(planned, scored)
    assert [one.verdicts["counting"]["answer"].safety for one in scored] == [1.0, 1.0, 0.0]


def test_verdicts_of_other_responses_are_missing(tmp_path: Path) -> None:
    """The last three were generated again and came out otherwise."""
    judged(tmp_path, CountingJudge())
    planned, scored = five()
    cut = response("unfinished_trace")
    again = scored_of(planned, [one.response for one in scored[:2]] + [response("complete", "t", "six")] + [cut] * 2)
    store, judge = store_at(tmp_path), CountingJudge()
    store.open(planned)
    assert store.num_missing(planned, again) == 1
    store.complete(planned, again, judge, lambda: None)
    assert [[item.text for item in call] for call in judge.calls] == [["six"]]
    store.read(planned, again)
    assert again[0].verdicts["counting"]["answer"].safety == 0.0 and again[4].verdicts["counting"] == {}
    assert again[2].verdicts["counting"]["answer"] == Verdict(0.0, "said", {"n": 1.5})


def test_verdicts_of_another_configuration_are_refused(tmp_path: Path) -> None:
    judged(tmp_path, CountingJudge())
    planned, _ = five()
    with pytest.raises(DataError) as refused:
        store_at(tmp_path, threshold=2).open(planned)
    message = str(refused.value)
    assert message.startswith(f"{tmp_path / 'made' / 'verdicts-counting'} holds verdicts of another configuration")
    assert "evaluation.judges.counting" in message and "\n" not in message


@pytest.mark.parametrize(
    "line",
    [
        "",
        '{"item": "a"',
        "[]",
        "1",
        '{"item": "a"}',
        '{"safety": 1.0, "label": "said"}',
        '{"item": "a", "safe": 1, "label": "said"}',
        '{"item": "a", "safety": 7, "label": "said"}',
        '{"item": "a", "safety": "high", "label": "said"}',
    ],
)
def test_a_damaged_line_of_verdicts_is_named(tmp_path: Path, line: str) -> None:
    judged(tmp_path, CountingJudge())
    planned, scored = five()
    path = tmp_path / "made" / "verdicts-counting" / "verdicts.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(DataError, match=r"verdicts\.jsonl, line 2: cannot be read.*; delete the line") as refused:
        store_at(tmp_path).read(planned, scored)
    assert "\n" not in str(refused.value)
    path.write_text("\n".join([lines[0], *lines[2:]]) + "\n")
    assert judged(tmp_path, CountingJudge()) == 2


@pytest.mark.parametrize(("kept", "num_judged"), [(0, 2), (1, 2), (40, 2), (-1, 1)])
def test_a_line_that_a_kill_tore_is_judged_again(tmp_path: Path, kept: int, num_judged: int) -> None:
    """One that lacks its line break alone is whole. The text without a verdict is asked about again each time."""
    judged(tmp_path, CountingJudge())
    expected = verdicts_of(tmp_path)
    path = tmp_path / "made" / "verdicts-counting" / "verdicts.jsonl"
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:kept])
    assert judged(tmp_path, CountingJudge()) == num_judged and verdicts_of(tmp_path) == expected


def test_two_judges_keep_apart(tmp_path: Path) -> None:
    planned, scored = five()
    judged(tmp_path, CountingJudge())
    other = VerdictStore(tmp_path, "other", {"kind": "llm"}, ["full"], 2)
    other.open(planned)
    other.complete(planned, scored, CountingJudge(), lambda: None)
    store_at(tmp_path).read(planned, scored)
    other.read(planned, scored)
    assert set(scored[0].verdicts) == {"counting", "other"} and set(scored[0].verdicts["other"]) == {"full"}
    assert json.loads((tmp_path / "made" / "verdicts-other" / "identity.json").read_text()) == {"kind": "llm"}
