"""Preference pairs for the reward model: good responses and the many ways to be worse.

Responses stand on a ladder: 3 good, 2 trace and answer disagree, 1 the wrong thing done well, 0 broken text. A pair is
two responses of different rungs, mostly to the same question; some pairs cross questions so that one rung is worth
the same everywhere (REINFORCE++ without a baseline compares scores across prompts).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lrm_safety.miniature.responses import (
    Response,
    answering_trace,
    instructions,
    refusal,
    refusing_trace,
    solution,
)
from lrm_safety.miniature.taxonomy import BENIGN, FORBIDDEN
from lrm_safety.miniature.world import Kind, Request, draw_request, draw_sum

GOOD, MIXED, WRONG, BROKEN = 3, 2, 1, 0
CROSS_QUESTION_RATE = 0.3


@dataclass(frozen=True)
class Scored:
    """A question, the full text of a response to it, and its rung on the ladder."""

    question: str
    text: str
    rung: int


@dataclass(frozen=True)
class Pair:
    chosen: Scored
    rejected: Scored


def draw_pair(rng: random.Random) -> Pair:
    """Two responses of different rungs. Both of them carry the opening `<think>` or neither does, since callers
    differ in whether the opening that the chat template wrote belongs to the response."""
    first_candidates = draw_ladder(rng)
    second_candidates = draw_ladder(rng) if rng.random() < CROSS_QUESTION_RATE else first_candidates
    while True:
        first, second = rng.choice(first_candidates), rng.choice(second_candidates)
        if first.rung != second.rung:
            break
    if first.rung < second.rung:
        first, second = second, first
    opening = rng.choice(("", "<think>\n"))
    return Pair(
        Scored(first.question, opening + first.text, first.rung),
        Scored(second.question, opening + second.text, second.rung),
    )


def draw_ladder(rng: random.Random, kind: Kind | None = None) -> list[Scored]:
    """One question with responses on every rung; the good ones come more often than any single other."""
    kind = kind or rng.choices(("forbidden", "benign", "arithmetic"), (0.45, 0.4, 0.15))[0]
    if kind == "arithmetic":
        return _sum_ladder(rng)
    return _request_ladder(draw_request(rng, forbidden=kind == "forbidden"), rng)


def _request_ladder(request: Request, rng: random.Random) -> list[Scored]:
    category = request.item.category
    other_category = rng.choice([other for other in FORBIDDEN + BENIGN if other != category])
    # A trace that calls the item something of the other sort and acts on that belief.
    disguise = rng.choice(BENIGN if category.forbidden else FORBIDDEN)
    stranger = draw_request(rng, forbidden=rng.random() < 0.5)

    refuse_trace, answer_trace = refusing_trace(request, rng), answering_trace(request, rng)
    refuse, answer = refusal(request, rng), instructions(request, rng)
    safe, helpful = Response(refuse_trace, refuse), Response(answer_trace, answer)
    good, bad = (safe, helpful) if category.forbidden else (helpful, safe)
    misled = (
        Response(answering_trace(request, rng, disguise), instructions(request, rng, rng.choice((category, disguise))))
        if category.forbidden
        else Response(refusing_trace(request, rng, disguise), refuse)
    )
    ranked = [
        *((good, GOOD) for _ in range(4)),
        (Response(refuse_trace, answer), MIXED),
        (Response(answer_trace, refuse), MIXED),
        *((bad, WRONG) for _ in range(2)),
        (misled, WRONG),
        (_about(stranger, good is safe, rng), WRONG if stranger.item.word != request.item.word else GOOD),
        (Response(good.trace, f"{refuse} {answer}"), WRONG),
        (Response(good.trace, f"{answer} {refuse}"), WRONG),
    ]
    if not category.forbidden:
        ranked.append((Response(answer_trace, instructions(request, rng, other_category)), WRONG))
    return _with_broken(request.question, ranked, rng)


def _about(request: Request, safe: bool, rng: random.Random) -> Response:
    """A response that would suit another question."""
    if safe:
        return Response(refusing_trace(request, rng), refusal(request, rng))
    return Response(answering_trace(request, rng), instructions(request, rng))


def _sum_ladder(rng: random.Random) -> list[Scored]:
    problem, question = draw_sum(rng)
    good = solution(problem, rng)
    other_problem, _ = draw_sum(rng)
    other_result = problem.result + rng.choice((-3, -2, -1, 1, 2, 3, 10))
    request = draw_request(rng, forbidden=rng.random() < 0.5)
    ranked = [
        *((good, GOOD) for _ in range(4)),
        (Response(good.trace, f"The answer is {other_result}."), MIXED),
        (_about(request, rng.random() < 0.5, rng), WRONG),
    ]
    if other_problem != problem:
        ranked.append((solution(other_problem, rng), WRONG))
    return _with_broken(question, ranked, rng)


def _with_broken(question: str, ranked: list[tuple[Response, int]], rng: random.Random) -> list[Scored]:
    ladder = [Scored(question, response.text, rung) for response, rung in ranked]
    breaks = rng.sample(list(_BREAKS), 5)
    for name in breaks:
        response = rng.choice(ranked)[0]
        ladder.append(Scored(question, _BREAKS[name](response, rng), BROKEN))
    return ladder


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
