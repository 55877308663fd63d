"""Segment rewards on their way through an iteration: responses cut before scoring, rewards between tokens after it.

The mathematics is in rewards/segments.py. A response's score is shared among its steps by the scores of its prefixes,
each as the response's own score is shaped (standardised, clipped) and less the mean of the prefixes that the score is
compared with: a trace that has not ended scores lower than a whole response whatever it says, and no step earns or owes
that. Without a group baseline these are all prefixes of the rollout batch, with one those of the prompt's own group: the
difficulty of a prompt, which the baseline takes off its scores, would otherwise be taken off a second time with the
potentials, and would be most of what the later steps of its responses are told.

A response falls back to one reward at its last token, the rule of `reward.granularity=response`, where it is malformed
(trace and answer cannot be told apart) or has one step only (no trace, or a trace of one step that was cut off).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .conversation import ParsedResponse, ResponseParser
from .rewards.conversation import Conversation
from .rewards.scorer import ScoreArray
from .rewards.segments import Step, prefix_conversations, step_rewards, steps_of, token_rewards
from .rollouts import Rollout
from .settings import SegmentSettings


@dataclass
class Segments:
    """The steps of N responses and what their prefixes scored; position i is response i."""

    steps: list[list[Step]]
    """Empty for a response that fell back."""
    prefix_scores: list[ScoreArray]
    """Raw scores float32 [num_steps - 1], of the prefix at the end of every step but the last."""
    seconds: float
    """Spent by reward workers on prefixes, all calls together."""
    response_seconds: float
    """The same for the responses themselves."""


def cut(
    rollout: Rollout,
    response: ParsedResponse,
    conversation: Conversation,
    parser: ResponseParser,
    settings: SegmentSettings,
) -> tuple[list[Step], list[Conversation]]:
    """The steps of a response and the prefix at the end of each but the last; two empty lists where it falls back."""
    ids, num_trace_tokens = rollout.response_ids.tolist(), response.num_trace_tokens
    if response.status == "malformed":
        return [], []
    steps = steps_of(ids, num_trace_tokens, parser.decode, settings.unit, settings.max_steps)
    if len(steps) < 2:
        return [], []
    return steps, prefix_conversations(conversation, parser.decode(ids[:num_trace_tokens]), steps)[:-1]


def shaping_rewards(
    segments: Segments,
    lengths: Sequence[int],
    like_scores: Callable[[Tensor], Tensor],
    groups: Sequence[int] | None = None,
) -> Tensor:
    """What segment rewards add to the tokens, float64 [total]: 0 in sum over every response.

    With phi_k the potential of the prefix at the end of step k, the last token of step k < n gains phi_k - phi_(k-1)
    and the response's last one -phi_(n-1), beside the score that it has already.

    Args:
        like_scores: raw scores of prefixes in the units of the shaped scores.
        groups: [N], the prompt of each response, where scores are compared within a prompt (a group baseline, or
            normalisation per group); potentials are then centred within it. None: over the whole batch.
    """
    potentials = [
        like_scores(torch.from_numpy(np.asarray(scores, dtype=np.float64))).numpy() for scores in segments.prefix_scores
    ]
    together: dict[int, list[np.ndarray]] = {}
    compared = [0] * len(potentials) if groups is None else list(groups)
    for group, own in zip(compared, potentials, strict=True):
        together.setdefault(group, []).append(own)
    # A group without a prefix has no mean, and nothing to take it from.
    means = {group: float(np.concatenate(parts).mean()) for group, parts in together.items() if any(map(len, parts))}
    parts = []
    for steps, own, length, group in zip(segments.steps, potentials, lengths, compared, strict=True):
        shares = step_rewards(np.append(own - means[group], 0.0)) if steps else np.empty(0)
        parts.append(token_rewards(shares, steps, length))
    return torch.from_numpy(np.concatenate(parts))


def segment_metrics(segments: Segments) -> dict[str, float]:
    """How many prefixes were scored, what that cost, and how many responses fell back."""
    num_responses = len(segments.steps)
    return {
        "reward/segment_fallback_rate": sum(not steps for steps in segments.steps) / num_responses,
        "reward/prefixes_per_response": sum(map(len, segments.prefix_scores)) / num_responses,
        "reward/prefix_score_std": float(np.concatenate(segments.prefix_scores).std(dtype=np.float64))
        if any(map(len, segments.prefix_scores))
        else 0.0,
        "reward/segment_seconds": segments.seconds,
        "reward/segment_cost": segments.seconds / max(segments.response_seconds, 1e-9),
    }
