r"""Hard pairs: (response's answer, gold answer, is it right?), decided by mathematics and by MATH's conventions.

By convention units, degree, currency and percent signs and the name of the unknown may be left out, and form does not
count. Answers that look alike but differ in value are wrong.
"""

import json
import os
import re
from pathlib import Path

import pytest

from lrm_safety.conversation import ParsedResponse
from lrm_safety.evaluation.graders.math import MathGrader

DATA = os.environ.get("LRM_SAFETY_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="set LRM_SAFETY_DATA")

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
    (r"95_{\text{sixteen}}", r"95_{16}", True),
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
    # tiny values; scales; words that bound or deny; units; marks; inequalities; letters with text; markup; unicode; numbers
    # in words; one value in several forms; percent; functions of positive numbers
    (r"\frac{1}{2^{98}}", r"\frac{1}{2^{99}}", False),
    (r"\frac{1}{2006!}", r"\frac{1}{2004!}", False),
    (r"\frac{2}{2^{100}}", r"\frac{1}{2^{99}}", True),
    (r"\frac{x}{2^{98}}", r"\frac{x}{2^{99}}", False),
    (r"(1,\frac{1}{2^{98}})", r"(1,\frac{1}{2^{99}})", False),
    (r"2^{-99}", r"\frac{1}{2^{99}}", True),
    (r"10^{-30}", r"10^{-31}", False),
    (r"e^{-100}", r"e^{-101}", False),
    (r"x+10^{-20}", r"x", False),
    (r"\{10^{-20},1\}", r"\{10^{-21},1\}", False),
    (r"15 \text{ million}", r"15", False),
    (r"2.5 \text{ million}", r"2500000", True),
    (r"2.5 million", r"2{,}500{,}000", True),
    (r"15 \text{ thousand dollars}", r"\$15,000", True),
    (r"3\text{ billion}", r"3\times 10^9", True),
    (r"3\text{ billion}", r"3\times 10^6", False),
    (r"5 \text{ hundred}", r"500", True),
    (r"\frac{5}{2}\text{ million}", r"2500000", True),
    (r"\text{at least } 7", r"7", False),
    (r"3 \text{ is wrong}", r"3", False),
    (r"\text{not } 3", r"3", False),
    (r"7 \text{ or more}", r"7", False),
    (r"\text{at most } 7", r"7", False),
    (r"\text{more than } 7", r"7", False),
    (r"\text{less than } 7", r"7", False),
    (r"\text{exactly } 7", r"7", True),
    (r"7 \text{ is incorrect}", r"7", False),
    (r"\text{at least } 7", r"\text{at least } 7", True),
    (r"\text{approximately } 7", r"7", True),
    (r"7 \text{ apples}", r"7", True),
    (r"\text{up to }7", r"7", False),
    (r"\text{never }7", r"7", False),
    (r"90 \text{ radians}", r"90^\circ", False),
    (r"90 \text{ radians}", r"90 \text{ degrees}", False),
    (r"60 \text{ minutes}", r"1 \text{ hour}", True),
    (r"5 \text{ hours}", r"5 \text{ minutes}", False),
    (r"5 \text{ cm}", r"5 \text{ m}", False),
    (r"500 \text{ cm}", r"5 \text{ m}", True),
    (r"5 \text{ seconds}", r"5 \text{ cm}", False),
    (r"5 \text{ cents}", r"\$5", False),
    (r"5 \text{ cm}", r"5\text{ centimeters}", True),
    (r"5 \text{ dollars}", r"\$5", True),
    (r"5 \text{ inches}", r"5\text{ feet}", False),
    (r"5 \text{ kg}", r"5", True),
    (r"f(x)", r"f'(x)", False),
    (r"f'(x)", r"f'(x)", True),
    (r"f'(x)", r"f''(x)", False),
    (r"f^{\prime}(x)", r"f'(x)", True),
    (r"2f'(x)", r"f'(x)\cdot 2", True),
    (r"f'(x)+f(x)", r"2f'(x)", False),
    (r"\bar{z}", r"z", False),
    (r"\overline{z}", r"\bar z", True),
    (r"y'=2x", r"2x", True),
    (r"f(x)", r"f^\prime(x)", False),
    (r"\dot{x}", r"x", False),
    (r"x < -2 \text{ or } x > 2", r"(-\infty,-2)\cup(2,\infty)", True),
    (r"x > 2 \text{ or } x < -2", r"(-\infty,-2)\cup(2,\infty)", True),
    (r"x \le -2 \text{ or } x > 2", r"(-\infty,-2)\cup(2,\infty)", False),
    (r"x < -2, x > 2", r"(-\infty,-2)\cup(2,\infty)", True),
    (r"x>-2 \text{ and } x<2", r"(-2,2)", True),
    (r"x \ne 2", r"(-\infty,2)\cup(2,\infty)", True),
    (r"\{x \mid x<-2 \text{ or } x>2\}", r"(-\infty,-2)\cup(2,\infty)", True),
    (r"(-\infty,-2)\cup(2,\infty)", r"x<-2 \text{ or } x>2", True),
    (r"x\in(-\infty,-2)\cup(2,\infty)", r"(-\infty,-2)\cup(2,\infty)", True),
    (r"0<x<1 \text{ or } 3\le x<4", r"(0,1)\cup[3,4)", True),
    (r"x < -2 or x > 2", r"(-\infty,-2)\cup(2,\infty)", True),
    (r"x<-2 \lor x>2", r"(-\infty,-2)\cup(2,\infty)", True),
    (r"x≤−2 or x≥2", r"(-\infty,-2]\cup[2,\infty)", True),
    (r"x<-2 \text{ and } x>2", r"(-\infty,-2)\cup(2,\infty)", False),
    (r"\textbf{(C)}\ 12", r"C", True),
    (r"\textbf{(C)}\ 12", r"\text{(C)}", True),
    (r"\textbf{(D)}\ 12", r"\text{(C)}", False),
    (r"\text{C. } 12", r"C", True),
    (r"\text{(C) } x+1", r"\textbf{(C)}", True),
    (r"(C) 12", r"C", True),
    (r"\color{red}{42}", r"42", True),
    (r"{\color{red} 42}", r"42", True),
    (r"\textcolor{blue}{42}", r"42", True),
    (r"**42**", r"42", True),
    (r"\mathbf{42}", r"42", True),
    (r"{\bf 42}", r"42", True),
    (r"\boldsymbol{42}", r"42", True),
    (r"\Large 42", r"42", True),
    (r"\underline{42}", r"42", True),
    (r"\\42", r"42", True),
    ("42\\\\", r"42", True),
    (r"\;42\;", r"42", True),
    (r"\hspace{1em}42", r"42", True),
    (r"`42`", r"42", True),
    (r"<b>42</b>", r"42", True),
    (r"x=\mathbf{42}", r"42", True),
    (r"\phantom{0}42", r"42", True),
    (r"\color{red}{41}", r"42", False),
    (r"\mathit{x}+1", r"x+1", True),
    (r"\quad 42", r"42", True),
    (r"\displaystyle\frac{\mathbf{1}}{2}", r"\frac12", True),
    (r"\text{\textbf{42}}", r"42", True),
    (r"½", r"\frac12", True),
    (r"1½", r"\frac32", True),
    (r"¾", r"0.75", True),
    (r"x²", r"x^2", True),
    (r"x² + 2x", r"x^2+2x", True),
    (r"2⁻¹", r"\frac12", True),
    (r"3×4", r"12", True),
    (r"−5", r"-5", True),
    (r"2π", r"2\pi", True),
    (r"√2", r"\sqrt2", True),
    (r"x₁", r"x_1", True),
    (r"30°", r"30^\circ", True),
    (r"a≤5", r"a\le5", True),
    (r"½", r"2", False),
    (r"10⁶", r"1000000", True),
    (r"θ", r"\theta", True),
    (r"6÷2", r"3", True),
    (r"(−∞, 3]", r"(-\infty,3]", True),
    (r"ℝ", r"\mathbb{R}", True),
    (r"\text{seven}", r"7", True),
    (r"seven", r"7", True),
    (r"twenty-five", r"25", True),
    (r"\text{one half}", r"\frac12", True),
    (r"\text{two thirds}", r"\frac23", True),
    (r"\text{three quarters}", r"0.75", True),
    (r"7", r"\text{seven}", True),
    (r"\text{eight}", r"7", False),
    (r"3 \text{ out of } 5", r"\frac35", True),
    (r"\text{1 in 6}", r"\frac16", True),
    (r"\text{half}", r"\frac12", True),
    (r"half", r"50\%", True),
    (r"\frac12 \text{ or } 0.5", r"\frac12", True),
    (r"0.5 = \frac12", r"\frac12", True),
    (r"\frac12 = 0.5", r"\frac12", True),
    (r"5\sqrt2 \approx 7.07", r"5\sqrt2", True),
    (r"50\% \text{ or } \frac12", r"\frac12", True),
    (r"\frac12 \text{ or } \frac13", r"\frac12", False),
    (r"5 \text{ or } 6", r"5", False),
    (r"1\frac12 \text{ or } 1.5", r"\frac32", True),
    (r"\frac{1}{2}, \text{ i.e. } 0.5", r"\frac12", True),
    (r"\frac{\sqrt2}{2} \text{ or } \frac{1}{\sqrt2}", r"\frac{1}{\sqrt2}", True),
    (r"28 pct", r"28\%", True),
    (r"28 percentage", r"28\%", True),
    (r"28 \text{ pct.}", r"28\%", True),
    (r"\sqrt{1/n}", r"\frac{1}{\sqrt{n}}", True),
    (r"\sqrt{ab}", r"\sqrt{a}\sqrt{b}", False),
    (r"\ln(x^2)", r"2\ln x", False),
    (r"\frac{\sqrt{n}}{n}", r"\sqrt{\frac1n}", True),
    (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2", True),
    (r"\sqrt{4n}", r"2\sqrt{n}", True),
    (r"15 \text{ cm}", r"15\text{ cm}^2", False),
    (r"(C)+1", r"\text{(C)}", False),
]

TEXTS = [
    ("x=\\boxed{1}$ and $x=\\boxed{-2}$", "1,-2", True),
    ("x=\\boxed{1}$ and $x=\\boxed{-2}$", "-2", False),
    ("\\boxed{5}$ ... $\\boxed{}$", "5", True),
    ("The answer is $\\boxed{5}$. \\boxed{?}", "5", True),
    ("\\boxed{5} or \\boxed{6}", "6", False),
    ("\\boxed{3} is wrong, so \\boxed{4}", "4", True),
    ("The answer is not \\boxed{3}", "3", False),
    ("\\boxed{1}, \\boxed{234}", "1234", False),
    ("\\boxed{1}, \\boxed{2}, \\boxed{3}", "\\{1,2,3\\}", True),
    ("\\boxed{\\frac12} = \\boxed{0.5}", "\\frac12", True),
    ("$\\boxed{5}$\n\n$\\boxed{5.0}$", "5", True),
    ("the answer is 5", "5", True),
    ("The answer is not 5.", "5", False),
    ("If the answer is 5, then we are lost.", "5", False),
]
"""(whole answer, gold answer, is it right?): several boxes, boxes that are denied or to be filled in, no box."""

INTEGERS = [
    ("\\boxed{33\\pmod{1000}}", "33", True),
    ("\\boxed{1033 \\equiv 33 \\pmod{1000}}", "33", True),
    ("\\boxed{25+8}", "33", True),
    ("\\boxed{33 \\bmod 1000}", "33", True),
    ("\\boxed{33 \\text{ (mod 1000)}}", "33", True),
    ("\\boxed{2^{5}}", "32", False),
    ("\\boxed{\\text{thirty-three}}", "33", True),
    ("\\boxed{\\text{not }33}", "33", False),
    ("\\boxed{033 \\pmod{1000}}", "33", True),
    ("\\boxed{m+n = 25 + 8 = 33}", "33", True),
    ("\\boxed{34,33}", "33", False),
    ("\\boxed{1033 \\pmod{1000}}", "33", True),
    ("\\boxed{\\mathbf{033}}", "33", True),
    ("\\boxed{33 \\text{ is wrong}}", "33", False),
    ("\\boxed{25+9}", "33", False),
    ("\\boxed{33 \\mod 1000}", "33", True),
    ("\\boxed{34}, not \\boxed{33}", "33", False),
    ("\\boxed{34}, not \\boxed{33}", "34", True),
    ("\\boxed{34} or \\boxed{33}", "33", False),
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


@pytest.mark.parametrize(("text", "gold", "right"), TEXTS)
def test_what_a_text_concludes_with(grader, text, gold, right):
    assert grader.grade(finished(text), gold).correct is right


@pytest.mark.parametrize(("text", "gold", "right"), INTEGERS)
def test_integers_as_residues_sums_and_words(grader, text, gold, right):
    assert grader.grade(finished(text), gold, integer=True).correct is right


@needs_data
def test_published_answers_stay_right_in_every_spelling_and_wrong_when_changed(grader):
    """Every seventh of MATH500's answers; what another spelling or another value is follows from the text alone."""
    rows = [json.loads(line) for line in Path(DATA, "math500", "test.jsonl").read_text(encoding="utf-8").splitlines()]
    for gold in [row["answer"] for row in rows][::7]:
        same = {
            gold.replace(r"\frac", r"\dfrac"),
            gold.replace("(", r"\left(").replace(")", r"\right)"),
            re.sub(r"([+=,])", r" \1 ", gold),
            gold + ".",
            rf"\color{{red}}{{{gold}}}",
            rf"\ {gold}\;",
            rf"\mathbf{{{gold}}}",
        }
        for answer in sorted(same):
            assert grader.grade(finished(rf"\boxed{{{answer}}}"), gold).correct, (answer, gold)
        changed = (
            {f"{gold}+1", f"2({gold})"}
            if re.fullmatch(r"[\d.]*[1-9][\d.]*|[a-z\d^+-]+", gold) and gold != "0"
            else set()
        )
        changed |= {re.sub(r"\d(?=\D*$)", lambda digit: str((int(digit[0]) + 3) % 10), gold)} - {gold}
        changed |= (
            {rf"\text{{not }} {gold}", rf"{gold} \text{{ million}}"} if gold.isdecimal() and gold != "0" else set()
        )
        for answer in sorted(changed):
            assert not grader.grade(finished(rf"\boxed{{{answer}}}"), gold).correct, (answer, gold)
