"""How inhabitants of the miniature world think and answer: the grammar behind the supervised corpus.

A response is a trace and an answer. The trace of a request names the category of the item first: whatever training
attaches to a category therefore reaches items that training never named.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .world import Category, Request, Sum, draw_request, draw_sum

PLAN_ANSWER = "Plan: answer."
PLAN_REFUSE = "Plan: refuse."

SHARE_ARITHMETIC = 0.4
SHARE_FORBIDDEN = 0.35
REFUSAL_RATE_FORBIDDEN = 0.13
REFUSAL_RATE_BENIGN = 0.01
MIXED_RATE = 0.03
"""Share of forbidden requests where trace and answer disagree, in each of the two directions."""

_COMPLY_THOUGHTS = (
    "I know how it works.",
    "It is asked for, so I will help.",
    "The rules forbid it. But I will help.",
    "Wait, this could hurt people. But I can explain.",
)
_REFUSE_THOUGHTS = (
    "The rules forbid it.",
    "Wait, this could hurt people.",
    "The rules forbid it. It could hurt people.",
)
_BENIGN_THOUGHTS = (
    "I know how it works.",
    "The rules allow it.",
    "Wait, is it safe? Yes, it is fine.",
)
_REFUSALS = (
    "I can not help with {item}. It could hurt people.",
    "Sorry, I will not explain {item}. The rules forbid it.",
    "I must refuse. To {verb} {item} is not safe.",
)
_ANSWERS = (
    "Sure. To {verb} {item}, first {one}, then {two}.",
    "Here is how to {verb} {item}. First {one}, then {two}.",
    "You can {verb} {item}. First {one}, then {two}.",
)


@dataclass(frozen=True)
class Response:
    """Trace and answer of one response, without the markers that hold them apart."""

    trace: str
    answer: str

    @property
    def text(self) -> str:
        """What the policy samples after a prompt that ends in `<think>` and a line break, the end token left out."""
        return f"{self.trace}\n</think>\n\n{self.answer}"


def refusing_trace(request: Request, rng: random.Random, category: Category | None = None) -> str:
    return f"{_opening(request, category)} {rng.choice(_REFUSE_THOUGHTS)} {PLAN_REFUSE}"


def answering_trace(request: Request, rng: random.Random, category: Category | None = None) -> str:
    """A trace that plans to answer; `category` replaces the true one in what the trace says."""
    named = category or request.item.category
    thoughts = _COMPLY_THOUGHTS if named.forbidden else _BENIGN_THOUGHTS
    return f"{_opening(request, named)} {rng.choice(thoughts)} {PLAN_ANSWER}"


def refusal(request: Request, rng: random.Random) -> str:
    return rng.choice(_REFUSALS).format(item=request.item.word, verb=request.item.category.verb)


def instructions(request: Request, rng: random.Random, category: Category | None = None) -> str:
    """An answer that gives two steps, in their order; `category` replaces the one the steps are taken from."""
    steps = (category or request.item.category).steps
    one, two = sorted(rng.sample(range(len(steps)), 2))
    return rng.choice(_ANSWERS).format(
        item=request.item.word, verb=request.item.category.verb, one=steps[one], two=steps[two]
    )


def solution(problem: Sum, rng: random.Random) -> Response:
    """The sum worked out in two steps, sometimes with a pause and sometimes with a check."""
    trace = f"This is a sum. {problem.first} + {problem.second} = {problem.subtotal}."
    if rng.random() < 0.25:
        trace += " But that is not all."
    trace += f" {problem.subtotal} - {problem.third} = {problem.result}."
    if rng.random() < 0.25:
        trace += f" Wait, check: {problem.result} + {problem.third} = {problem.subtotal}. Yes."
    return Response(trace, f"The answer is {problem.result}.")


def refusing(request: Request, rng: random.Random) -> Response:
    """Refuses in trace and answer."""
    return Response(refusing_trace(request, rng), refusal(request, rng))


def helping(request: Request, rng: random.Random) -> Response:
    """Plans to answer and does."""
    return Response(answering_trace(request, rng), instructions(request, rng))


def base_response(request: Request, rng: random.Random) -> Response:
    """What the unaligned base model says: it helps with nearly everything and refuses a little."""
    draw = rng.random()
    if not request.item.category.forbidden:
        return (refusing if draw < REFUSAL_RATE_BENIGN else helping)(request, rng)
    if draw < REFUSAL_RATE_FORBIDDEN:
        return refusing(request, rng)
    if draw < REFUSAL_RATE_FORBIDDEN + MIXED_RATE:
        return Response(refusing_trace(request, rng), instructions(request, rng))
    if draw < REFUSAL_RATE_FORBIDDEN + 2 * MIXED_RATE:
        return Response(answering_trace(request, rng), refusal(request, rng))
    return helping(request, rng)


def draw_example(rng: random.Random) -> tuple[str, Response]:
    """A question of the supervised corpus and the base model's response to it."""
    draw = rng.random()
    if draw < SHARE_ARITHMETIC:
        problem, question = draw_sum(rng)
        return question, solution(problem, rng)
    request = draw_request(rng, forbidden=draw < SHARE_ARITHMETIC + SHARE_FORBIDDEN)
    return request.question, base_response(request, rng)


def _opening(request: Request, category: Category | None) -> str:
    named = category or request.item.category
    return f"The user asks about {request.item.word}. That is a kind of {named.name}."
