import json
import random
import threading
import time
from collections import Counter

import pytest

from lrm_safety.conversation.response import ParsedResponse
from lrm_safety.errors import DataError, JudgeError
from lrm_safety.evaluation.graders.grade import last_box, stated_answer
from lrm_safety.evaluation.graders.math import MathGrader, MathItem
from lrm_safety.evaluation.graders.normal_form import exact_number, normal_form, vote_key


def response(answer: str, **changes) -> ParsedResponse:
    fields = {"trace": r"\boxed{5} answer is 5", "status": "complete", "finished": True}
    return ParsedResponse(answer=answer, num_trace_tokens=5, num_answer_tokens=5, **(fields | changes))


@pytest.fixture(scope="module")
def grader():
    with MathGrader(timeout_seconds=1.0) as grader:
        yield grader


@pytest.fixture
def rows_of(data_root):
    def read(*parts: str) -> list[dict]:
        return [json.loads(line) for line in data_root.joinpath(*parts).read_text(encoding="utf-8").splitlines()]

    return read


def test_math500_golds_are_all_right_in_time(rows_of):
    rows = rows_of("math500", "test.jsonl")
    start = time.perf_counter()
    with MathGrader() as grader:
        boxed = grader.grade_many(
            MathItem(response(rf"So $\boxed{{{row['answer']}}}$."), row["answer"]) for row in rows
        )
        solutions = grader.grade_many(MathItem(response(row["solution"]), row["answer"]) for row in rows)
    assert time.perf_counter() - start < 10
    assert len(rows) == 500
    assert [row["unique_id"] for row, grade in zip(rows, boxed, strict=True) if not grade.correct] == []
    assert [row["unique_id"] for row, grade in zip(rows, solutions, strict=True) if not grade.correct] == []


def test_math500_golds_stay_right_when_only_algebra_decides(monkeypatch, rows_of):
    rows = rows_of("math500", "test.jsonl")
    monkeypatch.setattr("lrm_safety.evaluation.graders.math.compare_simply", lambda answer, gold: None)
    start = time.perf_counter()
    with MathGrader() as grader:
        grades = [grader.grade(response(rf"\boxed{{\boxed{{{row['answer']}}}}}"), row["answer"]) for row in rows]
    assert time.perf_counter() - start < 20
    wrong = {row["answer"] for row, grade in zip(rows, grades, strict=True) if not grade.correct}
    assert wrong == set()


def test_math500_shuffled_golds_are_at_chance(rows_of):
    answers = [row["answer"] for row in rows_of("math500", "test.jsonl")]
    # Independent of the grader: two golds collide when they are spelled alike but for \dfrac and spaces.
    counts = Counter(answer.replace("dfrac", "frac").replace(" ", "") for answer in answers)
    expected = sum(count * (count - 1) for count in counts.values()) / (len(answers) - 1)
    num_shuffles, num_right = 2, 0
    with MathGrader() as grader:
        for seed in range(num_shuffles):
            shuffled = random.Random(seed).sample(answers, len(answers))
            num_right += sum(
                grader.grade(response(rf"\boxed{{{answer}}}"), gold).correct
                for answer, gold in zip(answers, shuffled, strict=True)
            )
    # Collisions are rare and nearly independent: Poisson, four standard deviations.
    total = expected * num_shuffles
    assert 0.005 < expected / len(answers) < 0.01
    assert abs(num_right - total) < 4 * total**0.5, (num_right, total)


def test_aime_gold_solutions_are_all_right(grader, rows_of):
    aime24, aime25 = rows_of("aime", "aime24.jsonl"), rows_of("aime", "aime25.jsonl")
    golds24 = [row["answer"] for row in aime24]
    golds25 = [row["solution"].removeprefix(r"\boxed{").removesuffix("}") for row in aime25]
    assert len(golds24) == len(golds25) == 30
    for rows, golds in ((aime24, golds24), (aime25, golds25)):
        assert all(
            grader.grade(response(row["solution"]), gold, integer=True).correct
            for row, gold in zip(rows, golds, strict=True)
        )
        shifted = golds[1:] + golds[:1]
        assert not any(
            grader.grade(response(rf"\boxed{{{a}}}"), b, integer=True).correct
            for a, b in zip(golds, shifted, strict=True)
        )


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("33", "033", True),
        ("033", "33", True),
        ("000", "0", True),
        ("33.0", "33", True),
        (r"\textbf{(033) }", "33", True),
        ("m+n = 033", "33", True),
        (r"25 + 8 = 33", "033", True),
        ("330", "33", False),
        ("3", "033", False),
        ("-33", "33", False),
        (r"\frac{33}{2}", "33", False),
        ("33.5", "33", False),
        (r"2^{5}", "32", False),
        ("n = 32 = m", "32", False),
    ],
)
def test_integers_with_and_without_leading_zeros(grader, answer, gold, right):
    assert grader.grade(response(rf"\boxed{{{answer}}}"), gold, integer=True).correct is right


def test_gold_of_an_integer_benchmark_must_be_an_integer(grader):
    with pytest.raises(DataError, match="no integer"):
        grader.grade(response(r"\boxed{5}"), "x+1", integer=True)
    with pytest.raises(DataError, match="blank gold"):
        grader.grade(response(r"\boxed{5}"), "  ")


@pytest.mark.parametrize(
    "changes",
    [{"finished": False}, {"status": "unfinished_answer"}, {"status": "unfinished_trace"}],
)
def test_unfinished_is_wrong_and_apart(grader, changes):
    grade = grader.grade(response(r"\boxed{5}", **changes), "5")
    assert (grade.correct, grade.extracted, grade.outcome) == (False, "", "unfinished")


@pytest.mark.parametrize(
    "answer", ["", "I do not know.", r"\boxed{}", r"\boxed{ }", r"\boxed{\text{ }}", "There are 5 cases."]
)
def test_no_answer_and_the_trace_is_never_read(grader, answer):
    assert grader.grade(response(answer), "5").outcome == "no_answer"


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{5}", "5"),
        (r"a \boxed{4} b \boxed{5} c", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "{5}"),
        (r"\boxed{x = \boxed{5}, 6}", "x = {5}, 6"),
        (r"\boxed{5} and \boxed{\frac{1}{2}", "5"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\{1, 2}", r"\{1, 2"),
        (r"\boxed{\left\{1\right.}", r"\left\{1\right."),
        (r"\boxed {5}", "5"),
        (r"\fbox{5}", "5"),
        (r"\boxed 5.", "5"),
        (r"\boxed{5", None),
        ("5", None),
    ],
)
def test_last_balanced_box(text, content):
    assert last_box(text) == content


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("The answer is 5.", "5"),
        ("**Answer:** 5", "5"),
        ("Final answer: $\\frac12$. I hope it is correct.", r"\frac12"),
        ("The answer is 4. Wait.\nThe answer is \\(5\\) metres.", "5"),
        ("The answer is 2.5. Good.", "2.5"),
        ("42", "42"),
        ("$x + 1$", "x + 1"),
        ("It takes $3+2$ hours, so $180 + 24 = 204$.", "204"),
        ("It takes $3+2 = 5$ hours, but there may well be other ways to see it.", None),
        ("There are 7", None),
        ("First 7.\nThen 8.", None),
        ("", None),
    ],
)
def test_answers_stated_without_a_box(text, content):
    assert stated_answer(text) == content


HOSTILE = [
    (r"9^{9^{9^9}}", "5"),
    (r"(10^{7})!", "5"),
    (r"(x+1)^{100000}", "x^2+1"),
    (r"\binom{10^9}{10^8}", "7x"),
    ("(" * 900 + "x" + ")" * 900, "2x"),
    (r"\frac{1}{" * 200 + "x" + "}" * 200, "2x"),
    ("{" * 50 + "}" * 50, "5"),
    (r"\frac{1}{0}", "5"),
    ("1" * 1990, "5"),
    ("9" * 100_000, "5"),
    (r"\boxed{" * 20_000, "5"),
    ("\x00\ud800", "5x"),
    ('"; import os', "5x"),
]


@pytest.mark.parametrize(("answer", "gold"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_answers_end(grader, answer, gold):
    start = time.perf_counter()
    grade = grader.grade(response(rf"\boxed{{{answer}}}"), gold)
    assert not grade.correct and grade.outcome in ("wrong", "timeout", "no_answer")
    assert time.perf_counter() - start < 20
    # The next answer is graded as if nothing had happened.
    assert grader.grade(response(r"\boxed{1+x}"), "x+1").correct


def test_time_limit_holds_in_threads_and_ends_as_timeout():
    with MathGrader(timeout_seconds=0.5) as grader:
        outcomes: dict[int, str] = {}

        def work(index: int) -> None:
            hostile = index == 1
            text = r"\boxed{9^{9^{9^9}}}" if hostile else rf"\boxed{{{index}+x}}"
            outcomes[index] = grader.grade(response(text), f"x+{index}").outcome

        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert outcomes == {0: "correct", 1: "timeout", 2: "correct", 3: "correct"}


def test_memory_limit_ends_an_answer_without_ending_the_grader():
    with MathGrader(timeout_seconds=20.0, memory_bytes=1 << 30) as grader:
        assert not grader.grade(response(r"\boxed{2^{2^{40}}}"), "x").correct
        assert grader.grade(response(r"\boxed{1+x}"), "x+1").correct


def test_process_starts_late_is_reused_and_replaced():
    with MathGrader() as grader:
        grader.grade(response(r"\boxed{0.5}"), r"\frac12")
        assert grader._worker is None  # numbers need no algebra
        grader.grade(response(r"\boxed{x+1}"), "1+x")
        first = grader._worker
        grader.grade(response(r"\boxed{x+2}"), "2+x")
        assert grader._worker is first
        first.kill()
        first.wait()
        assert grader.grade(response(r"\boxed{x+2}"), "2+x").correct
        second = grader._worker
        assert second is not first
    assert second.poll() is not None and grader._worker is None


def test_a_process_that_does_not_start_is_no_workers_fault(monkeypatch):
    """A WorkerError would have training restart its workers, which mends nothing here."""
    monkeypatch.setattr("sys.executable", "/bin/false")
    with MathGrader() as grader, pytest.raises(JudgeError, match=r"did not start \(exit code"):
        grader.grade(response(r"\boxed{1+x}"), "x+1")


TO_SPELL_AGAIN = [
    "~",
    r"\,",
    r"\quad ",
    " ",
    "\t",
    r"~\!",
    " , ",
    " and ",
    r"\text{",
    r"\frac{",
    "(",
    "1,",
    "1 ",
    "^ ",
    " %",
    "sqrt(",
    "5 cm ",
]


def test_normal_form_takes_no_time_on_hostile_answers():
    answers = [("5" + part * 2000)[:1999] + "x" for part in TO_SPELL_AGAIN] + ["{" * 1000 + "}" * 1000]
    start = time.process_time()
    for answer in answers:
        normal_form(answer)
    assert time.process_time() - start < 0.5


@pytest.mark.parametrize(
    ("boxed", "content"), [("{{5}}", "5"), ("{ {5} }", "5"), ("{1}{2}", "{1}{2}"), ("{1}+{2}", "{1}+{2}"), ("{5", "{5")]
)
def test_outer_braces_are_taken_off_in_pairs(boxed, content):
    assert normal_form(boxed) == content


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("-1 4/5", "-9/5"),
        (".35625", "57/160"),
        (r"\$32,\!348", "32348"),
        (r"11,\! 111,\! 100", "11111100"),
        ("1e3", "1000"),
    ],
)
def test_plain_numbers_are_read_exactly(spelling, value):
    assert str(exact_number(normal_form(spelling))) == value


@pytest.mark.parametrize(
    "formula", ["", "x", "1,2", "(1,2)", "1/0", r"\frac{1}{0}", "1.2.3", "52_8", "1e9999", "12,34"]
)
def test_formulas_are_not_plain_numbers(formula):
    assert exact_number(normal_form(formula)) is None


def test_votes_join_by_value_and_words():
    for same in (
        ["0.5", r"\frac12", ".50", "1/2", r"\dfrac{2}{4}"],
        [r"\text{East}", "east"],
        ["C", "(C)", r"\text{(C)}"],
    ):
        assert len({vote_key(spelling) for spelling in same}) == 1, same
    different = ["1/2", "2", "-1/2", "(1,2)", "[1,2]", "x", "X", "east", "west", "C"]
    assert len({vote_key(spelling) for spelling in different}) == len(different)
