"""Steps partition tokens, their rewards sum to the score exactly, and the best policy does not move."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_rewards import conversation

from lrm_safety.conversation.families import get_family
from lrm_safety.conversation.response import ResponseParser
from lrm_safety.errors import RewardError
from lrm_safety.rewards.segments import (
    GRID,
    Step,
    characters_after,
    cut_text,
    prefix_conversations,
    step_rewards,
    steps_of,
    token_rewards,
)


class Pieces:
    """A byte-level vocabulary made of one text's bytes: token i stands for piece i, whatever it cuts through."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self.ids = list(range(len(pieces)))

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._pieces[i] for i in ids).decode("utf-8", errors="replace")


def pieces_of(text: str) -> Pieces:
    return Pieces([character.encode() for character in text])


TEXT = st.text(alphabet="ab .!?\n\"'é😀1", max_size=60)


@st.composite
def cut_bytes(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXT) -> tuple[str, Pieces]:
    text = draw(texts)
    data = text.encode()
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(data) - 1)), max_size=len(data))))
    bounds = [0, *(cut for cut in cuts if cut < len(data)), len(data)]
    return text, Pieces([data[a:b] for a, b in itertools.pairwise(bounds) if b > a])


def test_sentences_worked_out_by_hand() -> None:
    text = 'It is 3.14. Wait!  "No." Yes\nlast one'
    steps = [text[a:b] for a, b in itertools.pairwise([0, *cut_text(text, "sentences")])]
    assert steps == ["It is 3.14.", " Wait!", '  "No."', " Yes", "\nlast one"]
    assert [text[a:b] for a, b in itertools.pairwise([0, *cut_text(text, "lines")])] == [text[:28], "\nlast one"]
    assert cut_text(" \n", "lines") == []
    with pytest.raises(ValueError, match="sentences or lines"):
        cut_text("a", "words")


@given(TEXT, st.sampled_from(["sentences", "lines"]))
def test_cuts_partition_a_text_into_steps_that_say_something(text: str, unit: str) -> None:
    ends = cut_text(text, unit)
    steps = [text[a:b] for a, b in itertools.pairwise([0, *ends])]
    assert "".join(steps) == (text if text.strip() else "")
    assert all(step.strip() for step in steps)


@given(cut_bytes())
def test_characters_are_settled_by_the_token_that_completes_them(case: tuple[str, Pieces]) -> None:
    text, pieces = case
    ends = list(itertools.accumulate(len(character.encode()) for character in text))
    expected = []
    for k in range(len(pieces.ids) + 1):
        num_bytes = sum(len(pieces._pieces[i]) for i in pieces.ids[:k])
        expected.append(sum(end <= num_bytes for end in ends))
    assert characters_after(pieces.ids, pieces.decode) == expected


def test_a_decoder_that_depends_on_its_neighbours() -> None:
    """SentencePiece's strips the blank before the first token: pieces decoded one by one lose their blanks."""
    words = [" one", " two.", " three"]

    def decode(ids: Sequence[int]) -> str:
        return "".join(words[i] for i in ids).lstrip()

    assert characters_after([0, 1, 2], decode) == [0, 3, 8, 14]
    assert steps_of([0, 1, 2], 3, decode, "sentences") == [Step(0, 2, 8), Step(2, 3, 14)]


@given(cut_bytes(), st.data(), st.sampled_from(["sentences", "lines"]), st.sampled_from([None, 1, 2, 5]))
def test_every_token_belongs_to_exactly_one_step(
    case: tuple[str, Pieces], data: st.DataObject, unit: str, max_steps: int | None
) -> None:
    _, pieces = case
    num_trace = data.draw(st.integers(0, len(pieces.ids)))
    steps = steps_of(pieces.ids, num_trace, pieces.decode, unit, max_steps)
    covered = [token for step in steps for token in range(step.start, step.end)]
    assert covered == pieces.ids
    assert all(step.end > step.start for step in steps)
    if max_steps is not None and pieces.ids:
        assert len(steps) <= max(max_steps, 2)
    # No token of the answer shares a step with a trace that says something.
    if pieces.decode(pieces.ids[:num_trace]).strip() and num_trace < len(pieces.ids):
        assert steps[-1] == Step(num_trace, len(pieces.ids), None)
    positions = [step.num_characters for step in steps if step.num_characters is not None]
    assert positions == sorted(set(positions))


def test_tags_and_answer_worked_out_by_hand() -> None:
    trace, answer = "<think>\nOne. Two.\n</think>", "\n\nYes. No."
    pieces = pieces_of(trace + answer)
    steps = steps_of(pieces.ids, len(trace), pieces.decode, "sentences")
    assert [(step.start, step.end) for step in steps] == [(0, 12), (12, len(trace)), (len(trace), len(trace + answer))]
    response = conversation("q", "One. Two.", "Yes. No.")
    read = prefix_conversations(response, trace, steps)
    assert [one.full for one in read] == ["<think>\nOne.", "<think>\nOne. Two.", response.full]
    assert [one.trace for one in read[:2]] == ["One.", "One. Two."] and read[-1] is response


def test_a_trace_that_was_cut_off() -> None:
    pieces = Pieces([b"One. Tw", "é".encode()[:1]])
    steps = steps_of([0, 1], 2, pieces.decode, "sentences")
    assert steps == [Step(0, 1, 4), Step(1, 2, 8)]
    response = conversation("q", "One. Tw\ufffd", "", "unfinished_trace")
    assert [one.full for one in prefix_conversations(response, "One. Tw\ufffd", steps)] == [
        "<think>\nOne.",
        response.full,
    ]


@pytest.mark.parametrize(("trace", "answer"), [("", "Yes."), ("<think>\n</think>", "Yes."), ("<think>", "")])
def test_without_a_trace_the_response_is_one_step(trace: str, answer: str) -> None:
    pieces = pieces_of(trace + answer)
    assert steps_of(pieces.ids, len(trace), pieces.decode, "sentences") == [Step(0, len(trace + answer), None)]
    assert steps_of([], 0, pieces.decode, "sentences") == []


def test_real_tokenizer_of_the_miniature() -> None:
    from transformers import AutoTokenizer

    from lrm_safety.miniature import POLICY_FOLDER

    tokenizer = AutoTokenizer.from_pretrained(POLICY_FOLDER)
    family = get_family("miniature")
    ids = family.sft_response_ids(tokenizer, "The rules forbid it. Wait, 12 + 3 = 15. Plan: refuse.", "I must refuse.")
    parsed = ResponseParser(family, tokenizer).parse(ids, "stop")
    steps = steps_of(ids, parsed.num_trace_tokens, tokenizer.decode, "sentences")
    texts = [tokenizer.decode(ids[step.start : step.end]) for step in steps]
    assert [text.strip() for text in texts] == [
        "The rules forbid it.",
        "Wait, 12 + 3 = 15.",
        "Plan: refuse.\n</think>",
        "I must refuse.<|end|>",
    ]


def test_steps_are_joined_evenly() -> None:
    pieces = pieces_of("a.\nb.\nc.\nd.\ne.\n")
    steps = steps_of(pieces.ids, len(pieces.ids), pieces.decode, "lines", max_steps=2)
    assert [(step.start, step.end) for step in steps] == [(0, 5), (5, 15)]


@given(st.lists(st.floats(-1e5, 1e5, width=32), min_size=1, max_size=200), st.randoms(use_true_random=False))
def test_rewards_sum_to_the_score_exactly(scores: list[float], order: random.Random) -> None:
    rewards = step_rewards(np.array(scores, dtype=np.float32))
    expected = round(scores[-1] / GRID) * GRID
    assert abs(expected - scores[-1]) <= GRID / 2
    if abs(scores[-1]) >= 2**-6 or scores[-1] == 0:
        assert expected == scores[-1]
    assert float(np.sum(rewards)) == expected
    shuffled = rewards.tolist()
    order.shuffle(shuffled)
    assert sum(shuffled) == math.fsum(shuffled) == expected
    steps = [Step(3 * i, 3 * i + 3, i) for i in range(len(scores))]
    tokens = token_rewards(rewards, steps, 3 * len(scores))
    assert tokens.sum() == expected and np.flatnonzero(tokens).tolist() == [3 * i + 2 for i in np.flatnonzero(rewards)]


def test_rewards_worked_out_by_hand() -> None:
    assert step_rewards([1.5, -2.0, 3.0]).tolist() == [1.5, -3.5, 5.0]
    assert step_rewards([]).size == 0
    assert token_rewards([1.0, 2.0], [Step(0, 2, 4), Step(2, 3, None)], 3).tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("score", [math.nan, math.inf, 2.0**23])
def test_scores_that_cannot_be_shared(score: float) -> None:
    with pytest.raises(RewardError, match="finite"):
        step_rewards([1.0, score])


def test_best_policy_does_not_move() -> None:
    """A tiny MDP, enumerated: two actions, three steps, a random symbol after each of the first two (so that the best
    action depends on luck). Every deterministic policy's value is the same with segment rewards; with the prefixes'
    scores themselves as rewards, which is no shaping, another policy is best."""
    draw = np.random.default_rng(3)
    actions, symbols, depth = (0, 1), (0, 1), 3
    chance = 0.3  # of symbol 1
    states = [
        tuple(state)
        for level in range(depth)
        for state in itertools.product(itertools.product(actions, symbols), repeat=level)
    ]
    phi = {
        (*state, action): float(np.float32(draw.normal())) for state in states for action in actions
    }  # the score of each prefix, the last ones being whole responses

    def value(policy: dict[tuple, int], reward_of_episode) -> float:
        total = 0.0
        for luck in itertools.product(symbols, repeat=depth - 1):
            state: tuple = ()
            scores, probability = [], 1.0
            for level in range(depth):
                action = policy[state]
                scores.append(phi[*state, action])
                if level < depth - 1:
                    probability *= chance if luck[level] else 1 - chance
                    state = (*state, (action, luck[level]))
            total += probability * reward_of_episode(scores)
        return total

    # 2^21 policies differ mostly where they never go: states are fixed level by level instead.
    def policies():
        inner = [state for state in states if len(state) < 2]
        for choice in itertools.product(actions, repeat=len(inner)):
            policy = dict(zip(inner, choice, strict=True))
            yield policy

    leaves = [state for state in states if len(state) == 2]

    def best(reward_of_episode) -> tuple[float, set]:
        found: dict = {}
        for policy in policies():
            # The last action is independent in each state: both are tried where the policy comes.
            reached = [leaf for leaf in leaves if policy[()] == leaf[0][0] and policy[leaf[:1]] == leaf[1][0]]
            for last in itertools.product(actions, repeat=len(reached)):
                full = {**dict.fromkeys(leaves, 0), **policy, **dict(zip(reached, last, strict=True))}
                key = (policy[()], tuple(policy[((policy[()], s),)] for s in symbols), last)
                found[key] = value(full, reward_of_episode)
        top = max(found.values())
        return found, {key for key, one in found.items() if one > top - 1e-12}

    by_response, best_by_response = best(lambda scores: scores[-1])
    by_segment, best_by_segment = best(lambda scores: float(step_rewards(scores).sum()))
    assert len(by_response) == 2 * 2**2 * 2**4
    assert by_segment.keys() == by_response.keys()
    assert max(abs(by_segment[key] - by_response[key]) for key in by_segment) < 1e-8
    assert best_by_segment == best_by_response and len(best_by_response) == 1
    _, best_by_sum = best(sum)
    assert best_by_sum != best_by_response


def test_rewards_to_go_rank_actions_as_the_score_does() -> None:
    """At every step: what follows differs between two continuations of one prefix exactly as their scores do."""
    prefix = [0.5, -1.0]
    first, second = [*prefix, 2.0, 4.0], [*prefix, -3.0, 1.0]
    to_go = [step_rewards(scores)[len(prefix) :].sum() for scores in (first, second)]
    assert to_go[0] - to_go[1] == 4.0 - 1.0
    assert to_go[0] == 4.0 - prefix[-1]
