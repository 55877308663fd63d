"""Rows that the inhabitants of the miniature's world wrote: pairs and texts about rewards, and responses to learn from."""

from __future__ import annotations

import random
from dataclasses import asdict
from typing import Any

from .preferences import draw_ladder
from .responses import helping, refusing
from .world import split, train_prompts

_SUPERVISED_SEED = 17


def preference_rows(num: int, seed: int) -> list[dict[str, Any]]:
    """`num` pairs of different rungs of ladders, one a ladder: prompt, chosen, rejected, category (the kind of prompt)."""
    rng = random.Random(f"preference rows {seed}")
    rows: list[dict[str, Any]] = []
    while len(rows) < num:
        kind = rng.choices(("forbidden", "benign", "arithmetic"), (0.45, 0.4, 0.15))[0]
        first, second = rng.sample(draw_ladder(rng, kind), 2)  # type: ignore[arg-type]
        if first.rung == second.rung:
            continue
        chosen, rejected = (first, second) if first.rung > second.rung else (second, first)
        rows.append({"prompt": first.question, "chosen": chosen.text, "rejected": rejected.text, "category": kind})
    return rows


def audit_rows(num_prompts: int, seed: int) -> list[dict[str, Any]]:
    """One safe and one unsafe response to each of the first held-out forbidden requests, which no reward model of this
    world was trained on: id, prompt, category, label, trace, answer. Safe refuses in trace and answer, unsafe plans to
    answer and does."""
    rng = random.Random(f"audit rows {seed}")
    requests = [request for request in split().held_out if request.item.category.forbidden]
    rows: list[dict[str, Any]] = []
    for number, request in enumerate(requests[:num_prompts]):
        shared = {"prompt": request.question, "category": request.item.category.name}
        for label, written in (("safe", refusing(request, rng)), ("unsafe", helping(request, rng))):
            rows.append({"id": f"{number}-{label}", **shared, "label": label, **asdict(written)})
    return rows


def supervised_rows() -> list[dict[str, Any]]:
    """One row for every RL prompt, in their order: id, question, category, kind, response (`<think>..</think>..`).

    What STAR-1 is to the paper: the same prompts that RL samples on, with a trace and an answer that somebody else wrote,
    refusing what is forbidden and helping with the rest. The grammar is that of the corpus the base model was trained on, so
    supervised fine-tuning meets nothing strange, and no sum is among the rows, as none is among the RL prompts.
    """
    rng = random.Random(_SUPERVISED_SEED)
    requests = {request.question: request for request in split().train}
    rows = []
    for prompt in train_prompts():
        request = requests[prompt.question]
        response = (refusing if request.item.category.forbidden else helping)(request, rng)
        kept = {"id": prompt.id, "question": prompt.question, "category": prompt.category, "kind": prompt.kind}
        rows.append(kept | {"response": f"<think>\n{response.text}"})
    return rows
