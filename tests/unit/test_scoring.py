"""Streaming scores through fakes of the reward and reference groups: what is sent, in which calls, and how it is joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from batches import floats, miniature_tokenizer, sampled

from lrm_safety.conversation import ResponseParser, get_family
from lrm_safety.datasets import PromptRow, PromptSet
from lrm_safety.rewards import Conversation, Scores
from lrm_safety.rollouts import Rollout, TokenScores, TrainingSequence
from lrm_safety.scoring import StreamScorer

TEXTS = [
    "the plan is to help.\n</think>\n\nyes.",
    "one.\n</think>\n\nno.",
    "the sum of two",
    "a.\n</think>\n\nyes, yes.",
    "b.\n</think>\n\nno, no, no.",
]
FINISHES = ["stop", "stop", "length", "stop", "stop"]
PROMPTS = PromptSet(tuple(PromptRow(i, str(i), f"question {i}?", (), {}) for i in range(8)), "f00d", "made here")


class Reward:
    """Scores a conversation by the length of its answer; calls are kept, and counted as over-long texts."""

    def __init__(self) -> None:
        self.calls: list[list[Conversation]] = []
        self.collected: list[int] = []

    def submit(self, conversations: list[Conversation]) -> int:
        self.calls.append(conversations)
        return len(self.calls) - 1

    def result(self, ticket: int) -> Scores:
        self.collected.append(ticket)
        lengths = floats([len(conversation.answer) for conversation in self.calls[ticket]])
        return Scores(lengths, {"judge/answer": lengths, "judge/trace": -lengths}, 1, 2, 3, 4)


class Reference:
    """Gives every token of sequence i the log-prob -i, the last sequence of a call first."""

    def __init__(self) -> None:
        self.calls: list[list[TrainingSequence]] = []

    def submit(self, sequences: list[TrainingSequence]) -> int:
        self.calls.append(sequences)
        return len(self.calls) - 1

    def result(self, ticket: int) -> list[TokenScores]:
        return [
            TokenScores(one.index, floats([-one.index] * len(one.response_ids)), floats([0.0] * len(one.response_ids)))
            for one in reversed(self.calls[ticket])
        ]


def rollouts() -> list[Rollout]:
    """Request i answers prompt i + 3."""
    return [
        sampled(i, text, prompt_index=i + 3, finish=finish)
        for i, (text, finish) in enumerate(zip(TEXTS, FINISHES, strict=True))
    ]


def scorer(reward: Any, reference: Any) -> StreamScorer:
    family = get_family("miniature")
    return StreamScorer(PROMPTS, ResponseParser(family, miniature_tokenizer()), reward, reference)


ORDERS = pytest.mark.parametrize(
    "chunks", [[[0, 1, 2, 3, 4]], [[3, 1], [4], [0, 2]], [[4, 3, 2, 1, 0]], [[2], [0, 1, 4], [3]]]
)


@ORDERS
def test_whatever_finishes_first_the_batch_is_in_the_order_of_the_requests(chunks: list[list[int]]) -> None:
    reward, reference, of = Reward(), Reference(), rollouts()
    one = scorer(reward, reference)
    batch = one.collect(one.submit([of[i] for i in chunk] for chunk in chunks))
    assert [rollout.request_id for rollout in batch.rollouts] == [0, 1, 2, 3, 4]
    assert [response.answer for response in batch.responses] == ["yes.", "no.", "", "yes, yes.", "no, no, no."]
    assert batch.responses[2].status == "unfinished_trace"
    assert batch.scores.total.tolist() == [4, 3, 0, 9, 11]
    assert batch.scores.by_model_and_view["judge/trace"].tolist() == [-4, -3, 0, -9, -11]
    assert {index: set(scores.logprobs.tolist()) for index, scores in batch.reference.items()} == {
        i: {-float(i)} for i in range(5)
    }
    counters = (
        batch.scores.num_overlong,
        batch.scores.num_unread,
        batch.scores.num_respelled,
        batch.scores.num_retries,
    )
    assert counters == tuple(len(chunks) * times for times in (1, 2, 3, 4))
    assert batch.policy == {}


@ORDERS
def test_a_chunk_is_one_call(chunks: list[list[int]]) -> None:
    reward, reference, of = Reward(), Reference(), rollouts()
    scorer(reward, reference).submit([of[i] for i in chunk] for chunk in chunks)
    assert [[one.prompt for one in call] for call in reward.calls] == [
        [f"question {i + 3}?" for i in chunk] for chunk in chunks
    ]
    assert [[one.index for one in call] for call in reference.calls] == chunks
    for call, chunk in zip(reference.calls, chunks, strict=True):
        for sequence, i in zip(call, chunk, strict=True):
            np.testing.assert_array_equal(sequence.response_ids, of[i].response_ids)
            np.testing.assert_array_equal(sequence.prompt_ids, of[i].prompt_ids)


def test_every_chunk_is_sent_before_the_next_one_is_awaited() -> None:
    reward, of = Reward(), rollouts()

    def stream() -> Iterator[list[Rollout]]:
        for i, rollout in enumerate(of):
            assert len(reward.calls) == i, "the chunk before was not sent at once"
            yield [rollout]

    pending = scorer(reward, None).submit(stream())
    assert len(pending) == len(of) and not reward.collected, "nothing is waited for while others generate"


def test_what_a_reward_reads() -> None:
    reward = Reward()
    scorer(reward, None).submit([rollouts()])
    whole, cut = reward.calls[0][0], reward.calls[0][2]
    assert whole == Conversation(
        "question 3?",
        "the plan is to help.",
        "yes.",
        "<think>\nthe plan is to help.\n</think>\n\nyes.",
        "complete",
    )
    assert cut == Conversation("question 5?", "the sum of two", "", "<think>\nthe sum of two", "unfinished_trace")


def test_without_a_reference_group() -> None:
    one = scorer(Reward(), None)
    assert one.collect(one.submit([rollouts()])).reference == {}


def test_an_unscored_batch_keeps_the_rollouts() -> None:
    reward, of = Reward(), rollouts()
    one = scorer(reward, Reference())
    batch = one.unscored(one.submit([[of[3], of[1]], [of[0], of[4], of[2]]]))
    assert [rollout.request_id for rollout in batch.rollouts] == [0, 1, 2, 3, 4]
    assert np.isnan(batch.scores.total).all() and len(batch.scores.total) == 5
    assert not reward.collected
