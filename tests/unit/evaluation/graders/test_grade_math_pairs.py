r"""Hard pairs: (response's answer, gold answer, is it right?), decided by mathematics and by MATH's conventions.

By convention units, degree, currency and percent signs and the name of the unknown may be left out, and form does not
count. Answers that look alike but differ in value are wrong.
"""

import pytest

from lrm_safety.conversation import ParsedResponse
from lrm_safety.evaluation.graders.math import MathGrader

PAIRS = [
    # fractions
    (r"\dfrac{3}{7}", r"\frac{3}{7}", True),
    (r"\tfrac37", r"\frac{3}{7}", True),
    (r"\frac 37", r"\frac{3}{7}", True),
    (r"3/7", r"\frac{3}{7}", True),
    (r"\frac{6}{14}", r"\frac{3}{7}", True),
    (r"-\frac{3}{7}", r"\frac{-3}{7}", True),
    (r"\frac{3}{-7}", r"-\frac37", True),
    (r"\frac{-3}{-7}", r"\frac37", True),
    (r"\frac{7}{3}", r"\frac{3}{7}", False),
    (r"2/1", r"1/2", False),
    (r"\frac{3}{7}", r"-\frac{3}{7}", False),
    (r"1\frac{4}{5}", r"\frac{9}{5}", True),
    (r"1 \frac45", r"1.8", True),
    (r"1 4/5", r"1\frac{4}{5}", True),
    (r"-1\frac{4}{5}", r"-\frac95", True),
    (r"-1\frac{4}{5}", r"-\frac15", False),
    (r"\frac{14}{5}", r"1\frac{4}{5}", False),
    # decimals
    (r"0.5", r"\frac12", True),
    (r".5", r"0.50", True),
    (r"0.375", r"\frac{3}{8}", True),
    (r"0.33", r"\frac13", False),
    (r"0.333333", r"\frac13", False),
    (r"0.0000672", r".0000672", True),
    (r".000067", r".0000672", False),
    (r"6.72 \times 10^{-5}", r".0000672", True),
    (r"6.72e-5", r".0000672", True),
    (r"6.72 \cdot 10^{5}", r".0000672", False),
    (r"3.14159265", r"\pi", False),
    (r"1.41421356", r"\sqrt{2}", False),
    (r"2.5x", r"\frac{5x}{2}", True),
    (r"1.5^2", r"\frac{9}{4}", True),
    (r"0.\overline{3}", r"\frac13", True),
    (r"0.1\overline{6}", r"\frac16", True),
    (r"0.\overline{3}", r"0.3", False),
    # integers, signs, separators of thousands
    (r"007", r"7", True),
    (r"+7", r"7", True),
    (r"-7", r"7", False),
    (r"−7", r"-7", True),
    (r"12,345", r"12345", True),
    (r"12{,}345", r"12,\!345", True),
    (r"12\,345", r"12345", True),
    (r"12 345", r"12345", True),
    (r"1,234,567.5", r"1234567.5", True),
    (r"12,345", r"12.345", False),
    (r"70", r"7", False),
    (r"2^{10}", r"1024", True),
    (r"5!", r"120", True),
    (r"\binom{5}{2}", r"10", True),
    # currency, percent, degrees, units
    (r"\$18.90", r"18.9", True),
    (r"18.90 \text{ dollars}", r"\$18.90", True),
    (r"\$18.09", r"\$18.90", False),
    (r"10\%", r"10", True),
    (r"10", r"10\%", True),
    (r"10\%", r"0.1", True),
    (r"\frac{1}{10}", r"10\%", True),
    (r"10\%", r"100", False),
    (r"0.1\%", r"10", False),
    (r"10 \text{ percent}", r"10\%", True),
    (r"90", r"90^\circ", True),
    (r"90^{\circ}", r"90", True),
    (r"90 \text{ degrees}", r"90^\circ", True),
    (r"90°", r"90^\circ", True),
    (r"9^\circ", r"90^\circ", False),
    (r"15 \text{ cm}^2", r"15", True),
    (r"15\mbox{ cm}^2", r"15 \mathrm{cm}^{2}", True),
    (r"15 square units", r"15", True),
    (r"15\ \text{square centimeters}", r"15\text{ cm}^2", True),
    (r"2\pi \text{ m}", r"2\pi", True),
    (r"15^2", r"15\text{ cm}^2", False),
    (r"\frac{270}{7}", r"\frac{270}7\text{ degrees}", True),
    (r"4d", r"4", False),
    (r"4i", r"4", False),
    # equations and names
    (r"x=5", r"5", True),
    (r"5", r"x=5", True),
    (r"x = 6", r"5", False),
    (r"y = 5", r"x = 5", False),
    (r"2+3=5", r"5", True),
    (r"\text{Area} = 12", r"12", True),
    (r"2x+3", r"y=2x+3", True),
    (r"y = 3 + 2x", r"y=2x+3", True),
    (r"y = 2x - 3", r"y=2x+3", False),
    (r"4x - 6y + 2 = 0", r"2x-3y+1=0", True),
    (r"4x - 6y + 1 = 0", r"2x-3y+1=0", False),
    # radicals, pi, roots
    (r"\frac{1}{\sqrt{2}}", r"\frac{\sqrt2}{2}", True),
    (r"\sqrt{8}", r"2\sqrt{2}", True),
    (r"2 \sqrt 2", r"\sqrt{2}2", True),
    (r"sqrt(8)", r"2\sqrt{2}", True),
    (r"√8", r"2\sqrt{2}", True),
    (r"\sqrt{2}", r"\sqrt[3]{2}", False),
    (r"\sqrt[3]{8}", r"2", True),
    (r"3\sqrt{2}", r"2\sqrt{3}", False),
    (r"2pi", r"2\pi", True),
    (r"\frac{\pi}{6}", r"\frac{1}{6}\pi", True),
    (r"6\pi", r"\frac{\pi}{6}", False),
    (r"2\pi", r"2", False),
    (r"\sqrt{12}+1", r"1+2\sqrt3", True),
    (r"\frac{3+\sqrt{5}}{2}", r"\frac{3-\sqrt{5}}{2}", False),
    # algebra
    (r"(b+2)(a+5)", r"(a+5)(b+2)", True),
    (r"ab+2a+5b+10", r"(a+5)(b+2)", True),
    (r"q-p", r"p-q", False),
    (r"x^2-x+1", r"x^2+x+1", False),
    (r"3R^2", r"3r^2", False),
    (r"\frac{1}{\tan x}", r"\cot x", True),
    (r"\tan x", r"\cot x", False),
    (r"2^x", r"x^2", False),
    (r"x^{12}", r"x^12", True),
    (r"x_1 + x_2", r"x_1 - x_2", False),
    (r"-5i + 6", r"6-5i", True),
    (r"6+5i", r"6-5i", False),
    (r"|1-x|", r"|x-1|", True),
    (r"\infty", r"-\infty", False),
    (r"2i\sqrt{3}", r"2\sqrt{3}i", True),
    (r"0.5i", r"\frac{i}{2}", True),
    (r"(1+i)^2", r"2i", True),
    (r"\sqrt{-4}", r"2i", True),
    (r"(1+i)^2", r"-2i", False),
    (r"e^2", r"e^{-2}", False),
    (r"\sqrt{a^2}", r"a", False),
    # pairs, intervals, sets, lists
    (r"(1, 2)", r"\left(1,2\right)", True),
    (r"(2,1)", r"(1,2)", False),
    (r"[1,2]", r"(1,2)", False),
    (r"\{1,2\}", r"(1,2)", False),
    (r"(1,2]", r"[1,2)", False),
    (r"(0.5, -13)", r"\left( \frac{1}{2}, -13 \right)", True),
    (r"(1,2,3)", r"(1,2)", False),
    (r"(1,-16,-4,43)", r"(1,-16,-4,43)", True),
    (r"(100,200)", r"100200", False),
    (r"x > 2", r"(2,\infty)", True),
    (r"x \ge 2", r"(2,\infty)", False),
    (r"[-2,7]", r"x \in [-2,7]", True),
    (r"-2 \leq x \leq 7", r"[-2,7]", True),
    (r"-2 < x < 7", r"[-2,7]", False),
    (r"(9,36) \cup (0,9)", r"(0,9) \cup (9,36)", True),
    (r"(0,36)", r"(0,9) \cup (9,36)", False),
    (r"(-∞, 0]", r"(-\infty,0]", True),
    (r"\{2,1\}", r"\{1,2\}", True),
    (r"\{1,2,3\}", r"\{1,2\}", False),
    (r"\{1\}", r"\{1,2\}", False),
    (r"7, 5, 3", r"3,5,7", True),
    (r"\{3,5,7\}", r"3, 5, 7", True),
    (r"3, 5", r"3, 5, 7", False),
    (r"3, 5, 8", r"3, 5, 7", False),
    (r"1 \text{ and } -2", r"1,-2", True),
    (r"-2 \text{ or } 1", r"1,-2", True),
    (r"1", r"1,-2", False),
    (r"1+\sqrt{19}, 1-\sqrt{19}", r"1 \pm \sqrt{19}", True),
    (r"1+\sqrt{19}", r"1 \pm \sqrt{19}", False),
    (r"\{-2, 1-\sqrt5, 1+\sqrt5\}", r"\{1\pm\sqrt{5},-2\}", True),
    (r"\{1+\sqrt5, 1-\sqrt5\}", r"\{1\pm\sqrt{5},-2\}", False),
    (r"(3,4),(1,2)", r"(1,2),(3,4)", True),
    (r"(1,2)", r"(1,2),(3,4)", False),
    (r"\varnothing", r"\emptyset", True),
    (r"1:2", r"2:1", False),
    # bases
    (r"52_{8}", r"52_8", True),
    (r"52_{\text{eight}}", r"52_8", True),
    (r"52", r"52_8", True),
    (r"52_9", r"52_8", False),
    (r"42", r"52_8", False),
    (r"25_8", r"52_8", False),
    # matrices
    (r"\begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}", r"\begin{pmatrix} 1&2\\3&4 \end{pmatrix}", True),
    (r"\begin{pmatrix} 1 & 3 \\ 2 & 4 \end{pmatrix}", r"\begin{pmatrix} 1&2\\3&4 \end{pmatrix}", False),
    (r"\begin{pmatrix} -0.5 \\ \frac23 \end{pmatrix}", r"\begin{pmatrix} -1/2 \\ 2/3 \end{pmatrix}", True),
    (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", False),
    # words
    (r"\text{east}", r"\text{East}", True),
    (r"east", r"\text{east}", True),
    (r"\textbf{east}.", r"\text{east}", True),
    (r"\text{teas}", r"\text{east}", False),
    (r"teas", r"east", False),
    (r"\text{west}", r"\text{east}", False),
    (r"\text{an ellipse}", r"\text{ellipse}", True),
    (r"\text{(C)}", r"\text{(C)}", True),
    (r"C", r"\text{(C)}", True),
    (r"(D)", r"\text{(C)}", False),
    (r"\text{Yes}", r"\text{No}", False),
    (r"\text{odd}", r"\text{even}", False),
    (r"\text{5}", r"5", True),
    (r"\textbf{(113) }", r"113", True),
    (r"5.", r"5", True),
    (r"\text{The answer is } 5", r"5", True),
    (r"\text{(A) } 6", r"5", False),
    (r"\mathbb R", r"\mathbb{R}", True),
    # several boxes, nested boxes, unbalanced boxes
    (r"\boxed{5}", r"5", True),
    (r"x = \boxed{5}", r"5", True),
    (r"4} and then \boxed{5", r"5", True),
    (r"5} and then \boxed{4", r"5", False),
    (r"5} and then \boxed{\frac{1}{2", r"5", True),
    (r"\frac{1}{2}} and then \boxed{\sqrt{", r"\frac12", True),
]


def finished(answer: str) -> ParsedResponse:
    return ParsedResponse("I think that it is \\boxed{0}.", answer, "complete", 9, 9, True)


@pytest.fixture(scope="module")
def grader():
    with MathGrader() as grader:
        yield grader


def test_there_are_enough_pairs_and_none_twice():
    assert len({pair[:2] for pair in PAIRS}) == len(PAIRS) >= 100
    assert sum(right for *_, right in PAIRS) >= 30 <= sum(not right for *_, right in PAIRS)


@pytest.mark.parametrize(("answer", "gold", "right"), PAIRS)
def test_hard_pair(grader, answer, gold, right):
    grade = grader.grade(finished(rf"Hence $\boxed{{{answer}}}$."), gold)
    assert grade.correct is right, grade
    assert grade.outcome == ("correct" if right else "wrong")
