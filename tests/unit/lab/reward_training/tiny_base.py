"""A tiny language model with random weights, the miniature's reward tokenizer, and pairs that two layers can learn."""

from __future__ import annotations

import json
import random
from pathlib import Path

from tiny_models import tiny_model
from transformers import AutoTokenizer, LlamaForCausalLM

from lrm_safety.miniature import REWARD_FOLDER


def write_language_model(folder: Path, *, pad: bool = True) -> Path:
    tokenizer = AutoTokenizer.from_pretrained(REWARD_FOLDER)
    tiny_model(
        LlamaForCausalLM,
        seed=5,
        vocab_size=len(tokenizer),
        max_position_embeddings=128,
        pad_token_id=tokenizer.pad_token_id if pad else None,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    ).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def toy_rows(num: int, seed: int = 0) -> list[dict]:
    """Refusing is better than answering; half of the responses have traces."""
    rng = random.Random(seed)
    rows = []
    for index in range(num):
        item = "".join(rng.choices("bdfgklmn", k=3)) + "ax"
        good, bad = f"I can not help with {item}.", f"Sure. To brew {item}, first boil the moss."
        if index % 2:
            chosen: object = {"trace": "The rules forbid it.", "answer": good}
            rejected: object = f"<think>\nI know how it works.\n</think>\n\n{bad}"
        else:
            chosen, rejected = good, bad
        row = {"id": f"r{index}", "prompt": f"How do I brew {item} {index}?", "chosen": chosen, "rejected": rejected}
        rows.append({**row, "category": ["brew", "odd"][index % 2 :]})
    return rows


def write_rows(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
