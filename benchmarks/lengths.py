"""Lengths of STAR-1's questions and responses in tokens: from the data set where there is one, else as recorded here."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from lrm_safety.settings.paths import cache_directory

PERCENTS = (0, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100)
PROMPT_PERCENTILES = (5, 9, 11, 13, 15, 16, 18, 20, 22, 26, 33, 42, 71, 176)
RESPONSE_PERCENTILES = (117, 227, 244, 267, 293, 313, 335, 365, 399, 446, 596, 684, 847, 1174)
"""Of STAR-1's 1,000 rows under SmolLM2's tokenizer."""


def star1_file() -> Path | None:
    """A local copy of STAR-1: $LRM_SAFETY_DATA/star1/STAR-1.json, where it is there."""
    root = os.environ.get("LRM_SAFETY_DATA")
    file = Path(root, "star1", "STAR-1.json") if root else None
    return file if file is not None and file.is_file() else None


def star1_lengths() -> tuple[np.ndarray, str]:
    """[N, 2] tokens of question and response, and where they come from.

    Read from $LRM_SAFETY_DATA/star1/STAR-1.json when that and SmolLM2's tokenizer are there.
    """
    file, tokenizer_folder = star1_file(), cache_directory() / "smollm2_135m"
    if file is None or not tokenizer_folder.is_dir():
        return recorded_lengths(1000, seed=0), "recorded percentiles"
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    rows = json.loads(file.read_text(encoding="utf-8"))
    columns = [tokenizer([row[name] for row in rows])["input_ids"] for name in ("question", "response")]
    return np.array([[len(ids) for ids in column] for column in columns]).T, file.name


def recorded_lengths(count: int, seed: int) -> np.ndarray:
    """[count, 2] lengths drawn from the recorded percentiles, straight between neighbours."""
    draws = np.random.default_rng(seed).uniform(0, 100, size=(count, 2))
    columns = [
        np.interp(draws[:, column], PERCENTS, percentiles)
        for column, percentiles in enumerate((PROMPT_PERCENTILES, RESPONSE_PERCENTILES))
    ]
    return np.rint(np.stack(columns, axis=1)).astype(np.int64)


def filled_row_count(lengths: np.ndarray, budget_tokens: int) -> int:
    """How many sequences, taken in order, fit a padded micro-batch: count times longest is within the budget."""
    costs = np.maximum.accumulate(lengths) * np.arange(1, len(lengths) + 1)
    return max(1, int(np.searchsorted(costs, budget_tokens, side="right")))


def padding_ratio(lengths: np.ndarray) -> float:
    """Positions of the padded rows / tokens in them."""
    return float(len(lengths) * lengths.max() / lengths.sum())


def representative(lengths: np.ndarray, budget_tokens: int, *, tries: int = 101, seed: int = 0) -> np.ndarray:
    """[n, 2]: the padded micro-batch of median padding among `tries`, each filled from a random order of the rows."""
    generator = np.random.default_rng(seed)
    batches = []
    for _ in range(tries):
        order = lengths[generator.permutation(len(lengths))]
        batches.append(order[: filled_row_count(order.sum(axis=1), budget_tokens)])
    batches.sort(key=lambda batch: padding_ratio(batch.sum(axis=1)))
    return batches[tries // 2]
