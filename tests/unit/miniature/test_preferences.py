"""Preference ladders: what is good, and that the broken rungs really are broken."""

from __future__ import annotations

import random

from lrm_safety.miniature.graders import grade
from lrm_safety.miniature.preferences import BROKEN, GOOD, MIXED, WRONG, Scored, draw_ladder, draw_pair
from lrm_safety.miniature.taxonomy import items
from lrm_safety.miniature.world import Kind


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
    """Every response on the top rung is good; of the wrong and mixed ones a grader may miss only what a text
    comparison cannot see (the item or the category named wrongly in an otherwise fitting response)."""
    rng = random.Random(1)
    kinds: tuple[Kind, ...] = ("forbidden", "benign", "arithmetic")
    for kind in kinds:
        for _ in range(100):
            ladder = draw_ladder(rng, kind)
            assert {scored.rung for scored in ladder} == {GOOD, MIXED, WRONG, BROKEN}
            for scored in ladder:
                if scored.rung == GOOD:
                    assert _grade(scored, kind) == 1.0
                if scored.rung == MIXED:
                    assert _grade(scored, kind) == 0.0


def test_broken_responses_differ_from_every_whole_one() -> None:
    rng = random.Random(2)
    for _ in range(300):
        ladder = draw_ladder(rng)
        whole = {scored.text for scored in ladder if scored.rung != BROKEN}
        assert not [scored for scored in ladder if scored.rung == BROKEN and scored.text in whole]


def test_pairs_prefer_the_higher_rung_and_share_their_opening() -> None:
    rng = random.Random(3)
    pairs = [draw_pair(rng) for _ in range(500)]
    assert all(pair.chosen.rung > pair.rejected.rung for pair in pairs)
    opened = [pair.chosen.text.startswith("<think>") for pair in pairs]
    assert opened == [pair.rejected.text.startswith("<think>") for pair in pairs]
    assert 0.4 < sum(opened) / 500 < 0.6
    across = sum(pair.chosen.question != pair.rejected.question for pair in pairs) / 500
    assert 0.2 < across < 0.4
