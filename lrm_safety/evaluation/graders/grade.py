r"""What graders share: what they return, that only a finished response can be right, and the answer that a text states.

That is the last balanced `\boxed{}`, else an anchored sentence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ...conversation.response import ParsedResponse

Outcome = Literal["correct", "wrong", "no_answer", "unfinished", "timeout"]


@dataclass(frozen=True)
class Grade:
    """One response, graded: `correct` is 1 or 0; a user's own grader may give a value between.

    `extracted` is the answer as the response wrote it, blank where there is none. `outcome` says why a response is not
    correct: it states another answer (`wrong`) or none (`no_answer`), it was cut off (`unfinished`), or its comparison
    went over the limit of time or memory (`timeout`). Every outcome but `correct` counts as wrong in a figure.
    """

    correct: float
    extracted: str
    outcome: Outcome


NO_ANSWER = Grade(False, "", "no_answer")
UNFINISHED = Grade(False, "", "unfinished")


def is_unfinished(response: ParsedResponse) -> bool:
    """Whether the response was cut off: then nothing in it is graded, whatever its partial trace or answer says."""
    return not response.finished or response.status in ("unfinished_trace", "unfinished_answer")


def graded(correct: bool, extracted: str) -> Grade:
    return Grade(correct, extracted, "correct" if correct else "wrong")


_OPENING = re.compile(r"\\(?:boxed|fbox)\s*\{")
_UNBRACED = re.compile(r"\\(?:boxed|fbox)\s+([^\s{}$\\]+)")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_STATED = re.compile(r"\banswer\b[*_\s]*(?:is|[:=])[*_\s:=]*(?=\S)(?P<rest>[^\n]+)", re.IGNORECASE)
# Other ways to set the answer apart: a heading with it below, a tag, the mark of GSM8K's solutions.
_HEADED = (
    (re.compile(r"(?:^|\n)[#*_ ]*(?:(?:the|final|my) )*answer[*_: ]*\n+[ ]*(?=\S)", re.IGNORECASE), "\nanswer: "),
    (re.compile(r"<answer>\s*([^<]*\S)\s*</answer>", re.IGNORECASE), r"\nanswer: \1\n"),
    (re.compile(r"(?:^|\n)####[ ]*(?=[^\nA-Za-z]*(?:\n|$))"), "\nanswer: "),
)
_SUPPOSED_ANSWER = re.compile(
    r"\b(?:if|suppose|supposing|assume|assuming|whether|unless)\s+(?:that\s+)?(?:(?:the|my|our)\s+)?(?:(?:correct|right|final)\s+)*$",
    re.IGNORECASE,
)
_DELIMITED = re.compile(r"\$\$?([^$]+)\$\$?|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_SENTENCE_END = re.compile(r"[.!?](?:\s|$)|\*\*|;\s")
_WORD = re.compile(r"(?<!\\)\b[A-Za-z]{2,}")
# Nothing, or a place that is still to be filled in.
_PLACEHOLDER = re.compile(
    r"(?:\s|[{}$.?_…*~-]|\\(?:[,;:! ]|ldots|dots|cdots|quad|qquad|square|Box|underline|phantom\s*\{[^{}]*\})"
    r"|(?:\\text[a-z]*\s*\{)?\s*\b(?:your |the |my |final |correct )*(?:answer|result|value)s?(?: (?:goes )?here)?\b\s*\}?)*",
    re.IGNORECASE,
)
_NEAR = 60
MAX_BOXES = 20
"""More boxes than this are no one answer; those before are not read."""
_MATHS = r"(?:\s|\$|\\[()\[\]]|\*\*)*"
_SUPPOSING = r"\b(?:if|suppose|supposing|assume|assuming|whether|unless)\s+(?:that\s+)?"
_DENIED_BEFORE = re.compile(
    rf"(?:\b(?:not|never|rather than|instead of|isn't|wasn't|cannot be|can't be)\b(?:\s+(?:be|is|the|equal|to))*"
    rf"|{_SUPPOSING}(?:the\s+)?(?:(?:correct|right|final)\s+)*answer\s+(?:is|was|were|equals)){_MATHS}(?:[A-Za-z]\w*\s*=\s*)?{_MATHS}$",
    re.IGNORECASE,
)
_DENIED_AFTER = re.compile(
    rf"{_MATHS}(?:is|was|would be|are)\s+(?:clearly\s+|obviously\s+|also\s+)?"
    r"(?:wrong|incorrect|false|impossible|not\s+(?:the\s+)?(?:right|correct|answer|possible|valid|a solution|it\b)|n't\b)"
    rf"|{_MATHS}\?\s*(?:no|nope|wrong)\b",
    re.IGNORECASE,
)
_NAME = re.compile(r"([A-Za-z])(?:_\{?\w+\}?|'*)\s*=")
_NAME_AT_END = re.compile(r"=\s*$")
# What may stand between two boxes of one list.
_JOINED = re.compile(
    r"(?:\s|[$,;&.*•-]|\\[()\[\],;: ]|\\(?:quad|qquad|text|lor|vee|cup)\b|[{}]|\d+[.)]\s"
    r"|\b(?:and|or|also|as well as|else|alternatively|maybe|possibly|perhaps|both|either)\b|[A-Za-z](?:_\{?\w+\}?|'*)\s*=)*"
)
STATED_WINDOW_CHARACTERS = 1000
CLOSING_CHARACTERS = 20


@dataclass(frozen=True)
class _Box:
    begin: int
    end: int
    content: str


def concluding_boxes(text: str) -> list[str]:
    r"""Contents of the boxes that together are what a text concludes with; empty without one.

    That is the last outermost balanced `\boxed{..}` or `\fbox{..}` that holds something and is not denied, with those
    directly before it that nothing but "and", "or", commas, signs of mathematics and the same unknown's name part from
    it: `$x = \boxed{1}$ or $x = \boxed{-2}$`. Empty boxes and those for something to be filled in are passed over, and so
    are boxes that are never closed, boxes in "not \boxed{3}" and in "\boxed{3} is wrong", and those that are only supposed
    ("if the answer is \boxed{3}, .."). Boxes inside a box are unwrapped. `\boxed 5`, as MATH's solutions sometimes have
    it, is a box of its next word. Time is linear in the text.
    """
    boxes = [
        box
        for box in _boxes(text)
        if not _is_placeholder(box)
        and not _DENIED_BEFORE.search(text[max(0, box.begin - _NEAR) : box.begin])
        and not _DENIED_AFTER.match(text[box.end : box.end + _NEAR])
    ]
    if not boxes:
        return []
    group = boxes[-1:]
    for earlier in reversed(boxes[-MAX_BOXES:-1]):
        between = text[earlier.end : group[0].begin]
        if len(between) > _NEAR or not _JOINED.fullmatch(between):
            break
        names = {*_NAME.findall(between), _name_before(text, earlier)} - {""}
        if len(names) > 1:
            break
        group.insert(0, earlier)
    return list(dict.fromkeys(box.content for box in group))


def last_box(text: str) -> str | None:
    r"""The box of `concluding_boxes`, or several as one list, `\{1,-2\}`; None without one."""
    boxes = concluding_boxes(text)
    return rf"\{{{','.join(boxes)}\}}" if len(boxes) > 1 else boxes[0] if boxes else None


def _boxes(text: str) -> list[_Box]:
    """Outermost balanced boxes in order."""
    openings = {match.end() - 1: match.start() for match in _OPENING.finditer(text)}
    if not openings:
        return [_Box(m.start(), m.end(), m[1].rstrip(".,;")) for m in _UNBRACED.finditer(text)]
    closes = brace_pairs(text)
    found: list[_Box] = []
    for brace, begin in sorted(openings.items()):
        if brace in closes and (not found or brace >= found[-1].end):
            # `\boxed{x = \boxed{5}}` says the same as `\boxed{x = {5}}`.
            content = _OPENING.sub("{", text[brace + 1 : closes[brace]]).strip()
            found.append(_Box(begin, closes[brace] + 1, content))
    return found


def _is_placeholder(box: _Box) -> bool:
    return len(box.content) <= _NEAR and _PLACEHOLDER.fullmatch(box.content) is not None


def _name_before(text: str, box: _Box) -> str:
    """The unknown whose value a box is, as in `x_1 = \\boxed{3}`: its letter."""
    found = _NAME.search(text[max(0, box.begin - 24) : box.begin])
    return found[1] if found and _NAME_AT_END.search(text[max(0, box.begin - 24) : box.begin]) else ""


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
    for box in reversed(_boxes(text)):
        if _is_placeholder(box):
            text = text[: box.begin] + text[box.end :]
    window = text[-STATED_WINDOW_CHARACTERS:].strip()
    for pattern, replacement in _HEADED:
        window = pattern.sub(replacement, window)
    rest = [
        match.group("rest")
        for match in _STATED.finditer(window)
        if not _SUPPOSED_ANSWER.search(window[max(0, match.start() - _NEAR) : match.start()])
    ]
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
