"""Score rollouts while others still generate: chunks go to all scorers at once, results are joined at the end.

Scorers are the reward, the reference and a trainer that would wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .conversation.refusal import is_refusal
from .conversation.response import ParsedResponse, ResponseParser, compose_response
from .datasets.prompts import PromptSet
from .experience import RolloutBatch
from .rewards.conversation import Conversation
from .rewards.scorer import PrefixScores, Scores
from .rewards.segments import Segments, Step, cut
from .rollouts import Rollout, TokenScores, TrainingSequence
from .settings import RewardSettings
from .workers.protocols import RewardScorer, TokenScorer


@dataclass
class PendingChunk:
    """One chunk on its way."""

    rollouts: list[Rollout]
    responses: list[ParsedResponse]
    refusals: list[bool | None]
    """See `is_refusal`; read here, where the engines are waited for in any case."""
    steps: list[list[Step]]
    """Of each response; empty without segment rewards and where one fell back."""
    reward: Any
    """Ticket of the reward."""
    reference: Any
    """Ticket of the reference; None without one."""
    policy: Any
    """Ticket of the trainer; None where it scores later."""


class StreamScorer:
    """Parses responses and hands them to whoever scores them.

    A chunk is one call, so the composition of every batch a model sees depends on the rollouts alone and a resumed run
    computes the same numbers to the last bit.
    """

    def __init__(
        self,
        prompts: PromptSet,
        parser: ResponseParser,
        settings: RewardSettings,
        reward: RewardScorer,
        reference: TokenScorer | None,
        policy: TokenScorer | None = None,
        waiting: Callable[[Mapping[str, float]], None] = lambda metrics: None,
    ) -> None:
        """
        Args:
            policy: the trainer, where the weights that it has while responses are sampled are those whose log-probs are wanted.
            waiting: is told, as metrics, how many responses the engines and then the reward still owe.
        """
        self._waiting = waiting
        self._prompts = prompts
        self._parser = parser
        self._settings = settings
        self._reward = reward
        self._reference = reference
        self._policy = policy

    def submit(self, chunks: Iterable[list[Rollout]], num_requests: int) -> list[PendingChunk]:
        """Consume the stream of finished responses to `num_requests` requests, sending each chunk on as it comes."""
        pending: list[PendingChunk] = []
        self.owed(num_requests)
        for rollouts in chunks:
            num_requests -= len(rollouts)
            self.owed(num_requests)
            pending.append(self.send(rollouts))
        return pending

    def owed(self, num_requests: int) -> None:
        """Tell how many responses the engines still owe."""
        self._waiting({"queue/rollout": num_requests})

    def send(self, rollouts: list[Rollout]) -> PendingChunk:
        """Begin to score one chunk; returns at once."""
        responses = [self._parser.parse(rollout.response_ids.tolist(), rollout.finish_reason) for rollout in rollouts]
        conversations = [self._conversation(*pair) for pair in zip(rollouts, responses, strict=True)]
        sequences = [training_sequence(rollout) for rollout in rollouts]
        reference = None if self._reference is None else self._reference.submit(sequences)
        steps: list[list[Step]] = [[] for _ in rollouts]
        prefixes: list[list[Conversation]] | None = None
        if self._settings.granularity == "segment":
            parts = [
                cut(*triple, self._parser, self._settings.segment)
                for triple in zip(rollouts, responses, conversations, strict=True)
            ]
            steps, prefixes = [part[0] for part in parts], [part[1] for part in parts]
        ticket = self._reward.submit(conversations, prefixes)
        policy = None if self._policy is None else self._policy.submit(sequences)
        refusals = [is_refusal(response.answer) for response in responses]
        return PendingChunk(rollouts, responses, refusals, steps, ticket, reference, policy)

    def collect(self, pending: list[PendingChunk]) -> RolloutBatch:
        """Wait for the scores and put everything in the order of the requests."""
        scores, left = [], sum(len(chunk.rollouts) for chunk in pending)
        for chunk in pending:
            self._waiting({"queue/reward": left})
            scores.append(self._reward.result(chunk.reward))
            left -= len(chunk.rollouts)
        self._waiting({"queue/reward": left})
        reference = _by_index(self._reference, [chunk.reference for chunk in pending])
        return _batch(pending, _join(scores), reference)

    def logprobs(self, pending: list[PendingChunk]) -> dict[int, TokenScores]:
        """Wait for the trainer's scores, by position in the batch; none where it was not given the chunks."""
        return _by_index(self._policy, [chunk.policy for chunk in pending])

    def unscored(self, pending: list[PendingChunk]) -> RolloutBatch:
        """The same batch without any score (NaN), for the record of a run whose reward failed."""
        num_responses = sum(len(chunk.rollouts) for chunk in pending)
        return _batch(pending, Scores(np.full(num_responses, np.nan, dtype=np.float32), {}, 0, 0, 0, 0), {})

    def _conversation(self, rollout: Rollout, response: ParsedResponse) -> Conversation:
        return Conversation(
            prompt=self._prompts.rows[rollout.prompt_index].question,
            trace=response.trace,
            answer=response.answer,
            full=compose_response(response.trace, response.answer),
            status=response.status,
        )


def training_sequence(rollout: Rollout) -> TrainingSequence:
    """What a forward pass needs of a rollout."""
    return TrainingSequence(rollout.request_id, rollout.prompt_ids, rollout.response_ids)


def _batch(pending: list[PendingChunk], scores: Scores, reference: dict[int, TokenScores]) -> RolloutBatch:
    """Chunks in the order in which they finished, `scores` too, into the order of the requests."""
    rollouts = [rollout for chunk in pending for rollout in chunk.rollouts]
    responses = [response for chunk in pending for response in chunk.responses]
    refusals = [refuses for chunk in pending for refuses in chunk.refusals]
    order = np.argsort([rollout.request_id for rollout in rollouts], kind="stable")
    by_view = {name: values[order] for name, values in scores.by_model_and_view.items()}
    segments = None
    if scores.prefixes is not None:
        steps = [steps for chunk in pending for steps in chunk.steps]
        segments = Segments(
            steps=[steps[i] for i in order],
            prefix_scores=[scores.prefixes.by_response[i] for i in order],
            seconds=scores.prefixes.seconds,
            response_seconds=scores.prefixes.response_seconds,
        )
    return RolloutBatch(
        rollouts=[rollouts[i] for i in order],
        responses=[responses[i] for i in order],
        refusals=[refusals[i] for i in order],
        scores=replace(scores, total=scores.total[order], by_model_and_view=by_view, prefixes=None),
        reference=reference,
        segments=segments,
    )


def _by_index(scorer: TokenScorer | None, tickets: list[Any]) -> dict[int, TokenScores]:
    return {} if scorer is None else {one.index: one for ticket in tickets for one in scorer.result(ticket)}


def _join(parts: list[Scores]) -> Scores:
    return Scores(
        total=np.concatenate([part.total for part in parts]),
        by_model_and_view={
            name: np.concatenate([part.by_model_and_view[name] for part in parts])
            for name in parts[0].by_model_and_view
        },
        num_overlong=sum(part.num_overlong for part in parts),
        num_unread=sum(part.num_unread for part in parts),
        num_respelled=sum(part.num_respelled for part in parts),
        num_retries=sum(part.num_retries for part in parts),
        prefixes=_join_prefixes([part.prefixes for part in parts if part.prefixes is not None]),
    )


def _join_prefixes(parts: list[PrefixScores]) -> PrefixScores | None:
    """None without segment rewards."""
    if not parts:
        return None
    return PrefixScores(
        by_response=[scores for part in parts for scores in part.by_response],
        seconds=sum(part.seconds for part in parts),
        response_seconds=sum(part.response_seconds for part in parts),
    )
