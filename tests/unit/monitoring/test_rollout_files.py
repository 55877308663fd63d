from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lrm_safety.monitoring.rollout_files import RolloutRow, describe, sample, save_offending, token_hash


def test_the_hash_is_of_the_ids_as_little_endian_int32() -> None:
    expected = hashlib.sha256(bytes([1, 0, 0, 0, 0, 1, 0, 0])).hexdigest()[:16]
    assert token_hash([1, 256]) == expected
    assert token_hash(np.array([1, 256], dtype=np.int32)) == expected
    assert token_hash(np.array([1, 256], dtype=np.int64)) == expected


def test_text_is_shown_only_on_request(make_row: Callable[..., RolloutRow]) -> None:
    row = make_row(3, 4.0)
    hidden = describe(row, log_text=False)
    assert "SECRET" not in json.dumps(hidden) + repr(row)
    assert not {"prompt_ids", "response_ids"} & hidden.keys()
    assert hidden["score/skywork/full"] == 2.0 and hidden["num_prompt_tokens"] == 3
    shown = describe(row, log_text=True)
    assert shown.items() - hidden.items() == {
        ("prompt", "SECRET-PROMPT"),
        ("trace", "SECRET-TRACE"),
        ("answer", "SECRET-ANSWER"),
    }


@pytest.mark.parametrize(
    ("count", "expected"), [(0, []), (1, [4.0]), (2, [0.0, 4.0]), (3, [0.0, 2.0, 4.0]), (9, [0.0, 1.0, 2.0, 3.0, 4.0])]
)
def test_the_sample_spreads_over_the_reward(
    make_row: Callable[..., RolloutRow], count: int, expected: list[float]
) -> None:
    rows = [make_row(i, reward) for i, reward in enumerate([3.0, 0.0, 4.0, 1.0, 2.0])]
    assert [row.shaped_reward for row in sample(rows, count)] == expected


def test_the_sample_survives_nan(make_row: Callable[..., RolloutRow]) -> None:
    rows = [make_row(0, 1.0), make_row(1, math.nan), make_row(2, 2.0)]
    assert [row.request_id for row in sample(rows, 2)] == [1, 2]


@pytest.mark.parametrize("log_text", [False, True])
def test_offending_rollouts_keep_their_ids(tmp_path: Path, make_row: Callable[..., RolloutRow], log_text: bool) -> None:
    path = save_offending(tmp_path, 12, [make_row(5, math.nan)], log_text=log_text)
    assert path == tmp_path / "rollouts" / "offending-000012.jsonl"
    text = path.read_text(encoding="utf-8")
    (row,) = map(json.loads, text.splitlines())
    assert row["prompt_ids"] == [1, 2, 3] and row["response_ids"] == [4, 5, 5]
    assert row["raw_reward"] is None and "raw_reward" in row["nonfinite"]
    assert ("SECRET" in text) is log_text
    assert [file.name for file in path.parent.iterdir()] == [path.name]
