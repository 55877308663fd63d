"""Reflection entropy of responses under one model at one temperature: which tokens reflect, and what their entropies come to.

`entropies[t]` belongs to the distribution that token t was drawn from. A reflection is a reflection token inside the trace;
the entropy that emits it is entry t, the entropy after it is entry t + 1. How a word becomes ids is
`conversation.reflection`'s, which training logs by as well; the lists of words to choose from are ours.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...conversation.response import REFLECTION_WORDS, reflection_token_ids
from ...errors import ConfigError, DataError
from ...results import ReflectionTokens
from ...rollouts import TokenIds, TokenValues
from ...statistics import Estimate, estimate, pooled_mean, question_means

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


PRESETS: dict[str, tuple[str, ...]] = {
    # Fan et al. 2025 (arXiv 2506.11077) name wait, but, alternatively as examples; training logs the same words.
    "cyclic_reflex": REFLECTION_WORDS,
    # Ours: hedges, contrasts and returns. No published list.
    "extended": (
        *REFLECTION_WORDS,
        *("alternatively", "hmm", "Hmm", "however", "However", "yet", "Yet", "still", "Still"),
        *("nevertheless", "Nevertheless", "though", "Though", "although", "Although", "instead", "Instead"),
        *("actually", "Actually", "maybe", "Maybe", "perhaps", "Perhaps", "again", "Again"),
        *("check", "Check", "verify", "Verify", "rethink", "recheck"),
    ),
}


def find_reflection_tokens(
    tokenizer: PreTrainedTokenizerBase, preset: str, own_words: Sequence[str] = ()
) -> ReflectionTokens:
    """Tokens of `own_words`, or of the preset where there are none.

    Raises ConfigError for an unknown preset or a blank word, and DataError when no word is a single token: every figure
    would be undefined.
    """
    if not own_words and preset not in PRESETS:
        raise ConfigError(f"analysis.reflection.preset={preset}: must be one of {', '.join(PRESETS)}")
    if any(not word.strip() for word in own_words):
        raise ConfigError("analysis.reflection.words: holds a blank word; leave it out")
    words = tuple(dict.fromkeys(word.strip() for word in own_words)) or PRESETS[preset]
    by_word = {word: reflection_token_ids(tokenizer, [word]) for word in words}
    ids = sorted(set().union(*by_word.values()))
    if not ids:
        raise DataError(
            f"analysis.reflection: none of {', '.join(words)} is a single token of this tokenizer; choose other words"
        )
    spellings = tokenizer.convert_ids_to_tokens(ids)
    return ReflectionTokens(
        preset="own" if own_words else preset,
        words=words,
        ids=dict(zip(spellings, ids, strict=True)),
        words_without_token=tuple(word for word, found in by_word.items() if not found),
    )


NUM_DECILES = 10


@dataclass(frozen=True)
class ReadResponse:
    """One response as one model reads it. A prefilled beginning, which nobody sampled, is not in it."""

    question: str
    """Id of the question, the unit of intervals."""
    ids: TokenIds
    """[T]"""
    entropies: TokenValues
    """[T] nats."""
    num_trace_tokens: int
    """The first so many of T are the trace, its closing tag included."""


@dataclass(frozen=True)
class ReflectionCounts:
    """What one response adds to the figures. Sums are in nats, float64."""

    question: str
    num_trace_tokens: int
    trace_sum: float
    num_answer_tokens: int
    answer_sum: float
    num_reflections: int
    emit_sum: float
    """At the positions that emit a reflection token."""
    num_next: int
    """Reflections after which another token was read: one that ends a cut-off response has no successor."""
    next_sum: float
    """At the positions after a reflection token."""
    num_forking: int
    """Trace tokens whose entropy is above the threshold."""
    num_forking_reflections: int
    decile_means: tuple[float, ...]
    """[10] mean entropy of each tenth of the trace; NaN for a tenth without tokens (traces of less than 10 tokens)."""


def count_reflection(
    response: ReadResponse, reflection_ids: Collection[int], forking_threshold: float
) -> ReflectionCounts:
    """Everything about one response. Token t of a trace of n lies in the tenth floor(10 t / n)."""
    entropies = np.asarray(response.entropies, dtype=np.float64)
    num_trace = response.num_trace_tokens
    trace, answer = entropies[:num_trace], entropies[num_trace:]
    emits = np.flatnonzero(np.isin(response.ids[:num_trace], np.fromiter(reflection_ids, dtype=np.int64)))
    follows = emits[emits + 1 < len(entropies)] + 1
    forking = trace > forking_threshold
    tenths = NUM_DECILES * np.arange(num_trace) // max(num_trace, 1)
    return ReflectionCounts(
        question=response.question,
        num_trace_tokens=num_trace,
        trace_sum=float(trace.sum()),
        num_answer_tokens=len(answer),
        answer_sum=float(answer.sum()),
        num_reflections=len(emits),
        emit_sum=float(trace[emits].sum()),
        num_next=len(follows),
        next_sum=float(entropies[follows].sum()),
        num_forking=int(forking.sum()),
        num_forking_reflections=int(forking[emits].sum()),
        decile_means=tuple(
            float(trace[tenths == tenth].mean()) if (tenths == tenth).any() else math.nan
            for tenth in range(NUM_DECILES)
        ),
    )


def forking_threshold(responses: Sequence[ReadResponse], percentile: float) -> float:
    """The percentile of the entropies of all trace tokens, each token counting once; NaN without any.

    Wang et al. 2025 (arXiv 2506.01939) call the fifth of tokens with the highest entropy forking tokens: percentile 80.
    """
    tokens = [one.entropies[: one.num_trace_tokens] for one in responses]
    pooled = np.concatenate(tokens).astype(np.float64) if tokens else np.zeros(0)
    return float(np.percentile(pooled, percentile)) if pooled.size else math.nan


Value = Callable[[ReflectionCounts], float | None]
"""What one response has of a measure; None: nothing, it is left out."""

PER_RESPONSE: dict[str, Value] = {
    "emit/response_mean": lambda one: one.emit_sum / one.num_reflections if one.num_reflections else None,
    "emit/response_mean_with_zero": lambda one: one.emit_sum / one.num_reflections if one.num_reflections else 0.0,
    "emit/response_sum": lambda one: one.emit_sum,
    "next/response_mean": lambda one: one.next_sum / one.num_next if one.num_next else None,
    "trace/response_mean": lambda one: one.trace_sum / one.num_trace_tokens if one.num_trace_tokens else None,
    "reflections/per_response": lambda one: float(one.num_reflections),
    "reflections/share_of_responses": lambda one: float(one.num_reflections > 0),
    "length/trace_tokens": lambda one: float(one.num_trace_tokens),
}
"""Means over responses."""

POOLED: dict[str, tuple[Callable[[ReflectionCounts], float], Callable[[ReflectionCounts], float]]] = {
    "emit/token_mean": (lambda one: one.emit_sum, lambda one: one.num_reflections),
    "next/token_mean": (lambda one: one.next_sum, lambda one: one.num_next),
    "trace/token_mean": (lambda one: one.trace_sum, lambda one: one.num_trace_tokens),
    "other/token_mean": (
        lambda one: one.trace_sum - one.emit_sum,
        lambda one: one.num_trace_tokens - one.num_reflections,
    ),
    "answer/token_mean": (lambda one: one.answer_sum, lambda one: one.num_answer_tokens),
    "reflections/per_1000_trace_tokens": (lambda one: 1000.0 * one.num_reflections, lambda one: one.num_trace_tokens),
    "forking/share_of_trace_tokens": (lambda one: one.num_forking, lambda one: one.num_trace_tokens),
    "forking/share_of_reflections": (lambda one: one.num_forking_reflections, lambda one: one.num_reflections),
}
"""Means over tokens: numerator and denominator of each response."""

SHARES = ("reflections/share_of_responses",)


def reflection_figures(counts: Sequence[ReflectionCounts], seed: int) -> dict[str, Estimate]:
    """Every measure with its interval over questions; one that no response has is left out."""
    found = {
        name: pooled_mean(
            [one.question for one in counts],
            [numerator(one) for one in counts],
            [denominator(one) for one in counts],
            seed=seed,
        )
        for name, (numerator, denominator) in POOLED.items()
    }
    for name, value in PER_RESPONSE.items():
        means = by_question(counts, value)
        found[name] = estimate(list(means.values()), share=name in SHARES, seed=seed)
    return {name: figure for name, figure in found.items() if not math.isnan(figure.value)}


def decile_figures(counts: Sequence[ReflectionCounts], seed: int) -> list[Estimate]:
    """Entropy along the trace: the mean over responses of each tenth's mean; NaN where no response has that tenth."""
    return [
        estimate(list(by_question(counts, _decile(tenth)).values()), share=False, seed=seed)
        for tenth in range(NUM_DECILES)
    ]


def by_question(counts: Sequence[ReflectionCounts], value: Value) -> dict[str, float]:
    """Mean of a measure over each question's responses that have it; questions without one are left out."""
    values: dict[str, list[float]] = {}
    for one in counts:
        if (mine := value(one)) is not None:
            values.setdefault(one.question, []).append(mine)
    return dict(zip(values, question_means(list(values.values())).tolist(), strict=True)) if values else {}


def _decile(tenth: int) -> Value:
    def value(one: ReflectionCounts) -> float | None:
        mean = one.decile_means[tenth]
        return None if math.isnan(mean) else mean

    return value
