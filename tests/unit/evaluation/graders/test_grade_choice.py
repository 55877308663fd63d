import random
import time

import pytest

from lrm_safety.conversation.response import ParsedResponse
from lrm_safety.errors import DataError
from lrm_safety.evaluation.graders.choice import chosen_letter, grade_choice

CHOICES = [
    # rule 1: the last box
    (r"\boxed{B}", "B"),
    (r"So it is $\boxed{\text{B}}$.", "B"),
    (r"\boxed{(B)}", "B"),
    (r"\boxed{B.}", "B"),
    (r"\boxed{\textbf{(B)}}", "B"),
    (r"\boxed{\mathrm{B}}", "B"),
    (r"\boxed{**B**}", "B"),
    (r"\boxed{b}", "B"),
    (r"\boxed{ B }", "B"),
    (r"\boxed{B) 12 m}", "B"),
    (r"\boxed{\text{B. The red one}}", "B"),
    (r"\boxed{\text{Option B}}", "B"),
    (r"\boxed{\text{Answer: } B}", "B"),
    (r"\boxed{A} no, wait: \boxed{C}", "C"),
    (r"\boxed{C} and then \boxed{\text{D", "C"),
    (r"Answer: A. In short \boxed{D}", "D"),
    (r"\boxed{A, B}", None),
    (r"\boxed{A \text{ and } B}", None),
    (r"\boxed{A or B}", None),
    (r"\boxed{(A), (C)}", None),
    (r"\boxed{AB}", None),
    (r"\boxed{E}", None),
    (r"\boxed{12}", None),
    (r"\boxed{A = 3}", None),
    (r"\boxed{A dipole}", None),
    (r"\boxed{}", None),
    (r"Answer: A. \boxed{12}", None),
    # rule 2: a sentence
    ("Answer: B", "B"),
    ("**Answer: B**", "B"),
    ("**Answer:** B", "B"),
    ("Answer: (B) 12 m", "B"),
    ("Answer:\n\nB", "B"),
    ("answer is B.", "B"),
    ("The correct answer is **B**, since it is red.", "B"),
    ("The final answer is $\\text{B}$", "B"),
    ("The answer is option B.", "B"),
    ("the correct choice is (B)", "B"),
    ("Therefore (B) is correct.", "B"),
    ("Option B is the right one. I mean option B is the correct choice.", "B"),
    ("Answer: A\n\nOn reflection:\n\nAnswer: C", "C"),
    ("A is wrong. The answer is D, not A.", "D"),
    ("Answer: A or B", None),
    ("The answer is A and C.", None),
    ("The answer is (A) or (B).", None),
    ("The answer is not A.", None),
    ("Neither A nor B is correct.", None),
    ("Answer A is wrong.", None),
    ("The answer is Beta decay.", None),
    ("The answer is 12.", None),
    ("Answer: A = 3", None),
    # rule 3: a letter alone
    ("B", "B"),
    ("(b)", "B"),
    ("**B.**", "B"),
    ("A is possible, and B too", None),
    ("A dog", None),
    ("", None),
    # the same by further habits of writing; what is denied, supposed, asked or reported; several at once
    ("C) 10 eV", "C"),
    ("Answer - C", "C"),
    ("Answer – C", "C"),
    ("I choose C", "C"),
    ('The answer is "C".', "C"),
    ('"answer": "C"', "C"),
    ('{"answer": "C"}', "C"),
    ("\\boxed{C \\text{ (10 eV)}}", "C"),
    ("If the answer is A then contradiction.", None),
    ("\\boxed{A}\\boxed{C}", None),
    ("\\boxed{A} \\boxed{C}", None),
    ("### Answer\nB", "B"),
    ("<answer>B</answer>", "B"),
    ("Answer：B", "B"),
    ("答案：B", "B"),
    ("(C) 10 eV", "C"),
    ("C. 10 eV", "C"),
    ("C: 10 eV", "C"),
    ("**C) 10 eV**", "C"),
    ("**C**: 10 eV", "C"),
    ("C - 10 eV", "C"),
    ("I would go with option B.", "B"),
    ("We select (D).", "D"),
    ("My choice is B", "B"),
    ("The correct option: **D**", "D"),
    ("The answer is 'C'.", "C"),
    ("The answer is “C”.", "C"),
    ('```json\n{"answer": "D"}\n```', "D"),
    ("\\boxed{\\text{C) 10 eV}}", "C"),
    ("\\boxed{C\\ 10\\text{ eV}}", "C"),
    ("\\boxed{\\text{C}\\;(10\\,\\text{eV})}", "C"),
    ("\\boxed{10 \\text{ eV (C)}}", "C"),
    ("Suppose the answer is A. Then it fails.", None),
    ("Is the answer A?", None),
    ("I do not think the answer is A.", None),
    ("If A is correct then we contradict.", None),
    ("It is unclear whether the answer is B.", None),
    ("Suppose the answer is A. Then it fails. So the answer is D.", "D"),
    ("\\boxed{A}, not \\boxed{C}", "A"),
    ("not \\boxed{A} but \\boxed{C}", "C"),
    ("\\boxed{A} or \\boxed{C}", None),
    ("\\boxed{B}\n\n\\boxed{B}", "B"),
    ("A) 1\nB) 2\nC) 3\nD) 4", None),
    ("A) 1 B) 2", None),
    ("Therefore, C.", "C"),
    ("Reasoning here.\n\nHence: (C)", "C"),
    ("So it is B.", "B"),
    ("Final answer: C", "C"),
    ("Final Answer\n\nC", "C"),
    ("**Answer**\n\n**C**", "C"),
    ("I pick A or B.", None),
    ("I choose between A and B.", None),
    ("Answer: C\nExplanation: A is wrong", "C"),
    ("The answer is A? No.", None),
    ("La respuesta es C.", "C"),
    ("Antwort: C", "C"),
    ("Réponse : C", "C"),
    ("The correct answer is option C) 10 eV", "C"),
    ("Option C: 10 eV", "C"),
    ("Choice D", "D"),
    ("The answer is $\\mathbf{C}$.", "C"),
    ("The answer is **(C)** 10 eV.", "C"),
    ("B is a letter", None),
    ("I answer C", "C"),
    ("Selected: D", "D"),
    ("The answer must be C", "C"),
    ("C is the correct answer.", "C"),
    ("C is correct.", "C"),
    ("One might think the answer is A, but it is not.", None),
    ("The answer is C, as 5 eV.", "C"),
    ("Answer: **C) 10 eV**", "C"),
    ("Answer: [C]", "C"),
    ("Answer = C", "C"),
    ("Answer is C", "C"),
    ("the answer: c", "C"),
    ("I'd choose C.", "C"),
    ("We conclude that option C is right.", "C"),
    ("\\boxed{C}. \\boxed{}", "C"),
    ("\\boxed{\\boxed{C}}", "C"),
    ("Answer: C.\n\n\\boxed{ }", "C"),
    ("$\\boxed{\\mathrm{(C)}~10\\,\\mathrm{eV}}$", "C"),
    ("The answer cannot be A. B.", None),
    ("Answer→C", None),
    ("I'm confident that the answer is C.", "C"),
    ("The final answer is: $\\boxed{\\text{(A) }}$", "A"),
    ("A. Because B is wrong.", "A"),
    ("<answer>\nC) 10 eV\n</answer>", "C"),
    ("<answer>(C)</answer>", "C"),
    ("\\text{C}", "C"),
    ("Ans: C", "C"),
    ("ANSWER: C", "C"),
    ("Answer: C (10 eV)", "C"),
    ("The choice that fits is C.", "C"),
    ("It's C.", "C"),
    ("The answer would be A if x were 0; it is C.", "C"),
    ("The answer isn't A; it's C.", "C"),
    ("Not A, so C.", "C"),
    ("I'm going with C", "C"),
    ("It must be C.", "C"),
    ("Eliminate A and B. That leaves C.", "C"),
    ("The energy is 10 eV.\n\nC", "C"),
    ("C\n\nThe energy is 10 eV.", "C"),
    ("C, because the energy is 10 eV.", "C"),
    ("✅ C", "C"),
    ("Choose C.", "C"),
    ("[[C]]", "C"),
    ("A\nB\nC\nD", None),
    ("Ответ: C", "C"),
    ("故选：C", "C"),
    ("정답은 C입니다", "C"),
    ("答えはCです", "C"),
    ("If it weren't C, the answer would be A.", None),
    ("My friend says the answer is A.", None),
    ("I first thought the answer is A.", None),
    ("I think the answer is A.", "A"),
]


def response(answer: str, **changes) -> ParsedResponse:
    fields = {"trace": r"\boxed{A} Answer: A", "status": "complete", "finished": True}
    return ParsedResponse(answer=answer, num_trace_tokens=5, num_answer_tokens=5, **(fields | changes))


@pytest.mark.parametrize(("answer", "letter"), CHOICES)
def test_letter_by_the_stated_order(answer, letter):
    assert chosen_letter(answer) == letter
    grade = grade_choice(response(answer), "B")
    assert grade.correct is (letter == "B")
    assert grade.extracted == (letter or "")
    assert grade.outcome == ("no_answer" if letter is None else "correct" if letter == "B" else "wrong")


@pytest.mark.parametrize(
    "changes",
    [{"finished": False}, {"status": "unfinished_answer"}, {"status": "unfinished_trace"}],
)
def test_unfinished_is_wrong_and_apart(changes):
    grade = grade_choice(response(r"\boxed{B}", **changes), "B")
    assert (grade.correct, grade.extracted, grade.outcome) == (False, "", "unfinished")


def test_the_trace_is_never_read():
    assert grade_choice(response("I cannot tell."), "A").outcome == "no_answer"
    assert grade_choice(response("", status="empty_answer"), "A").outcome == "no_answer"


def test_other_letters():
    assert chosen_letter(r"\boxed{J}", "ABCDEFGHIJ") == "J"
    assert chosen_letter(r"\boxed{J}", "ABCD") is None
    assert chosen_letter("Answer: C", "AB") is None


@pytest.mark.parametrize("gold", ["E", "", "AB", "12"])
def test_gold_must_be_one_of_the_letters(gold):
    with pytest.raises(DataError, match="is not one of ABCD"):
        grade_choice(response(r"\boxed{A}"), gold)


def test_long_answers_are_read_in_time_linear_in_them():
    """A second at the most; a pattern that goes back would take hours."""
    start = time.process_time()
    for text in ("Answer: " * 20_000, "A, " * 50_000, r"\boxed{" * 20_000, "answer is " * 10_000 + "B", " " * 100_000):
        chosen_letter(text)
    assert time.process_time() - start < 1


def test_golds_are_all_right_and_shuffled_golds_at_chance():
    # All that GPQA's 198 questions ask of a grader are letters: the gold's place among choices drawn for every repeat.
    num_questions = 198
    draw = random.Random(0)
    # What GPQA asks of a grader are letters: the gold's place among four choices drawn for every repeat.
    golds = [draw.choice("ABCD") for _ in range(num_questions * 20)]
    frames = [r"Hence \boxed{%s}.", r"\boxed{\text{(%s)}}", "The answer is (%s).", "**Answer: %s**"]
    responses = [response(frames[i % 4] % gold) for i, gold in enumerate(golds)]
    assert all(grade_choice(r, gold).correct for r, gold in zip(responses, golds, strict=True))
    shuffled = golds.copy()
    draw.shuffle(shuffled)
    rate = sum(grade_choice(r, gold).correct for r, gold in zip(responses, shuffled, strict=True)) / len(golds)
    # Four standard deviations of a fair four-sided die over 3,960 throws.
    assert abs(rate - 0.25) < 4 * (0.25 * 0.75 / len(golds)) ** 0.5
