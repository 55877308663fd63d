"""Single rollouts for people: which ones to show, what of them may be shown, and the files that hold them.

Text may be harmful, so it leaves the controller only when tracking.log_text says so. A hash of the token ids stands in
for it: equal hashes mean equal prompts or responses, across runs too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..files import digest_of, write_atomically

Ids = Sequence[int] | npt.NDArray[np.int32]


@dataclass(frozen=True)
class RolloutRow:
    """One rollout with its scores. Text is needed only when tracking.log_text is on."""

    request_id: int
    prompt_index: int
    prompt_ids: Ids
    """[P] token ids."""
    response_ids: Ids
    """[T] token ids."""
    status: str
    """ParsedResponse.status."""
    num_trace_tokens: int
    num_answer_tokens: int
    scores: Mapping[str, float]
    """Raw score by "model/view"."""
    raw_reward: float
    shaped_reward: float
    prompt: str = field(default="", repr=False)
    trace: str = field(default="", repr=False)
    answer: str = field(default="", repr=False)


def token_hash(ids: Ids) -> str:
    """16 hexadecimal digits of the SHA-256 of token ids [T], as little-endian int32."""
    return digest_of([np.asarray(ids, dtype="<i4").tobytes()])[:16]


def describe(row: RolloutRow, *, log_text: bool) -> dict[str, Any]:
    """What may be shown of a rollout: hashes, lengths, scores and status; text only with `log_text`."""
    shown: dict[str, Any] = {
        "request_id": int(row.request_id),
        "prompt_index": int(row.prompt_index),
        "prompt_hash": token_hash(row.prompt_ids),
        "response_hash": token_hash(row.response_ids),
        "num_prompt_tokens": len(row.prompt_ids),
        "num_trace_tokens": int(row.num_trace_tokens),
        "num_answer_tokens": int(row.num_answer_tokens),
        "status": row.status,
        "raw_reward": float(row.raw_reward),
        "shaped_reward": float(row.shaped_reward),
        **{f"score/{name}": float(score) for name, score in row.scores.items()},
    }
    if log_text:
        shown |= {"prompt": row.prompt, "trace": row.trace, "answer": row.answer}
    return shown


def sample(rows: Sequence[RolloutRow], count: int) -> list[RolloutRow]:
    """`count` rollouts (or all) spread evenly over the shaped reward, the lowest and the highest among them."""
    ranked = sorted(rows, key=lambda row: (_rank(row.shaped_reward), row.request_id))
    if len(ranked) <= count:
        return ranked
    if count <= 1:
        return ranked[-1:][:count]
    return [ranked[round(i * (len(ranked) - 1) / (count - 1))] for i in range(count)]


def save_rollouts(run_dir: Path, update: int, rows: Sequence[RolloutRow]) -> Path:
    """Write rollouts with their text to run_dir/rollouts/update-000123.jsonl; for tracking.log_text=true only."""
    lines = [describe(row, log_text=True) for row in rows]
    return _write_lines(run_dir / "rollouts" / f"update-{update:06d}.jsonl", lines)


def save_offending(run_dir: Path, update: int, rows: Sequence[RolloutRow], *, log_text: bool) -> Path:
    """Keep the rollouts that broke an update, such as those with a NaN, before the run stops; returns the file.

    Token ids, which reproduce the failure, are always written and never leave the run folder; text only with
    `log_text`.
    """
    lines = [
        describe(row, log_text=log_text)
        | {"prompt_ids": np.asarray(row.prompt_ids).tolist(), "response_ids": np.asarray(row.response_ids).tolist()}
        for row in rows
    ]
    return _write_lines(run_dir / "rollouts" / f"offending-{update:06d}.jsonl", lines)


def to_json_line(values: Mapping[str, Any]) -> str:
    """One line of JSON; numbers that are not finite become null and their names are listed under "nonfinite"."""
    nonfinite = [name for name, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    line = {name: None if name in nonfinite else value for name, value in values.items()}
    if nonfinite:
        line["nonfinite"] = nonfinite
    return json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n"


def _rank(reward: float) -> float:
    return reward if math.isfinite(reward) else -math.inf


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write beside and rename, so that a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, "".join(map(to_json_line, lines)).encode())
    return path
