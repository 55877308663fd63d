"""Streaming scores through fakes of the reward and reference groups: what is sent, in which calls, and how it is joined."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from batches import floats, miniature_tokenizer, sampled

from lrm_safety.conversation.families import get_family
from lrm_safety.conversation.response import ResponseParser
from lrm_safety.datasets.prompts import PromptRow, PromptSet
from lrm_safety.datasets.serialised import Source
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rewards.scorer import PrefixScores, Scores
from lrm_safety.rewards.segments import segment_metrics
from lrm_safety.rollouts import Rollout, TokenScores, TrainingSequence
from lrm_safety.scoring import StreamScorer
from lrm_safety.settings import RewardSettings

TEXTS = [
    "the plan is to help.\n</think>\n\nyes.",
    "one.\n</think>\n\nno.",
    "the sum of two",
    "a.\n</think>\n\nyes, yes.",
    "b.\n</think>\n\nno, no, no.",
]
FINISHES = ["stop", "stop", "length", "stop", "stop"]
PROMPTS = PromptSet(
    tuple(PromptRow(i, str(i), f"question {i}?", (), {}) for i in range(8)), "f00d", Source("made here")
)


class Reward:
    """Scores a conversation by the length of its answer; calls are kept, and counted as over-long texts."""

    def __init__(self) -> None:
        self.calls: list[list[Conversation]] = []
        self.prefixes: list[list[list[Conversation]] | None] = []
        self.collected: list[int] = []

    def submit(self, conversations: list[Conversation], prefixes: list[list[Conversation]] | None = None) -> int:
        self.calls.append(conversations)
        self.prefixes.append(prefixes)
        return len(self.calls) - 1

    def result(self, ticket: int) -> Scores:
        self.collected.append(ticket)
        lengths = floats([len(conversation.answer) for conversation in self.calls[ticket]])
        scores = Scores(lengths, {"judge/answer": lengths, "judge/trace": -lengths}, 1, 2, 3, 4)
        if (prefixes := self.prefixes[ticket]) is not None:
            scores.prefixes = PrefixScores(
                [floats([len(one.trace) for one in of_response]) for of_response in prefixes], 0.5, 0.25
            )
        return scores


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


def scorer(
    reward: Any, reference: Any, granularity: str = "response", told: list[Any] | None = None, policy: Any = None
) -> StreamScorer:
    family = get_family("miniature")
    settings = RewardSettings(granularity=granularity)
    parser, waiting = ResponseParser(family, miniature_tokenizer()), [] if told is None else told
    return StreamScorer(PROMPTS, parser, settings, reward, reference, policy, waiting.append)


ORDERS = pytest.mark.parametrize(
    "chunks", [[[0, 1, 2, 3, 4]], [[3, 1], [4], [0, 2]], [[4, 3, 2, 1, 0]], [[2], [0, 1, 4], [3]]]
)


@ORDERS
def test_whatever_finishes_first_the_batch_is_in_the_order_of_the_requests(chunks: list[list[int]]) -> None:
    reward, reference, of = Reward(), Reference(), rollouts()
    one = scorer(reward, reference)
    batch = one.collect(one.submit(([of[i] for i in chunk] for chunk in chunks), len(of)))
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
def test_a_trainer_that_waits_is_given_the_chunks_that_the_reference_is_given(chunks: list[list[int]]) -> None:
    reference, policy, of = Reference(), Reference(), rollouts()
    one = scorer(Reward(), reference, policy=policy)
    pending = one.submit(([of[i] for i in chunk] for chunk in chunks), len(of))
    assert [[sequence.index for sequence in call] for call in policy.calls] == chunks
    found = one.logprobs(pending)
    assert {i: (set(scores.logprobs.tolist()), len(scores.logprobs)) for i, scores in found.items()} == {
        i: ({-float(i)}, len(of[i].response_ids)) for i in range(5)
    }
    assert scorer(Reward(), reference).logprobs(pending) == {}


@ORDERS
def test_a_chunk_is_one_call(chunks: list[list[int]]) -> None:
    reward, reference, of = Reward(), Reference(), rollouts()
    scorer(reward, reference).submit(([of[i] for i in chunk] for chunk in chunks), len(of))
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

    pending = scorer(reward, None).submit(stream(), len(of))
    assert len(pending) == len(of) and not reward.collected, "nothing is waited for while others generate"


def test_what_still_waits_is_told() -> None:
    told: list[dict[str, float]] = []
    one, of = scorer(Reward(), None, told=told), rollouts()
    one.collect(one.submit([of[:2], of[2:]], len(of)))
    assert told == [{"queue/rollout": left} for left in (5, 3, 0)] + [{"queue/reward": left} for left in (5, 3, 0)]


def test_what_a_reward_reads() -> None:
    reward = Reward()
    scorer(reward, None).submit([rollouts()], len(TEXTS))
    whole, cut = reward.calls[0][0], reward.calls[0][2]
    assert whole == Conversation(
        "question 3?",
        "the plan is to help.",
        "yes.",
        "<think>\nthe plan is to help.\n</think>\n\nyes.",
        "complete",
    )
    assert cut == Conversation("question 5?", "the sum of two", "", "<think>\nthe sum of two", "unfinished_trace")


STEPPED = [
    "One. Two.\n</think>\n\nyes.",  # two steps and the answer
    "one.\n</think>\n\nno.",
    "One. The sum",  # cut off: the second step is the response itself
    "a.</think>b.</think>\n\nyes.",  # malformed
    "\n</think>\n\nno.",  # no trace: one step
]


@ORDERS
def test_steps_and_their_prefixes(chunks: list[list[int]]) -> None:
    reward, of = Reward(), [sampled(i, text, finish=FINISHES[i]) for i, text in enumerate(STEPPED)]
    one = scorer(reward, None, "segment")
    batch = one.collect(one.submit(([of[i] for i in chunk] for chunk in chunks), len(of)))
    sent = {
        call[k].prompt: prefixes[k]
        for call, prefixes in zip(reward.calls, reward.prefixes, strict=True)
        if prefixes is not None
        for k in range(len(call))
    }
    read = [[one.full for one in sent[f"question {i}?"]] for i in range(5)]
    assert read == [["<think>\nOne.", "<think>\nOne. Two."], ["<think>\none."], ["<think>\nOne."], [], []]
    assert {one.status for of_response in sent.values() for one in of_response} == {"unfinished_trace"}
    assert batch.segments is not None
    assert [scores.tolist() for scores in batch.segments.prefix_scores] == [[4, 9], [4], [4], [], []]
    assert [len(steps) for steps in batch.segments.steps] == [3, 2, 2, 0, 0]
    for steps, rollout in zip(batch.segments.steps, batch.rollouts, strict=True):
        assert not steps or steps[-1].end == len(rollout.response_ids)
    assert (batch.segments.seconds, batch.segments.response_seconds) == (len(chunks) * 0.5, len(chunks) * 0.25)
    assert segment_metrics(batch.segments) == {
        "reward/segment_fallback_rate": 0.4,
        "reward/prefixes_per_response": 0.8,
        "reward/prefix_score_std": pytest.approx(5 * 3**0.5 / 4),  # of 4, 9, 4, 4
        "reward/segment_seconds": len(chunks) * 0.5,
        "reward/segment_cost": 2.0,
    }


def test_without_segment_rewards_nothing_is_cut() -> None:
    reward = Reward()
    one = scorer(reward, None)
    batch = one.collect(one.submit([rollouts()], 5))
    assert reward.prefixes == [None] and batch.segments is None and batch.scores.prefixes is None


def test_without_a_reference_group() -> None:
    one = scorer(Reward(), None)
    assert one.collect(one.submit([rollouts()], 5)).reference == {}


def test_an_unscored_batch_keeps_the_rollouts() -> None:
    reward, of = Reward(), rollouts()
    one = scorer(reward, Reference())
    batch = one.unscored(one.submit([[of[3], of[1]], [of[0], of[4], of[2]]], 5))
    assert [rollout.request_id for rollout in batch.rollouts] == [0, 1, 2, 3, 4]
    assert np.isnan(batch.scores.total).all() and len(batch.scores.total) == 5
    assert not reward.collected
