"""Segment rewards: cut a trace into steps, score its prefixes, and share the response's score among the steps.

The score of a response R is shared by differences of the scores of its prefixes: a step earns what it adds. With
phi(prefix) the reward model's score of everything up to a step's end, step k of n earns phi_k - phi_(k-1), and the last
one R - phi_(n-1). This is potential-based shaping (Ng, Harada and Russell 1999) with gamma = 1 and a potential of nought
before the first token and after the last: whatever phi is, every response's rewards sum to R, so no policy's value
changes, and neither does the best policy. With gamma below 1 it would: discounting and segment rewards exclude each other.

Rule for the empty prefix: it is not scored. Its score would be the same for every response to a prompt; counting it as
nought gives the first step phi_1 whole. Training therefore takes the mean of the prefixes that a score is compared with off
phi first, shaped (standardised, clipped) as the response's own score is: a trace that has not ended scores lower than a whole
response whatever it says, and no step earns or owes that. Without a group baseline these are all prefixes of the rollout
batch, with one those of the prompt's own group: the difficulty of a prompt, which the baseline takes off its scores, would
otherwise be taken off a second time with the potentials, and would be most of what the later steps of its responses are told.

A response falls back to one reward at its last token, the rule of `reward.granularity=response`, where it is malformed
(trace and answer cannot be told apart) or has one step only (no trace, or a trace of one step that was cut off).
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ..conversation.response import ParsedResponse, ResponseParser, compose_response
from ..conversation.template import CLOSE_TAG, OPEN_TAG
from ..errors import RewardError
from ..rollouts import Rollout
from ..settings import SegmentSettings
from .conversation import Conversation
from .scorer import ScoreArray

Decode = Callable[[Sequence[int]], str]
"""Text of token ids, control tokens left out, as `ResponseParser` reads them."""

GRID = 2.0**-29
"""Scores are rounded to multiples of this, which every float32 of 2^-6 and more is, so that sums of them are exact."""
LARGEST_SCORE = 2.0**23
_UNFINISHED = "\ufffd"
# A sentence ends behind its stop and the closing marks and white space after it, and at a line's end. A stop inside a
# number or a word (3.14, e.g.x) ends nothing.
_SENTENCE = re.compile(r"[.!?]+[\"')\]]*\s+|\n+\s*")
_LINE = re.compile(r"\n+\s*")
_OPENING = re.compile(rf"\s*{OPEN_TAG}\s*")


@dataclass(frozen=True)
class Step:
    """One step of a response: tokens [start, end) of it, and `num_characters`, how much of the trace's raw text stands
    before its end. The answer's step, if there is one, is the last and has `num_characters` None."""

    start: int
    end: int
    num_characters: int | None


def cut_text(text: str, unit: str) -> list[int]:
    """Where the steps of a trace end, as increasing character positions; the last is `len(text)`.

    `unit`: sentences or lines. The white space between two steps belongs to the second, as most tokenizers have it
    (" Wait" is one token); what stands at the end of the text belongs to the last. Every step holds something that is not
    white space. Empty for a blank text.
    """
    if unit not in ("sentences", "lines"):
        raise ValueError(f"unit must be sentences or lines, got {unit!r}")
    if not text.strip():
        return []
    ends: list[int] = []
    for match in (_SENTENCE if unit == "sentences" else _LINE).finditer(text):
        start = ends[-1] if ends else 0
        end = len(text[: match.end()].rstrip())
        if text[start:end].strip() and text[end:].strip():
            ends.append(end)
    return [*ends, len(text)]


def characters_after(ids: Sequence[int], decode: Decode) -> list[int]:
    """Characters of `decode(ids)` that the first k tokens settle, for k = 0 ... len(ids); never decreasing.

    A character that several byte-level tokens share is settled by the last of them. Decodes a few tokens at a time and
    checks the result against the whole; where a decoder depends on what stands far before, decodes every prefix.
    """
    text = decode(ids)
    counts, start, settled = [0], 0, ""
    for end in range(1, len(ids) + 1):
        piece = decode(ids[start:end])
        if piece.endswith(_UNFINISHED):
            counts.append(max(counts[-1], len(settled) + len(piece.rstrip(_UNFINISHED))))
            continue
        settled += piece
        start = end
        counts.append(len(settled))
    settled += decode(ids[start:])
    if settled != text:
        counts = [0]
        for end in range(1, len(ids) + 1):
            counts.append(max(counts[-1], _num_common(decode(ids[:end]), text)))
    counts[-1] = len(text)
    return counts


def steps_of(
    ids: Sequence[int], num_trace_tokens: int, decode: Decode, unit: str, max_steps: int | None = None
) -> list[Step]:
    """The steps of one response; every token belongs to exactly one.

    The first `num_trace_tokens` tokens (as `ParsedResponse` counts them, `</think>` included) are cut by `unit`. A token
    that reaches over a step's end belongs to the step that it completes; steps that end within one token are one
    step. What is left of the trace, the closing tag among it, belongs to its last step; the answer's tokens are one
    step. A trace that was cut off ends its last step where it ends. Neighbouring steps are joined, evenly, where there
    would be more than `max_steps` of them.

    A blank trace is no step of its own: its tokens go to the answer's, or are the response's one step.
    """
    num_tokens = len(ids)
    assert 0 <= num_trace_tokens <= num_tokens
    counts = characters_after(ids[:num_trace_tokens], decode)
    text = decode(ids[:num_trace_tokens])
    body = text.rpartition(CLOSE_TAG)[0] if CLOSE_TAG in text else text
    # The opening tag is no step of its own.
    opening = _OPENING.match(body)
    offset = opening.end() if opening else 0
    ends = [offset + end for end in cut_text(body[offset:], unit)]
    steps: list[Step] = []
    for end in ends:
        token_end = num_trace_tokens if end == ends[-1] else bisect_left(counts, end)
        start = steps[-1].end if steps else 0
        if token_end > start:
            steps.append(Step(start, token_end, end))
        elif steps:
            steps[-1] = Step(steps[-1].start, steps[-1].end, end)
    if max_steps is not None:
        steps = _joined(steps, max(1, max_steps - (num_tokens > num_trace_tokens)))
    if num_tokens > num_trace_tokens or (num_tokens and not steps):
        steps.append(Step(steps[-1].end if steps else 0, num_tokens, None))
    return steps


def prefix_conversations(response: Conversation, raw_trace: str, steps: Sequence[Step]) -> list[Conversation]:
    """What the reward model reads at the end of each step, `[len(steps)]`: the trace so far, left open; at the last step
    the response itself, so that its score is the response's.

    `raw_trace`: the decoded trace tokens, tags included.
    """
    prefixes = []
    for step in steps[:-1]:
        assert step.num_characters is not None, "the answer's step is the last"
        trace = raw_trace[: step.num_characters].lstrip().removeprefix(OPEN_TAG).strip()
        prefixes.append(
            Conversation(response.prompt, trace, "", compose_response(trace, ""), status="unfinished_trace")
        )
    return [*prefixes, response] if steps else []


def step_rewards(prefix_scores: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """What each step earns, float64 `[num_steps]`, from the scores of the prefixes at the steps' ends, the response's own
    score last.

    Scores are rounded to multiples of `GRID`, half to even: every float32 of size 2^-6 or more is one, smaller ones move
    by at most 2^-30. The rewards then sum to the response's score exactly, in any order.

    Raises RewardError for a score that is not finite, or of size `LARGEST_SCORE` or more.
    """
    scores = np.asarray(prefix_scores, dtype=np.float64).ravel()
    if not (np.abs(scores) < LARGEST_SCORE).all():
        raise RewardError(f"segment rewards: scores must be finite and below {LARGEST_SCORE:g} in size")
    rounded = np.round(scores / GRID) * GRID
    return np.diff(rounded, prepend=0.0)


def token_rewards(rewards: npt.ArrayLike, steps: Sequence[Step], num_tokens: int) -> npt.NDArray[np.float64]:
    """Rewards per token, float64 `[num_tokens]`: each step's at its last token, nought elsewhere, so that their sum is the
    response's score and each token's return is what was earned from it on."""
    values = np.asarray(rewards, dtype=np.float64).ravel()
    assert values.size == len(steps) and (not steps or steps[-1].end == num_tokens)
    result = np.zeros(num_tokens)
    result[[step.end - 1 for step in steps]] = values
    return result


def _joined(steps: list[Step], most: int) -> list[Step]:
    if len(steps) <= most:
        return steps
    last = [len(steps) * (place + 1) // most - 1 for place in range(most)]
    starts = [0, *(steps[place].end for place in last[:-1])]
    return [
        Step(start, steps[place].end, steps[place].num_characters) for start, place in zip(starts, last, strict=True)
    ]


def _num_common(a: str, b: str) -> int:
    """Length of the common beginning."""
    num = min(len(a), len(b))
    return next((place for place in range(num) if a[place] != b[place]), num)


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
