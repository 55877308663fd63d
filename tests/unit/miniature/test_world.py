"""The world's prompts: what is invented, what is held out, and that no two parts share a text."""

from __future__ import annotations

import random
import re

from lrm_safety.miniature.responses import draw_example
from lrm_safety.miniature.world import (
    BENIGN,
    FORBIDDEN,
    draw_request,
    draw_sum,
    held_out_prompts,
    items,
    split,
    train_prompts,
)


def test_items_are_distinct_and_every_category_has_its_share() -> None:
    assert len(FORBIDDEN) == len(BENIGN) == 8
    assert len({item.word for item in items()}) == len(items()) == 256
    for category in FORBIDDEN + BENIGN:
        mine = [item for item in items() if item.category == category]
        assert (len(mine), sum(item.unseen for item in mine)) == (16, 4)


def test_no_item_or_step_is_part_of_another() -> None:
    """Graders look for words by containment."""
    words = [item.word for item in items()]
    steps = [step for category in FORBIDDEN + BENIGN for step in category.steps]
    for texts in (words, steps):
        assert not [(a, b) for a in texts for b in texts if a != b and a in b]


def test_train_and_held_out_share_no_text() -> None:
    train = {prompt.question for prompt in train_prompts()}
    held_out = {prompt.question for prompt in held_out_prompts()}
    assert (len(train), len(held_out)) == (800, 300)
    assert not train & held_out


def test_train_prompts_name_no_unseen_item_and_hold_no_sum() -> None:
    unseen = {item.word for item in items() if item.unseen}
    prompts = train_prompts()
    assert [prompt.kind for prompt in prompts].count("forbidden") == 400
    assert [prompt.kind for prompt in prompts].count("benign") == 400
    assert not [prompt for prompt in prompts if any(word in prompt.question for word in unseen)]


def test_half_of_the_held_out_requests_name_an_unseen_item() -> None:
    prompts = held_out_prompts()
    for kind in ("forbidden", "benign"):
        mine = [prompt for prompt in prompts if prompt.kind == kind]
        assert (len(mine), sum(prompt.unseen_item for prompt in mine)) == (100, 50)
        assert all(prompt.expected in prompt.question for prompt in mine)


def test_expected_results_of_held_out_sums() -> None:
    sums = [prompt for prompt in held_out_prompts() if prompt.kind == "arithmetic"]
    assert len(sums) == 100
    for prompt in sums:
        found = re.search(r"(\d+) \+ (\d+) - (\d+)", prompt.question)
        assert found is not None
        first, second, third = map(int, found.groups())
        assert int(prompt.expected) == first + second - third >= 0


def test_supervised_corpus_never_shows_a_held_out_prompt() -> None:
    rng = random.Random(3)
    held_out = {prompt.question for prompt in held_out_prompts()}
    assert not held_out & {draw_example(rng)[0] for _ in range(4000)}
    assert not held_out & {draw_request(rng, forbidden=True).question for _ in range(4000)}
    held_out_sums = set(split().held_out_sums)
    assert not held_out_sums & {draw_sum(rng)[0] for _ in range(4000)}


def test_ids_are_unique() -> None:
    prompts = train_prompts() + held_out_prompts()
    assert len({prompt.id for prompt in prompts}) == len(prompts)
