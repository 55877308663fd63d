"""Computer algebra: math-verify's verdict on two answers, in a process of its own whose time and memory are limited.

`python -m lrm_safety.evaluation.graders.algebra BYTES` reads one JSON line `[answer, gold, seconds]` at a time and writes `true`
or `false`; `ready` comes first. The kernel ends it when a comparison uses more processor time than its limit, even inside one
long operation on integers, where an exception raised by a signal handler would wait for the operation's end. Processor time,
not time on the clock: a machine that is busy generating must not change verdicts.
"""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import sys
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from .equivalence import as_intervals
from .normal_form import exact_number, normal_form

if TYPE_CHECKING:
    import sympy

_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)(\s*\^)?")
_REPEATING = re.compile(r"(?<![\d.])(\d*)\.(\d*)\\overline\{(\d+)\}")
_IMAGINARY = re.compile(r"(?<=\d)i(?![A-Za-z])")
_MARKED = re.compile(
    r"([A-Za-z]|\\(?!prime)[a-z]+)((?:'|\^\{?(?:\\prime|')+\}?)+)|\\(bar|overline|hat|widehat|tilde|widetilde|dot|ddot|check|breve)"
    r"[\s~]*\{?\s*([A-Za-z]|\\[a-z]+)\s*\}?(?![A-Za-z])"
)
_STAND_INS = (r"\xi", r"\zeta", r"\eta", r"\chi", r"\psi", r"\kappa", r"\tau", r"\upsilon", r"\nu", r"\iota")
_MIXED = re.compile(r"(?<![\d.^_}&])(\d+)(?:&(\d+)/(\d+)|&?(\\frac\{\d+\}\{\d+\}))")
_DIGITS = 30


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
    answer, gold = as_intervals(answer), as_intervals(gold)
    forms = _with_stand_ins(normal_form(gold), normal_form(answer))
    if forms is None:
        return False
    parsed = []
    for form in forms:
        expressions = parse(f"${parseable(form)}$", [config], fallback_mode="no_fallback", parsing_timeout=None)
        parsed.append([e.xreplace({i: sympy.I for i in e.free_symbols if i.name == "i"}) for e in expressions])
    pairs = [(a, b) for a in parsed[1] for b in parsed[0]]
    if verify(parsed[0], parsed[1], timeout_seconds=None, allow_set_relation_comp=True):
        return not pairs or any(not _differ(a, b) for a, b in pairs)
    return any(_same_function(a, b) for a, b in pairs)


def _with_stand_ins(gold: str, answer: str) -> tuple[str, str] | None:
    """Both forms with a letter of its own for every marked symbol (f', \\bar z), which math-verify would take for the bare
    one; None where one side has a marked symbol that the other lacks. `y'=..` may leave out its left side."""
    sides = []
    for form, other in ((gold, answer), (answer, gold)):
        named = re.match(r"[A-Za-z]'+(?:\([A-Za-z]\))?=", form)
        sides.append(form[named.end() :] if named and "=" not in other else form)
    found: list[list[str]] = [[_symbol(match) for match in _MARKED.finditer(side)] for side in sides]
    if set(found[0]) != set(found[1]):
        return None
    free = iter(name for name in _STAND_INS if not any(name in side for side in sides))
    names = {symbol: next(free, r"\Xi") for symbol in dict.fromkeys(found[0])}
    made = [_MARKED.sub(lambda match: f"{names[_symbol(match)]} ", side) for side in sides]
    return made[0], made[1]


def _symbol(match: re.Match[str]) -> str:
    if match[1]:
        return match[1] + "'" * (match[2].count("'") + match[2].count("prime"))
    return rf"\{match[3].removeprefix('wide').replace('overline', 'bar')} {match[4]}"


def _points(symbols: list[sympy.Symbol]) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Points at which two formulas are compared: near and far from 0, of both signs."""
    from sympy import Rational

    for turn in range(8):
        signs = [-1 if (turn >> (i % 3)) & 1 else 1 for i in range(len(symbols))]
        yield {
            symbol: Rational(sign * (7 + 12 * i + 5 * turn), 3 + turn + 2 * i)
            for i, (symbol, sign) in enumerate(zip(symbols, signs, strict=True))
        }


def _differ(a: Any, b: Any) -> bool:
    """Whether two values that math-verify takes for equal are provably unequal, element by element."""
    from sympy import Expr, FiniteSet, MatrixBase, Tuple

    if a == b:
        return False
    if isinstance(a, FiniteSet) and isinstance(b, FiniteSet):
        return len(a) == len(b) and any(all(_differ(one, other) for other in b) for one in a)
    if isinstance(a, Tuple) and isinstance(b, Tuple):
        return any(_differ(one, other) for one, other in zip(a, b, strict=False))
    if isinstance(a, MatrixBase) and isinstance(b, MatrixBase):
        return any(_differ(one, other) for one, other in zip(a, b, strict=False))
    if not (isinstance(a, Expr) and isinstance(b, Expr)):
        return False
    symbols = sorted(a.free_symbols | b.free_symbols, key=str)
    positive = {symbol: abs(value) for symbol, value in next(_points(symbols)).items()}
    difference = (a - b).xreplace(positive)
    if difference == 0:
        return False
    try:
        # Strict: digits that are certain, or PrecisionExhausted for what may be 0.
        value = difference.evalf(_DIGITS, strict=True, maxn=400)
    except Exception:  # what cannot be evaluated proves nothing
        return False
    return bool(value.is_comparable and value != 0)


def _same_function(a: Any, b: Any) -> bool:
    """Whether two formulas agree to 30 digits at every point where either is real, and at three such points or more."""
    from sympy import Expr

    if not (isinstance(a, Expr) and isinstance(b, Expr)) or a.free_symbols != b.free_symbols or _differ(a, b):
        return False
    symbols = sorted(a.free_symbols, key=str)
    num_real = 0
    for point in _points(symbols) if symbols else [{}]:
        try:
            values = [one.xreplace(point).evalf(_DIGITS + 10, maxn=400) for one in (a, b)]
            if not all(value.is_number and value.is_finite for value in values):
                return False
            real = [abs(value.as_real_imag()[1]) < 10**-_DIGITS for value in values]
            if real[0] != real[1]:
                return False
            if real[0]:
                num_real += 1
                if abs(values[0] - values[1]) > abs(values[1]) * 10**-_DIGITS:
                    return False
        except Exception:  # sympy raises nearly anything on nonsense
            return False
    return num_real >= (3 if symbols else 1)


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


def main() -> None:
    memory_bytes = int(sys.argv[1])
    compare_by_algebra("x+1", "1+x")  # imports sympy and fills its tables before any limit runs
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # Ctrl-C is the parent's to handle; it closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    replies = os.dup(1)
    os.dup2(2, 1)  # nothing that a library prints may pass for a verdict
    os.write(replies, b"ready\n")
    for line in sys.stdin:
        answer, gold, seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            verdict = compare_by_algebra(answer, gold)
        except (Exception, RecursionError):
            verdict = False  # sympy raises nearly anything on nonsense; what cannot be compared is not equal
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        os.write(replies, b"true\n" if verdict else b"false\n")


if __name__ == "__main__":
    main()
