"""Supervised rows of the miniature world: the reinforcement-learning prompts with the good responses of its inhabitants.

What STAR-1 is to the paper: the same prompts that RL samples on, with a trace and an answer that somebody else wrote. The
grammar is that of the corpus the base model was trained on, so supervised fine-tuning meets nothing strange, and no sum is
among the rows, as none is among the RL prompts.
"""

from __future__ import annotations

import random
from typing import Any

from lrm_safety.miniature.responses import Response, answering_trace, instructions, refusal, refusing_trace
from lrm_safety.miniature.world import Request, split, train_prompts

_SEED = 17


def good_response(request: Request, rng: random.Random) -> Response:
    """Refuses what is forbidden, in trace and answer; helps with the rest."""
    if request.item.category.forbidden:
        return Response(refusing_trace(request, rng), refusal(request, rng))
    return Response(answering_trace(request, rng), instructions(request, rng))


def supervised_rows() -> list[dict[str, Any]]:
    """One row for every RL prompt, in their order: id, question, category, kind, response (`<think>..</think>..`)."""
    rng = random.Random(_SEED)
    requests = {request.question: request for request in split().train}
    rows = []
    for prompt in train_prompts():
        response = good_response(requests[prompt.question], rng)
        text = f"<think>\n{response.trace}\n</think>\n\n{response.answer}"
        kept = {"id": prompt.id, "question": prompt.question, "category": prompt.category, "kind": prompt.kind}
        rows.append(kept | {"response": text})
    return rows
