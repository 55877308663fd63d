r"""Grade multiple choice by letter.

The letter is looked for in the answer alone, in this order; the last match of the first rule that matches at all
decides:

1. the concluding box: B, b, (B), \text{B}, **B**, "B) because ..", "Option B", `B \text{ (10 eV)}`, `10 eV (B)`;
2. a statement: "answer is B", "Answer - (B)", "### Answer" with B below, `<answer>B</answer>`, `"answer": "B"`, "I choose
   B", "B is correct", and the same in some other languages;
3. an answer that is a letter alone, or one line that is a letter or begins with a letter and goes on with its text: "B) 10 eV".

What is denied, asked or supposed is no statement: "the answer is not A", "is the answer A?", "if the answer is A, then ..".
A box without one letter of the question's ends the search: the response has said what its answer is, and it is none of
the choices. Several letters at once (`B or C`, `\boxed{A, B}`, `\boxed{A}\boxed{C}`) are no answer.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from ...conversation.response import ParsedResponse
from ...errors import DataError
from .grade import NO_ANSWER, UNFINISHED, Grade, concluding_boxes, graded, is_unfinished

# Words set apart from what stands before them (`B \text{ (10 eV)}`) are no part of it: a dash keeps them so.
_APART = re.compile(
    r"(?<=[A-Za-z)}])\s*(?:\\(?:quad|qquad|[ ,;:])\s*|~\s*)+(?:\\text[a-z]*\s*)?|(?<=[A-Za-z)}])\s*\\text\s*(?=\{\s)"
)
_COMMAND = re.compile(r"\\(?:text|math)[a-z]*\s*|\\[a-zA-Z]+\s*|[{}$*_`#]|\\[()\[\],;! ]|</?[a-z]+>")
_QUOTES = str.maketrans(dict.fromkeys('"“”„«»「」『』', " ") | {"–": "-", "—": "-", "−": "-"})
# What stands directly before a statement that is only supposed, doubted or reported.
_SUPPOSED = re.compile(
    r"(?:\b(?:if|whether|unless|suppose|supposing|assume|assuming|imagine|provided|say)\s+(?:that\s+)?"
    r"|\b(?:not|n't|never|cannot|doubt|deny|wrong|false|mistake|untrue)\s+(?:\w+\s+){0,4}?(?:that\s+)?"
    r"|\b(?:might|could|may|would|some|many|people|one)\s+(?:\w+\s+){0,2}?(?:think|thought|guess|say|argue|believe|expect|claim)\s+(?:that\s+)?"
    r"|\b(?:friends?|students?|classmates?|colleagues?|he|she|they|others|someone|everyone)\s+(?:\w+\s+){0,2}?"
    r"(?:thinks?|thought|says?|said|claims?|claimed|believes?|believed|argues?|argued|guessed)\s+(?:that\s+)?"
    r"|\b(?:i|we)\s+(?:\w+ly\s+|first\s+|at\s+first\s+)*thought\s+(?:that\s+)?"
    r")(?:(?:the|my|our|your|this|its|a)\s+)?(?:(?:correct|right|final|true|best|only|real)\s+)*$",
    re.IGNORECASE,
)
_COUNTERFACTUAL = re.compile(r"\b(?:if|unless|were|had)\b.*(?:n't|\bnot)\b", re.IGNORECASE)
_CLAUSE = re.compile(r"[.!?;,:\n]|\bthen\b|\bbut\b|\bso\b")
_OTHER_NAMES = "(?i:antwort|respuesta|réponse|reponse|risposta|resposta)"
_WINDOW = 80


def grade_choice(response: ParsedResponse, target_letter: str, letters: str = "ABCD") -> Grade:
    """Grade the letter that the answer chooses, by the rules above; `extracted` is that letter in upper case.

    Raises DataError when `target_letter` is not one of `letters`.
    """
    target = target_letter.strip().upper()
    if len(target) != 1 or target not in letters:
        raise DataError(f"gold letter {target_letter[:20]!r} is not one of {letters}")
    if is_unfinished(response):
        return UNFINISHED
    letter = chosen_letter(response.answer, letters)
    return NO_ANSWER if letter is None else graded(letter == target, letter)


def chosen_letter(answer: str, letters: str = "ABCD") -> str | None:
    """The one letter of `letters` that the answer chooses, or None."""
    answer = unicodedata.normalize("NFKC", answer)
    boxes = concluding_boxes(answer)
    if boxes:
        boxed = {_boxed_letter(box, letters) for box in boxes}
        return boxed.pop() if len(boxed) == 1 else None
    patterns = _patterns(letters)
    plain = _COMMAND.sub("", answer.translate(_QUOTES)).strip()
    stated = [match for match in patterns.stated.finditer(plain) if _is_meant(plain, match)]
    match = stated[-1] if stated else patterns.alone.fullmatch(plain)
    if match is None:
        lines = [
            found
            for line in plain.split("\n")
            if (found := patterns.lone.fullmatch(line) or patterns.line.match(line.strip()))
        ]
        marks = {mark.upper() for mark in patterns.mark.findall(plain)}
        match = lines[0] if len(lines) == 1 and len(marks | {lines[0].group(lines[0].lastgroup or 0)}) == 1 else None
        if match is None or patterns.joined.match(match.string, match.end(match.lastgroup or 0)):
            return None
    elif patterns.joined.match(plain, match.end(match.lastgroup or 0)):
        return None
    return match.group(match.lastgroup or 0).upper()


def _boxed_letter(box: str, letters: str) -> str | None:
    patterns = _patterns(letters)
    plain = (
        _COMMAND.sub("", _APART.sub(" - ", box).translate(_QUOTES)).strip().removeprefix("'").removesuffix("'").strip()
    )
    match = patterns.alone.fullmatch(plain) or patterns.leading.match(plain) or patterns.trailing.fullmatch(plain)
    if match is None or patterns.joined.match(plain, match.end(match.lastgroup or 0)):
        return None
    return match.group(match.lastgroup or 0).upper()


def _is_meant(text: str, match: re.Match[str]) -> bool:
    """Whether a match states, and does not suppose, deny or ask."""
    before = text[max(0, match.start() - _WINDOW) : match.start()]
    after = text[match.end() : match.end() + _WINDOW]
    clause = _CLAUSE.split(before)[-1]
    would = re.search(r"\bwould\b", match[0]) and re.match(r"\)?\s*(?:only\s+)?(?:if|unless)\b", after)
    if not would and "would" in match[0]:
        would = _COUNTERFACTUAL.search(re.split(r"[.!?\n]", before)[-1])
    if would or _SUPPOSED.search(clause) or re.match(r"\s*\)?\s*\?", after):
        return False
    return not re.match(
        r"\)?\s*(?:is|was|would be)\s+(?:n't|not|wrong|incorrect|false|ruled|impossible)\b", after, re.IGNORECASE
    )


@dataclass(frozen=True)
class _Patterns:
    """Each has the letter as its only named group that takes part."""

    alone: re.Pattern[str]
    leading: re.Pattern[str]
    trailing: re.Pattern[str]
    stated: re.Pattern[str]
    lone: re.Pattern[str]
    """A line that is a letter alone, with a sign before or behind it."""
    line: re.Pattern[str]
    """A line that begins with a letter and goes on with its choice's text."""
    mark: re.Pattern[str]
    """A letter as a mark of a choice, wherever it stands."""
    joined: re.Pattern[str]
    """What follows a letter when another letter is named along with it."""


@cache
def _patterns(letters: str) -> _Patterns:
    one = f"[{re.escape(letters)}]"
    any_case = f"[{re.escape(letters + letters.lower())}]"
    kind = r"(?i:answer|ans|choice|option|letter)"
    named = rf"(?:{kind}|{_OTHER_NAMES}|(?:故|应)选|(?:正确)?(?:答案|选项|选择)|答え|解答|正解|정답|[Оо]твет)"
    # The end of a letter that stands for a choice: not of "But", "B-type", "B^2" or "B = 3".
    ends = r"(?![A-Za-z0-9'’^_/+-]|\s*[=<>])"
    is_ = r"(?i:is|would be|should be|must be|will be|has to be|lautet|ist|es|est|è)\b\s*:?|是|为"
    says = (
        rf"{named}(?:\s+(?i:that|which)(?:\s+\w+){{1,4}}?)?\s*'?\s*(?:[:=]|은|는|は|-(?=\s)|{is_})\s*"
        r"(?:(?i:clearly|therefore|thus|definitely|simply|indeed)\s+)?"
        rf"(?:(?i:the)\s+)?(?:{kind}\s*:?\s*)?'?\s*"
    )
    below = rf"(?:^|\n)\s*(?:(?i:the|final|correct|my)\s+)*{named}\s*:?\s*\n+\s*"
    verb = (
        r"(?:(?i:i|we)\s*(?:(?i:would|will|'ll|'d|'m|am|'re|are|must|should|can|have to|"
        r"therefore|thus|hence|finally|then|am going to)\s+){0,2}"
        r"(?i:choose|pick|select|chose|picked|selected|go with|went with|going with|opt for|settle on|settle for|vote for|"
        r"answer with|answer|conclude)|(?i:my|the|our|final)\s+(?:(?i:final|best|correct|right)\s+)*"
        r"(?i:pick|selection|guess|verdict|conclusion|one|statement|letter|response)\s*(?i:is|:)|(?i:chosen|selected)\s*:|"
        r"(?i:corresponds to|matches|match)\s+(?=\(?\s*(?:option|choice|\(|.{0,2}[.\n]|.$)))"
    )
    pointing = rf"\s+(?:(?i:the|for)\s+)?(?:{kind}\s*:?\s*)?'?\s*"
    so = (
        r"(?:^|\n|[;.]\s|,\s(?=(?i:so|thus|hence|therefore)\b))\s*"
        r"(?:(?i:it is|it's|it must be|it has to be|clearly|this leaves|that leaves)\s+(?i:us with\s+)?"
        r"|(?i:so|thus|hence|therefore|in conclusion|finally|conclusion|result|final)\b\s*[,:]?"
        r"\s*(?:(?i:it is|it's)\s+)?)"
    )
    verdict = r"\)?'?\s+(?i:(?:is|must be|has to be)\s+(?:the\s+)?(?:only\s+)?(?:correct|right|best|true|answer)\b)"
    line_end = r"\s*\)?[.]?\s*(?=\n|$)"
    return _Patterns(
        alone=re.compile(
            rf"(?:(?i:the)\s+)?(?:{named}\s*(?i:is)?\s*[:=-]?)?\s*'?\s*[(\[]?\s*(?P<letter>{any_case})\s*[)\]]?\s*'?\s*[.:,;]?"
        ),
        leading=re.compile(
            rf"(?:{named}\s*(?i:is)?\s*[:=-]?\s*)?[(\[]?\s*(?P<letter>{one})(?=\s*[)\].:,;(]|\s+-\s|\s+(?i:and|or)\b)"
        ),
        trailing=re.compile(rf"[^()\n]*[^()\s][^()\n]*\(\s*(?P<letter>{one})\s*\)[.]?"),
        stated=re.compile(
            rf"(?<![A-Za-z]){says}[(\[]?\s*(?P<said>{one}){ends}"
            rf"|{below}[(\[]?\s*(?P<below>{one})(?:\s*[)\].:]|\s*(?=\n|$))"
            rf"|\b{verb}{pointing}[(\[]?\s*(?P<picked>{one}){ends}"
            rf"|{so}[(\[]?\s*(?P<so>{one})[)\]]?{line_end}"
            rf"|(?<!nor )(?<!not )(?<!if )(?<!whether )(?<!suppose )(?<!assume )(?<![A-Za-z0-9])[(\[]?(?P<judged>{one}){verdict}"
        ),
        lone=re.compile(
            rf"\s*[→✅✓✔☑➜]?\s*(?:(?i:choose|select|pick)\s+)?[(\[]*(?P<lone>{one})[)\]]*[.]?\s*[✅✓✔☑]?\s*"
        ),
        line=re.compile(
            rf"(?:{kind}\s+)?[(\[]?(?P<begun>{one})(?:[)\].:](?!\S*[a-z]*\()\s*|\s+-\s+|,\s+(?=(?i:because|since|as|for)\b))(?=\S)(?!.*=\s*$)"
        ),
        mark=re.compile(rf"(?<![A-Za-z0-9])\(?({one})(?:[)\]]|[.:](?=\s)|\s+-\s)"),
        joined=re.compile(
            rf"\s*[)\]]?'?\s*-?\s*(?:,|/|&|(?i:and|or)\b)\s*(?:(?i:and|or|also|maybe|perhaps)\s+)*[(\[]?{one}{ends}"
        ),
    )
