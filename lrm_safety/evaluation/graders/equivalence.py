r"""Whether two answers are the same: what can be told without computer algebra, and then math-verify.

Stated rules, where math-verify (0.9.0) decides otherwise or not by mathematics:

- Decimals are exact. math-verify rounds to six places, so .0000672 would equal .000067, and 0.333333 one third.
- A base that the answer leaves out is the question's; a base that it states must be the gold answer's. math-verify
  drops every base, so 52_8 would equal 52_9.
- Brackets are part of the answer, but braces around a list may be left out. math-verify takes (1, 2) for {1, 2}.
- Capital and small letters are different variables. math-verify takes 3R^2 for 3r^2.
- `i` is the imaginary unit. math-verify has it as a variable, so (1 + i)^2 would not equal 2i.
- A percent sign may be left out, or be read as 1/100: 10\% is 10 and is 1/10. Units, degree and currency signs are
  MATH's to leave out (see `normal_form`).
- Words are compared without case, articles and punctuation.

Value counts, not form: an answer that is not simplified or not factored is right, unlike in MATH's own grader.
"""

from __future__ import annotations

import logging
import re
from fractions import Fraction

from lrm_safety.evaluation.graders.normal_form import exact_number, has_percent, normal_form, plain_words, words

_BASED = re.compile(r"\(?(?P<digits>[0-9A-Z]+)\)?_(?:\{?(?P<base>\d+)\}?|\{?\\?(?:text)?\{?(?P<name>[a-z]+)\}*)")
_BASE_NAMES = {
    name: number
    for number, name in enumerate(
        ["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"], start=2
    )
}
_CLOSING = {"(": ")", "[": "]", r"\{": r"\}"}
_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(\s*\^)?")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\overline\{(\d+)\}")
_IMAGINARY = re.compile(r"(?<=\d)i(?![A-Za-z])")
_MIXED = re.compile(r"(?<![\d.^_}&])(\d+)(?:&(\d+)/(\d+)|&?(\\frac\{\d+\}\{\d+\}))")


def compare_simply(answer: str, gold: str) -> bool | None:
    """The verdict where no computer algebra is needed, else None. Cheap and bounded: no expression is evaluated."""
    answer_form, gold_form = normal_form(answer), normal_form(gold)
    if not answer_form:
        return False
    if answer_form == gold_form:
        return True
    if words(gold) is not None or words(answer) is not None:
        return plain_words(answer) == plain_words(gold)
    answer_number, gold_number = exact_number(answer_form), exact_number(gold_form)
    if answer_number is not None and gold_number is not None:
        return _same_number(answer_number, gold_number, has_percent(answer), has_percent(gold))
    based = _compare_based(answer_form, gold_form)
    if based is not None:
        return based
    return False if _brackets_differ(answer_form, gold_form) or _cases_differ(answer_form, gold_form) else None


def _same_number(answer: Fraction, gold: Fraction, answer_percent: bool, gold_percent: bool) -> bool:
    if answer == gold:
        return True
    if answer_percent != gold_percent:
        return answer / 100 == gold if answer_percent else answer == gold / 100
    return False


def _compare_based(answer: str, gold: str) -> bool | None:
    answer_base, gold_base = _BASED.fullmatch(answer), _BASED.fullmatch(gold)
    if not answer_base and not gold_base:
        return None
    parts = [
        (m["digits"], m["base"] or str(_BASE_NAMES.get(m["name"], m["name"]))) if m else None
        for m in (answer_base, gold_base)
    ]
    if parts[0] and parts[1]:
        return parts[0] == parts[1]
    if parts[1]:
        return answer == parts[1][0]
    assert parts[0]
    return parts[0] == (gold, "10")


def _outer_bracket(form: str) -> tuple[str, str] | None:
    """The opening and closing bracket around the whole form; None when there are none or they end inside."""
    opening = next((bracket for bracket in _CLOSING if form.startswith(bracket)), None)
    if opening is None:
        return None
    depth = 0
    for match in _BRACKET.finditer(form):
        depth += 1 if match.group() in ("(", "[", "{", r"\{") else -1
        if depth == 0:
            return (opening, match.group()) if match.end() == len(form) else None
    return None


def _elements(form: str) -> int:
    """Number of parts between commas outside all brackets."""
    depth, count, position = 0, 1, 0
    while position < len(form):
        width = 2 if form[position] == "\\" else 1
        token = form[position : position + width]
        if token in ("(", "[", "{", r"\{"):
            depth += 1
        elif token in (")", "]", "}", r"\}"):
            depth -= 1
        elif token == "," and depth == 0:
            count += 1
        position += width
    return count


def _brackets_differ(answer: str, gold: str) -> bool:
    brackets = [_outer_bracket(form) for form in (answer, gold)]
    lists = []
    for form, bracket in zip((answer, gold), brackets, strict=True):
        inner = form if bracket is None else form[len(bracket[0]) : -len(bracket[1])]
        lists.append(_elements(inner) > 1)
    if not all(lists):
        return False
    braces = (r"\{", r"\}")
    return (brackets[0] or braces) != (brackets[1] or braces)


def _cases_differ(answer: str, gold: str) -> bool:
    answer_letters, gold_letters = (set(re.findall("[A-Za-z]", _COMMAND.sub(" ", form))) for form in (answer, gold))
    only_answer, only_gold = answer_letters - gold_letters, gold_letters - answer_letters
    return any(letter.swapcase() in only_gold for letter in only_answer)


def parseable(form: str) -> str:
    """A normal form as math-verify is to read it: decimals and mixed numbers as exact fractions, and `5i` as `5 i`:
    only an `i` that stands apart makes it take the other variables for complex, which has to be so on both sides."""
    form = _MIXED.sub(lambda m: "(" + m[1] + "+" + (m[4] or rf"\frac{{{m[2]}}}{{{m[3]}}}") + ")", form)
    # Whole forms alone: inside brackets or lists the comma separates.
    if re.fullmatch(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?(?:\D.*)?", form) and exact_number(form.split("\\")[0]) is not None:
        form = re.sub(r"(?<=\d),(?=\d{3})", "", form)

    def fraction(match: re.Match[str]) -> str:
        value = Fraction(f"{match[1] or 0}.{match[2]}")
        exact = rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
        return rf"({exact})^" if match[3] else exact

    def repeating(match: re.Match[str]) -> str:
        start, period = f"{match[1]}{match[2]}", match[3]
        value = Fraction(int(start + period) - int(start or 0), 10 ** len(match[2]) * (10 ** len(period) - 1))
        return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    form = _IMAGINARY.sub(" i", _REPEATING.sub(repeating, form))
    return _DECIMAL.sub(fraction, form).replace("~", " ").replace("&", " ")


def compare_by_algebra(answer: str, gold: str) -> bool:
    """math-verify's verdict on two answers that `compare_simply` leaves open.

    May take any time and memory: powers are evaluated. Call it where both are limited, as the worker does.
    """
    import sympy
    from math_verify import LatexExtractionConfig, parse, verify
    from math_verify.parser import NormalizationConfig

    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    # Its removal of units would also remove a variable at the end (4d, 2h); ours has been through already.
    config = LatexExtractionConfig(
        boxed_match_priority=-1,
        normalization_config=NormalizationConfig(
            basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
        ),
    )
    parsed = []
    for side in (gold, answer):
        text = f"${parseable(normal_form(side))}$"
        expressions = parse(text, [config], fallback_mode="no_fallback", parsing_timeout=None)
        parsed.append([e.xreplace({i: sympy.I for i in e.free_symbols if i.name == "i"}) for e in expressions])
    return verify(parsed[0], parsed[1], timeout_seconds=None, allow_set_relation_comp=True)
