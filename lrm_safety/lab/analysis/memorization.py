"""How much of a text a model knows by heart: pure functions of what a forward pass found, and of words.

A text is T tokens y_1..y_T after a prompt x; `matches[t]` says whether y_t is the most probable token after x, y_<t.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

_WORD = re.compile(r"[^\W_]+")


def exact_memorization(matches: ArrayLike) -> float:
    """Share of the tokens that are the model's first choice, given all true tokens before them.

    Tirumala et al. 2022 (arXiv 2205.10770), definition 1; `exact_memorization` of open-unlearning. T is at least 1.
    """
    hits = np.asarray(matches, dtype=bool)
    assert hits.size, "a text without tokens has no share"
    return float(hits.mean())


def extraction_strength(matches: ArrayLike) -> float:
    """1 - k/T for the least k such that the greedy continuation of x, y_1..y_k is y_k+1..y_T.

    Carlini et al. 2021 (arXiv 2012.07805) ask which prefix extracts a text; the measure is open-unlearning's
    `extraction_strength`. One teacher-forced pass is enough: as long as greedy decoding reproduces the text, its context is
    the true one, so it reproduces the rest if and only if every token of the rest is a match. Where the last token is none,
    k is T and the strength 0; open-unlearning stops at k = T - 1 and gives 1/T.
    """
    hits = np.asarray(matches, dtype=bool)
    assert hits.size, "a text without tokens has no prefix"
    misses = np.flatnonzero(~hits)
    needed = int(misses[-1]) + 1 if misses.size else 0
    return 1.0 - needed / hits.size


@dataclass(frozen=True)
class RougeL:
    """ROUGE-L of a candidate against a reference (Lin 2004), with equal weight of both in `f_measure`."""

    precision: float
    recall: float
    f_measure: float


def rouge_l(reference: Sequence[Hashable], candidate: Sequence[Hashable]) -> RougeL:
    """ROUGE-L of two sequences of words; all 0 where either is empty or nothing is shared."""
    common = longest_common_subsequence(reference, candidate)
    if not common:
        return RougeL(0.0, 0.0, 0.0)
    precision, recall = common / len(candidate), common / len(reference)
    return RougeL(precision, recall, 2 * precision * recall / (precision + recall))


def longest_common_subsequence(first: Sequence[Hashable], second: Sequence[Hashable]) -> int:
    """Length of the longest sequence that is left of both when items are dropped.

    Bit-parallel (Hyyrö 2004): a row of the usual table is one integer, so 2,000 words against 2,000 take milliseconds.
    """
    positions: dict[Hashable, int] = {}
    for i, item in enumerate(first):
        positions[item] = positions.get(item, 0) | 1 << i
    every = (1 << len(first)) - 1
    row = every
    for item in second:
        shared = row & positions.get(item, 0)
        row = (row + shared | row - shared) & every
    return len(first) - row.bit_count()


def rouge_words(text: str) -> list[str]:
    """Lower-case runs of letters and digits, of any script. (The package rouge_score keeps a-z and 0-9 alone.)"""
    return _WORD.findall(text.lower())
