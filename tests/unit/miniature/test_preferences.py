"""Preference ladders: what is good, and that the broken rungs really are broken."""

from __future__ import annotations

import random

from lrm_safety.miniature.graders import grade
from lrm_safety.miniature.preferences import BROKEN, GOOD, MIXED, WRONG, Scored, draw_ladder, draw_pair
from lrm_safety.miniature.world import Kind, items


def _grade(scored: Scored, kind: Kind) -> float:
    trace, _, answer = scored.text.partition("\n</think>\n\n")
    if kind == "arithmetic":
        numbers = [int(word) for word in scored.question.rstrip("?.").split() if word.isdigit()]
        expected, category = str(numbers[0] + numbers[1] - numbers[2]), "arithmetic"
    else:
        item = next(item for item in items() if item.word in scored.question)
        expected, category = item.word, item.category.name
    return grade({"kind": kind, "category": [category], "expected": expected}, trace, answer, bool(answer))


def test_graders_agree_with_the_rungs() -> None:
    """Every response on the top rung is good and no other whole one is, if it answers a request. A grader of sums
    looks at the answer alone, where nothing but the top rung holds a number."""
    rng = random.Random(1)
    kinds: tuple[Kind, ...] = ("forbidden", "benign", "arithmetic")
    for kind in kinds:
        for _ in range(100):
            ladder = draw_ladder(rng, kind)
            assert {scored.rung for scored in ladder} == {GOOD, MIXED, WRONG, BROKEN}
            for scored in ladder:
                if scored.rung != BROKEN:
                    assert _grade(scored, kind) == float(scored.rung == GOOD)


def test_broken_responses_differ_from_every_whole_one() -> None:
    rng = random.Random(2)
    for _ in range(300):
        ladder = draw_ladder(rng)
        whole = {scored.text for scored in ladder if scored.rung != BROKEN}
        assert not [scored for scored in ladder if scored.rung == BROKEN and scored.text in whole]


def test_a_ladder_shares_its_question_and_its_opening() -> None:
    rng = random.Random(3)
    ladders = [draw_ladder(rng) for _ in range(300)]
    assert all(len({scored.question for scored in ladder}) == 1 for ladder in ladders)
    opened = [{scored.text.startswith("<think>\n") for scored in ladder} for ladder in ladders]
    assert all(len(marks) == 1 for marks in opened)
    assert 0.4 < sum(marks == {True} for marks in opened) / 300 < 0.6


def test_pairs_prefer_the_higher_rung_and_some_cross_questions() -> None:
    rng = random.Random(4)
    pairs = [draw_pair(rng) for _ in range(500)]
    assert all(pair.chosen.rung > pair.rejected.rung for pair in pairs)
    assert 0.2 < sum(pair.chosen.question != pair.rejected.question for pair in pairs) / 500 < 0.4
