r"""Whether two answers are the same: what can be told without computer algebra, before math-verify (algebra.py) is asked.

Stated rules, where math-verify (0.9.0) decides otherwise or not by mathematics:

- Decimals are exact. math-verify rounds to six places, so .0000672 would equal .000067, and 0.333333 one third.
- A base that the answer leaves out is the question's; a base that it states must be the gold answer's. math-verify
  drops every base, so 52_8 would equal 52_9.
- Brackets are part of the answer, but braces around a list may be left out. math-verify takes (1, 2) for {1, 2}.
- Capital and small letters are different variables. math-verify takes 3R^2 for 3r^2.
- `i` is the imaginary unit. math-verify has it as a variable, so (1 + i)^2 would not equal 2i.
- A percent sign may be left out, or be read as 1/100: 10\% is 10 and is 1/10. Units, degree and currency signs are
  MATH's to leave out (see `normal_form`).
- Words are compared without case, articles and punctuation; numbers in words are numbers, and scales (million) count.
- What bounds or denies a value is part of the answer: "at least 7" and "7 is wrong" are not 7.
- A unit may be left out, but one that is stated must fit the gold answer's: 60 minutes is 1 hour, 90 radians are not
  90 degrees.
- Marks make another symbol: f' is not f, and \bar z is not z. math-verify drops primes.
- Values are compared exactly, or to 30 digits where they are irrational. math-verify takes all values below about 2^-52
  for one.
- Formulas that agree to 30 digits wherever both are real, at points of both signs, are the same function.
  math-verify takes letters for complex, so \sqrt{1/n} would not equal 1/\sqrt{n}.
- A choice's letter may come with the choice's text. A value may be given in several forms, if all of them are right.

Value counts, not form: an answer that is not simplified or not factored is right, unlike in MATH's own grader.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

from .normal_form import (
    exact_number,
    has_percent,
    normal_form,
    plain,
    plain_words,
    value_in_words,
    words,
)
from .quantities import number_in_words, qualifiers, unit_of

_BASED = re.compile(r"\(?(?P<digits>[0-9A-Z]+)\)?_(?:\{?(?P<base>\d+)\}?|\{?\\?(?:text)?\{?(?P<name>[a-z]+)\}*)")
_CLOSING = {"(": ")", "[": "]", r"\{": r"\}"}
_BRACKET = re.compile(r"\\[{}]|[()\[\]{}]")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_CHOICE = re.compile(r"(?:\\text\w*\s*\{\s*)?(?:(?i:option|choice|answer)\b:?\s*)?\(?\s*([A-Z])\s*\)?\s*\}?[\s.]*")
_CHOICE_WITH_TEXT = re.compile(
    r"(?:\\(?:text|math)\w*\s*\{)?\s*(?:\(\s*([A-Z])\s*\)|([A-Z])\s*[).:])\}?(?:\\[ ,;:]|\\q?quad|[~\s}])*(?=[^\s}+=*/^<>-])"
)
_EITHER = re.compile(
    r"\\(?:text|mathrm|mbox)[a-z]*\s*\{\s*[,(]?\s*(?:or|i\.e\.|that is|which is|which equals|equals|equivalently"
    r"|or equivalently|also written)[,\s]*\}|(?<![A-Za-z\\])or(?![A-Za-z])"
)
_APPROXIMATELY = re.compile(
    r"\\(?:approx|simeq|thickapprox)(?![A-Za-z])|\\(?:text|mathrm|mbox)[a-z]*\s*\{\s*[,(]?\s*(?:approximately|about|approx\.?)\s*\}"
)
MAX_FORMS = 4
_ORDERS = tuple(
    (re.compile(pattern), sign)
    for pattern, sign in (
        (r"\\(?:leqslant|leq|le)(?![A-Za-z])|<=", "≤"),
        (r"\\(?:geqslant|geq|ge)(?![A-Za-z])|>=", "≥"),
        (r"\\(?:neq|ne)(?![A-Za-z])|!=", "≠"),
        (r"\\lt(?![A-Za-z])", "<"),
        (r"\\gt(?![A-Za-z])", ">"),
    )
)
_CONNECTOR = re.compile(
    r"((?<!\d),|,(?!\d{3})|;|\\(?:text|mathrm|mbox)[a-z]*\s*\{\s*,?\s*(?:or|and)\s*\}|(?<![A-Za-z\\])(?:or|and)(?![A-Za-z])"
    r"|\\(?:lor|vee|cup|land|wedge|cap)(?![A-Za-z]))"
)


def compare_simply(answer: str, gold: str) -> bool | None:
    """The verdict where no computer algebra is needed, else None. Cheap and bounded: no expression is evaluated."""
    if answer.strip() == gold.strip():
        return bool(answer.strip())
    answer_form, gold_form = normal_form(answer), normal_form(gold)
    if not answer_form:
        return False
    letter = _CHOICE.fullmatch(plain(gold))
    if letter is not None:
        if (chosen := _CHOICE_WITH_TEXT.match(plain(answer))) is not None:
            return (chosen[1] or chosen[2]) == letter[1]
        if (alone := _CHOICE.fullmatch(plain(answer))) is not None:
            return alone[1] == letter[1]
    said_answer, said_gold = value_in_words(answer), value_in_words(gold)
    if said_answer is None and words(answer) is None and qualifiers(answer) - qualifiers(gold):
        return False
    if (by_unit := _compare_units(answer, gold, answer_form, gold_form)) is not None:
        return by_unit
    if answer_form == gold_form:
        return True
    if said_answer is None and said_gold is None and (words(gold) is not None or words(answer) is not None):
        return plain_words(answer) == plain_words(gold)
    answer_number = exact_number(answer_form) if said_answer is None else said_answer
    gold_number = exact_number(gold_form) if said_gold is None else said_gold
    if answer_number is not None and gold_number is not None:
        return _same_number(answer_number, gold_number, has_percent(answer), has_percent(gold))
    based = _compare_based(answer_form, gold_form)
    if based is not None:
        return based
    if as_intervals(answer) != answer or as_intervals(gold) != gold:
        return None
    return False if _brackets_differ(answer_form, gold_form) or _cases_differ(answer_form, gold_form) else None


def _compare_units(answer: str, gold: str, answer_form: str, gold_form: str) -> bool | None:
    """The verdict where both sides state a known unit and the units differ, else None."""
    units = unit_of(answer), unit_of(gold)
    if units[0] is None or units[1] is None or units[0] == units[1]:
        return None
    if units[0][0] != units[1][0]:
        return False
    values = exact_number(answer_form), exact_number(gold_form)
    return values[0] is not None and values[1] is not None and values[0] * units[0][1] == values[1] * units[1][1]


def alternatives(answer: str) -> list[list[str]]:
    r"""The forms in which an answer gives its value, each with its roundings: `\frac12 \text{ or } 0.5` has two forms,
    `5\sqrt2 \approx 7.07` one form with a rounding. An answer in one form is `[[answer]]`."""
    text = plain(answer)
    listed = re.fullmatch(r"\\\{(.*)\\\}", text, re.DOTALL)
    pieces = _EITHER.split(listed[1] if listed else text)
    parts = [part.strip(" .") for piece in pieces for part in _split(piece, ",")]
    parts = [part for part in parts if part]
    if not 1 <= len(parts) <= MAX_FORMS or (listed and len(parts) == 1):
        return [[text]]
    return [[spelling for spelling in _APPROXIMATELY.split(part) if spelling.strip()] for part in parts]


def _split(text: str, separator: str) -> list[str]:
    """Parts between separators outside all brackets."""
    parts, depth, start, position = [], 0, 0, 0
    while position < len(text):
        width = 2 if text[position] == "\\" else 1
        token = text[position : position + width]
        if token in ("(", "[", "{", r"\{"):
            depth += 1
        elif token in (")", "]", "}", r"\}"):
            depth -= 1
        elif token == separator and depth == 0:
            parts.append(text[start:position])
            start = position + 1
        position += width
    return [*parts, text[start:]]


def as_intervals(latex: str) -> str:
    r"""Inequalities of one unknown that are joined by words or commas as a union of intervals, anything else as it is:
    `x < -2 \text{ or } x > 2` -> `(-\infty,-2)\cup(2,\infty)`; `x > 1 \text{ and } x \le 3` -> `(1,3]`; `x \ne 2`."""
    text = plain(latex)
    if not re.search(r"[<>]|\\(?:le|ge|lt|gt|ne)", text):
        return latex
    for command, sign in _ORDERS:
        text = command.sub(sign, text)
    text = re.sub(r"\\(?:left|right|[ ,;:!]|quad|qquad)(?![A-Za-z])\.?|[$~]|(?<!\\)\\[()\[\]]", " ", text).strip(" .")
    builder = re.fullmatch(r"\\?\{\s*[a-zA-Z]\s*(?:\\in\s*\\mathbb\s*\{?R\}?\s*)?(?:\\mid|:|\|)\s*(.*?)\s*\\?\}", text)
    pieces = _CONNECTOR.split(builder[1] if builder else text)
    joins = {join.strip(" \\").lower().rstrip("{}") for join in pieces[1::2]}
    kinds = {"or" if re.search("or|lor|vee|cup", join) else "," if join in (",", ";") else "and" for join in joins}
    ranges = [_range(piece) for piece in pieces[::2] if piece.strip()]
    if len(kinds) > 1 or any(one is None for one in ranges) or not ranges:
        return latex
    found = [one for one in ranges if one is not None]
    if len({one[0] for one in found}) != 1 or (len(found) == 1 and found[0][1] != "!"):
        return latex
    (kind,) = kinds or {","}
    return _joined_ranges([one[1:] for one in found], kind) or latex


def _range(piece: str) -> tuple[str, str, str, str] | None:
    """(unknown, kind, lower, upper): kind is `!` for "is not lower", else the two brackets."""
    parts = [part.strip() for part in re.split("([<>≤≥≠])", piece)]
    unknown = [i for i in range(0, len(parts), 2) if re.fullmatch(r"[A-Za-z]|\\[a-z]+", parts[i])]
    if len(unknown) != 1 or not all(parts) or len(parts) not in (3, 5):
        return None
    place = unknown[0]
    name = parts[place]
    if len(parts) == 3 and parts[1] == "≠":
        return name, "!", parts[2 - place], parts[2 - place]
    if "≠" in parts:
        return None
    if len(parts) == 5 and (place != 2 or (parts[1] in "<≤") != (parts[3] in "<≤")):
        return None
    lower, upper, left, right = r"-\infty", r"\infty", "(", ")"
    for sign, bound, before in [
        (parts[i], parts[i - 1 if i < place else i + 1], i < place) for i in range(1, len(parts), 2)
    ]:
        is_lower = before == (sign in "<≤")
        closed = sign in "≤≥"
        if is_lower:
            lower, left = bound, "[" if closed else "("
        else:
            upper, right = bound, "]" if closed else ")"
    return name, left + right, lower, upper


def _joined_ranges(ranges: list[tuple[str, str, str]], kind: str) -> str | None:
    """LaTeX of the union (`or`) or intersection (`and`) of ranges; a comma is whichever leaves something."""
    if all(brackets == "!" for brackets, *_ in ranges):
        values = [(exact_number(normal_form(lower)), lower) for _, lower, _ in ranges]
        if kind == "or" and len(values) > 1:
            return None
        if len(values) > 1:
            if any(value is None for value, _ in values):
                return None
            values.sort(key=lambda pair: pair[0] or 0)
        edges = [r"-\infty", *[text for _, text in values], r"\infty"]
        return r"\cup".join(f"({a},{b})" for a, b in pairwise(edges))
    if any(brackets == "!" for brackets, *_ in ranges):
        return None
    if kind != "or":
        if len(ranges) != 2 or [r"-\infty" in lower for _, lower, _ in ranges].count(True) != 1:
            return None
        below, above = sorted(ranges, key=lambda one: r"-\infty" not in one[1])
        if below[1] != r"-\infty" or above[2] != r"\infty":
            return None
        low, high = exact_number(normal_form(above[1])), exact_number(normal_form(below[2]))
        if low is not None and high is not None and low < high:
            return f"{above[0][0]}{above[1]},{below[2]}{below[0][1]}"
        if kind == "and" or low is None or high is None:
            return None
    return r"\cup".join(f"{brackets[0]}{lower},{upper}{brackets[1]}" for brackets, lower, upper in ranges)


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
        (m["digits"], m["base"] or str(number_in_words(m["name"]) or m["name"])) if m else None
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


def _brackets_differ(answer: str, gold: str) -> bool:
    brackets = [_outer_bracket(form) for form in (answer, gold)]
    lists = []
    for form, bracket in zip((answer, gold), brackets, strict=True):
        inner = form if bracket is None else form[len(bracket[0]) : -len(bracket[1])]
        lists.append(len(_split(inner, ",")) > 1)
    if not all(lists):
        return False
    braces = (r"\{", r"\}")
    return (brackets[0] or braces) != (brackets[1] or braces)


def _cases_differ(answer: str, gold: str) -> bool:
    answer_letters, gold_letters = (set(re.findall("[A-Za-z]", _COMMAND.sub(" ", form))) for form in (answer, gold))
    only_answer, only_gold = answer_letters - gold_letters, gold_letters - answer_letters
    return any(letter.swapcase() in only_gold for letter in only_answer)
