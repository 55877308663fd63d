"""Small rollout batches made of plain lists, for tests whose numbers are worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import lrm_safety
from lrm_safety.conversation.refusal import is_refusal
from lrm_safety.conversation.response import ParsedResponse
from lrm_safety.experience import RolloutBatch
from lrm_safety.rewards.scorer import Scores
from lrm_safety.rollouts import Rollout, TokenScores

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ASSETS = Path(lrm_safety.__file__).parent / "miniature" / "assets"


def floats(values: Sequence[float]) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def rollout(request_id: int, length: int, logprobs: Sequence[float] | None = None, finish: str = "stop") -> Rollout:
    """A response of `length` tokens 100 * request_id + 0, 1, ... to the prompt of the same number."""
    return Rollout(
        request_id=request_id,
        prompt_index=request_id,
        prompt_ids=np.asarray([7, request_id], dtype=np.int32),
        response_ids=np.arange(length, dtype=np.int32) + 100 * request_id,
        logprobs=floats([-1.0] * length if logprobs is None else logprobs),
        finish_reason=finish,
        weights_version=3,
    )


def response(
    length: int, trace: int = 0, status: str = "complete", finished: bool = True, answer: str = "Fine."
) -> ParsedResponse:
    return ParsedResponse("plan", answer, status, trace, length - trace, finished)  # type: ignore[arg-type]


def scores(total: Sequence[float], **by_view: Sequence[float]) -> Scores:
    """`by_view` names use a double underscore for the slash: model__full."""
    named = {name.replace("__", "/"): floats(values) for name, values in by_view.items()}
    return Scores(floats(total), named, 0, 0, 0, 0)


def token_scores(logprobs: Sequence[Sequence[float]], entropy: float = 0.0) -> dict[int, TokenScores]:
    return {
        index: TokenScores(index, floats(values), floats([entropy] * len(values)))
        for index, values in enumerate(logprobs)
    }


def batch(
    total: Sequence[float],
    lengths: Sequence[int],
    *,
    responses: Sequence[ParsedResponse] | None = None,
    policy: Sequence[Sequence[float]] | None = None,
    reference: Sequence[Sequence[float]] | None = None,
    engine: Sequence[Sequence[float]] | None = None,
) -> RolloutBatch:
    """Responses of the given lengths and raw scores; log-probs per response, None where a pass was not made."""
    read = [response(length) for length in lengths] if responses is None else list(responses)
    return RolloutBatch(
        rollouts=[rollout(i, length, None if engine is None else engine[i]) for i, length in enumerate(lengths)],
        responses=read,
        refusals=[is_refusal(one.answer) for one in read],
        scores=scores(total),
        policy={} if policy is None else token_scores(policy),
        reference={} if reference is None else token_scores(reference),
        weights_version=3,
    )


@cache
def miniature_tokenizer() -> PreTrainedTokenizerBase:
    """The embedded policy's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ASSETS / "policy")


def sampled(request_id: int, text: str, *, prompt_index: int | None = None, finish: str = "stop") -> Rollout:
    """A response of the miniature whose text is `text`, with its stop token if it finished."""
    tokenizer = miniature_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False) + ([tokenizer.eos_token_id] if finish == "stop" else [])
    one = rollout(request_id, len(ids), finish=finish)
    index = request_id if prompt_index is None else prompt_index
    return replace(one, prompt_index=index, response_ids=np.asarray(ids, dtype=np.int32))
