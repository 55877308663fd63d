r"""Find the answer that a text states: the last balanced `\boxed{}`, else an anchored sentence."""

from __future__ import annotations

import re

_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_UNBRACED = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$\\]+)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_STATED = re.compile(r"\banswer\b[*_\s]*(?:is|[:=])[*_\s:=]*(?=\S)(?P<rest>[^\n]+)", re.IGNORECASE)
_DELIMITED = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\*\*|;\s")
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")
STATED_WINDOW_CHARACTERS = 1000
CLOSING_CHARACTERS = 20


def last_box(text: str) -> str | None:
    r"""Content of the last outermost balanced `\boxed{..}` or `\fbox{..}`, boxes inside it unwrapped; None without one.

    A box that is never closed is passed over. `\boxed 5`, as MATH's solutions sometimes have it, is a box of its next
    word. Time is linear in the text.
    """
    openings = {match.end() - 1: match.start() for match in _OPENING.finditer(text)}
    if not openings:
        unbraced = _UNBRACED.findall(text)
        return unbraced[-1].rstrip(".,;") if unbraced else None
    closes = brace_pairs(text)
    last: tuple[int, int] | None = None
    for brace in sorted(openings):
        if brace in closes and (last is None or brace > last[1]):
            last = brace, closes[brace]
    if last is None:
        return None
    # `\boxed{x = \boxed{5}}` says the same as `\boxed{x = {5}}`.
    return _OPENING.sub("{", text[last[0] + 1 : last[1]]).strip()


def brace_pairs(text: str) -> dict[int, int]:
    r"""Position of each brace that is closed -> position of its partner, in one pass; `\{` is no brace."""
    closes: dict[int, int] = {}
    stack: list[int] = []
    for match in _BRACE.finditer(text):
        if match.group() == "{":
            stack.append(match.start())
        elif match.group() == "}" and stack:
            closes[stack.pop()] = match.start()
    return closes


def stated_answer(text: str) -> str | None:
    """What a text without a box states, by the first of these rules that applies to its last 1,000 characters:

    1. the last "answer is .." or "answer: ..": the formula in it if there is one, else its words to the sentence's end;
    2. the text itself, if it is one expression on one line;
    3. the right side of an equation in dollars that closes the text, but for a word or two (`so $180 + 24 = 204$.`).

    A number that merely stands last in a text is a guess at what was meant, and is not taken.
    """
    window = text[-STATED_WINDOW_CHARACTERS:].strip()
    rest = [match.group("rest") for match in _STATED.finditer(window)]
    if rest:
        formula = _DELIMITED.search(rest[-1])
        return _content(formula) if formula else _SENTENCE_END.split(rest[-1], maxsplit=1)[0].strip(" *_.,") or None
    lone = window.strip("*$ ")
    if lone and "\n" not in lone and len(text) <= STATED_WINDOW_CHARACTERS and not _WORD.search(lone):
        return lone
    formulas = list(_DELIMITED.finditer(window.rsplit("\n", 1)[-1]))
    if formulas and len(window.rsplit("\n", 1)[-1]) - formulas[-1].end() <= CLOSING_CHARACTERS:
        _, equals, right = _content(formulas[-1]).rpartition("=")
        return right.strip() or None if equals else None
    return None


def _content(formula: re.Match[str]) -> str:
    return next(group for group in formula.groups() if group is not None).strip()
