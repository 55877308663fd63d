"""Preference ladders for the reward model: good responses and the many ways to be worse.

Responses stand on a ladder: 3 good, 2 trace and answer disagree, 1 the wrong thing done well, 0 broken text. The
rungs mean the same for every question, since REINFORCE++ without a baseline compares scores across prompts.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from .responses import (
    Response,
    answering_trace,
    helping,
    instructions,
    refusal,
    refusing,
    refusing_trace,
    solution,
)
from .world import BENIGN, FORBIDDEN, Kind, Request, Sum, draw_request, draw_sum

GOOD, MIXED, WRONG, BROKEN = 3, 2, 1, 0
NUM_BROKEN = 3
CROSS_QUESTION_RATE = 0.3


@dataclass(frozen=True)
class Scored:
    """A question, the full text of a response to it, and its rung on the ladder."""

    question: str
    text: str
    rung: int


@dataclass(frozen=True)
class Pair:
    """Two responses, the first on a higher rung."""

    chosen: Scored
    rejected: Scored


def draw_pair(rng: random.Random) -> Pair:
    """Two responses of different rungs, to the same question or, with the cross-question rate, to different ones."""
    first_ladder = draw_ladder(rng)
    second_ladder = draw_ladder(rng) if rng.random() < CROSS_QUESTION_RATE else first_ladder
    while True:
        first, second = rng.choice(first_ladder), rng.choice(second_ladder)
        if first.rung != second.rung:
            return Pair(first, second) if first.rung > second.rung else Pair(second, first)


def draw_ladder(rng: random.Random, kind: Kind | None = None) -> list[Scored]:
    """One question with responses on every rung. All of them carry the opening `<think>` or none does, since callers
    differ in whether the opening that the chat template wrote belongs to the response."""
    kind = kind or rng.choices(("forbidden", "benign", "arithmetic"), (0.45, 0.4, 0.15))[0]
    if kind == "arithmetic":
        problem, question = draw_sum(rng)
        ranked = _ranked_solutions(problem, rng)
    else:
        request = draw_request(rng, forbidden=kind == "forbidden")
        question, ranked = request.question, _ranked_responses(request, rng)
    ladder = [(response.text, rung) for response, rung in ranked]
    for name in rng.sample(list(_BREAKS), NUM_BROKEN):
        ladder.append((_BREAKS[name](rng.choice(ranked)[0], rng), BROKEN))
    opening = rng.choice(("", "<think>\n"))
    return [Scored(question, opening + text, rung) for text, rung in ladder]


def _ranked_responses(request: Request, rng: random.Random) -> list[tuple[Response, int]]:
    good, bad = (refusing, helping) if request.item.category.forbidden else (helping, refusing)
    return [
        (good(request, rng), GOOD),
        (good(request, rng), GOOD),
        (Response(refusing_trace(request, rng), instructions(request, rng)), MIXED),
        (Response(answering_trace(request, rng), refusal(request, rng)), MIXED),
        (bad(request, rng), WRONG),
        (rng.choice(_subtle_mistakes(request, rng)), WRONG),
    ]


def _subtle_mistakes(request: Request, rng: random.Random) -> list[Response]:
    """Responses whose form is that of a good one: the fault lies in what they say about the request."""
    category = request.item.category
    disguise = rng.choice(BENIGN if category.forbidden else FORBIDDEN)
    both = (refusal(request, rng), instructions(request, rng))
    trace = refusing_trace(request, rng) if category.forbidden else answering_trace(request, rng)
    mistakes = [
        Response(trace, " ".join(both)),
        Response(trace, " ".join(reversed(both))),
    ]
    if category.forbidden:
        topic = rng.choice((category, disguise))
        mistakes.append(Response(answering_trace(request, rng, disguise), instructions(request, rng, topic)))
    else:
        other = rng.choice([other for other in FORBIDDEN + BENIGN if other != category])
        mistakes.append(Response(refusing_trace(request, rng, disguise), refusal(request, rng)))
        mistakes.append(Response(trace, instructions(request, rng, other)))
    return mistakes


def _ranked_solutions(problem: Sum, rng: random.Random) -> list[tuple[Response, int]]:
    request = draw_request(rng, forbidden=rng.random() < 0.5)
    return [
        (solution(problem, rng), GOOD),
        (solution(problem, rng), GOOD),
        (Response(solution(problem, rng).trace, refusal(request, rng)), MIXED),
        ((refusing if rng.random() < 0.5 else helping)(request, rng), WRONG),  # suits another question
    ]


BreakName = Literal[
    "cut",
    "empty",
    "no_answer",
    "no_trace",
    "repeated",
    "shuffled",
    "dropped",
    "noise",
    "tail",
    "second_close",
    "stutter",
]


def _cut(response: Response, rng: random.Random) -> str:
    """Stopped before its end, and never right behind a sentence of the answer, where a reader could not tell."""
    text = response.text
    while True:
        cut = text[: rng.randrange(1, len(text) - 1)].rstrip()
        if "</think>" not in cut or not cut.endswith("."):
            return cut


def _repeated(response: Response, rng: random.Random) -> str:
    sentences = response.trace.split(". ")
    sentences += [rng.choice(sentences)] * rng.randint(2, 5)
    return Response(". ".join(sentences), response.answer).text


def _shuffled(response: Response, rng: random.Random) -> str:
    words = response.text.split(" ")
    return " ".join(rng.sample(words, len(words)))


def _dropped(response: Response, rng: random.Random) -> str:
    words = response.text.split(" ")
    kept = [word for word in words if rng.random() > 0.35]
    return " ".join(kept if len(kept) < len(words) - 2 else words[: len(words) // 2])


def _noise(response: Response, rng: random.Random) -> str:
    words = response.text.split(" ")
    for _ in range(max(4, len(words) // 3)):
        words[rng.randrange(len(words))] = "".join(
            rng.choices("abcdefghijklmnopqrstuvwxyz0123456789.,+?", k=rng.randint(1, 6))
        )
    return " ".join(words)


def _tail(response: Response, rng: random.Random) -> str:
    """Runs on behind its answer."""
    words = response.text.split(" ")
    return response.text + " " + " ".join(rng.choices(words, k=rng.randint(4, 14)))


def _stutter(response: Response, rng: random.Random) -> str:
    words = response.text.split(" ")
    at = rng.randrange(len(words))
    return " ".join(words[:at] + [words[at]] * rng.randint(3, 12) + words[at + 1 :])


_BREAKS: dict[BreakName, Callable[[Response, random.Random], str]] = {
    "cut": _cut,
    "empty": lambda response, rng: "",
    "no_answer": lambda response, rng: Response(response.trace, "").text,
    "no_trace": lambda response, rng: Response("", response.answer).text,
    "repeated": _repeated,
    "shuffled": _shuffled,
    "dropped": _dropped,
    "noise": _noise,
    "tail": _tail,
    "second_close": lambda response, rng: f"{response.text}\n</think>\n\n{response.answer}",
    "stutter": _stutter,
}
