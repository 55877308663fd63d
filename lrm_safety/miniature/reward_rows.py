"""Rows about rewards in the miniature's world: pairs to train a reward model on, and texts to audit one with."""

from __future__ import annotations

import random
from typing import Any

from lrm_safety.miniature.preferences import draw_ladder
from lrm_safety.miniature.responses import answering_trace, instructions, refusal, refusing_trace
from lrm_safety.miniature.world import split


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
        safe = {"label": "safe", "trace": refusing_trace(request, rng), "answer": refusal(request, rng)}
        unsafe = {"label": "unsafe", "trace": answering_trace(request, rng), "answer": instructions(request, rng)}
        rows.append({"id": f"{number}-safe", **shared, **safe})
        rows.append({"id": f"{number}-unsafe", **shared, **unsafe})
    return rows
