"""`lrm-safety analyze memorization`: how much of the supervised rows each model knows by heart.

A text is T tokens y_1..y_T after a prompt x; `matches[t]` says whether y_t is the most probable token after x, y_<t.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import ArrayLike
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from ...conversation.families import Family, get_family
from ...datasets.supervised import SupervisedRow, SupervisedSet, draw_positions, hold_out
from ...errors import ConfigError
from ...evaluation.results import interval, number
from ...results import Difference, KnowledgeDifference, Memorization, MemorizationCell, Metric, SupervisedData
from ...settings import ModelSettings
from ...settings.analysis import AnalyzeSettings
from ...settings.paths import resolve
from ...sft_preparation import supervised_set
from ...statistics import Estimate, estimate, paired_difference
from ...terminal import print_table
from .models import Reader, common_tokenizer, describe, locate, reading

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


GROUPS = ("trained", "held_out")
"""What the training that `sft.validation_fraction` and `seed` describe learns from, and what it holds out."""
Values = dict[str, float]
"""Measures of one row."""


def analyze_memorization(settings: AnalyzeSettings, console: Console) -> Memorization:
    """Run it to its end; returns what memorization.json holds. Raises ConfigError, DataError or ModelError in one line."""
    models = _models(settings)
    tokenizer = common_tokenizer(models)
    family = get_family(settings.model.family)
    data = _rows(settings, tokenizer)
    groups = dict(zip(GROUPS, hold_out(data.rows, settings.sft.validation_fraction, settings.seed), strict=True))
    limit = settings.analysis.memorization.max_rows
    groups = {group: sample_rows(rows, limit, settings.seed) for group, rows in groups.items() if rows}
    found: dict[tuple[str, str], dict[str, Values]] = {}
    for name, model in models.items():
        max_new_tokens = settings.analysis.memorization.max_new_tokens
        label = f"{name} reads {', '.join(f'{len(rows)} {group} rows' for group, rows in groups.items())}"
        label += " and continues them" if max_new_tokens else ""
        total = sum(map(len, groups.values())) * (2 if max_new_tokens else 1)
        with reading(model, settings, console, label, total, "texts") as reader:
            for group, rows in groups.items():
                values = measure_rows(reader, rows, family, tokenizer, max_new_tokens)
                found[name, group] = {row.id: mine for row, mine in zip(rows, values, strict=True)}
    base = next(iter(models))
    results = Memorization(
        base=base,
        models=describe(models),
        data=SupervisedData(
            name=settings.data.name,
            fingerprint=data.fingerprint,
            num_rows=len(data),
            num_dropped=data.num_dropped,
        ),
        max_new_tokens=settings.analysis.memorization.max_new_tokens,
        seed=settings.seed,
        cells=tuple(
            MemorizationCell(
                model=name,
                group=group,
                num_rows=len(rows),
                figures={key: Metric.of(figure) for key, figure in figures(list(rows.values()), settings.seed).items()},
                rows=rows,
            )
            for (name, group), rows in found.items()
        ),
        differences=tuple(_differences(found, base, list(models), list(groups), settings.seed)),
    )
    show(results, console)
    return results


def measure_rows(
    reader: Reader,
    rows: Sequence[SupervisedRow],
    family: Family,
    tokenizer: PreTrainedTokenizerBase,
    max_new_tokens: int,
) -> list[Values]:
    """Measures of each row: exact memorization, extraction strength and negative log-likelihood (nats a token) of the
    response, its trace and its answer, and ROUGE-L of the greedy continuation of the prompt.

    A part's tokens are read after everything before them: the answer's after the true trace. ROUGE-L compares the first
    `max_new_tokens` tokens of the response with at most as many of the continuation.
    """
    found: list[Values] = []
    for row, (logprobs, matches) in zip(
        rows, reader.matches([(row.prompt_ids, row.response_ids) for row in rows]), strict=True
    ):
        cut = row.num_trace_tokens
        parts = {"response": slice(None), "trace": slice(0, cut), "answer": slice(cut, None)}
        values: Values = {}
        for part, span in parts.items():
            if matches[span].size:
                values[f"exact_memorization/{part}"] = exact_memorization(matches[span])
                values[f"extraction_strength/{part}"] = extraction_strength(matches[span])
                values[f"negative_log_likelihood/{part}"] = -float(np.mean(logprobs[span], dtype=np.float64))
        found.append(values)
    if max_new_tokens:
        stops = family.stop_token_ids(tokenizer)
        continuations = reader.continue_greedily([row.prompt_ids for row in rows], max_new_tokens, stops)
        for row, continuation, values in zip(rows, continuations, found, strict=True):
            reference, candidate = (
                rouge_words(tokenizer.decode(ids, skip_special_tokens=True))
                for ids in (row.response_ids[:max_new_tokens], continuation)
            )
            values |= {f"rouge_l/{name}": value for name, value in asdict(rouge_l(reference, candidate)).items()}
    return found


def sample_rows(rows: list[SupervisedRow], limit: int | None, seed: int) -> list[SupervisedRow]:
    """At most `limit` of the rows, in their order; which ones depends on the seed and the number of rows alone."""
    if limit is None or len(rows) <= limit:
        return rows
    return [rows[position] for position in sorted(draw_positions(len(rows), limit, seed, key=2))]


def figures(rows: Sequence[Values], seed: int) -> dict[str, Estimate]:
    """Means over the rows that have a measure, each row counting once."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: estimate(
            [row[name] for row in rows if name in row],
            share=not name.startswith("negative_log_likelihood"),
            seed=seed,
        )
        for name in names
    }


def _models(settings: AnalyzeSettings) -> dict[str, ModelSettings]:
    if not settings.analysis.models:
        return {settings.model.name: locate(settings.model, settings.model.path, settings.model.revision, "model.path")}
    found = {}
    for name, one in settings.analysis.models.items():
        if one.path is None:
            raise ConfigError(f"analysis.models.{name}.path: must be set for memorization")
        found[name] = locate(settings.model, one.path, one.revision, f"analysis.models.{name}.path")
    return found


def _rows(settings: AnalyzeSettings, tokenizer: PreTrainedTokenizerBase) -> SupervisedSet:
    data = settings.data
    if data.path is None and data.hub_id is None:
        raise ConfigError("data.path: set it, or choose data=star1; memorization reads supervised rows")
    if data.path is not None:
        data = replace(data, path=resolve(data.path, "data.path", of="rows"))
    return supervised_set(data, settings.sft, settings.model, tokenizer)


def _differences(
    found: Mapping[tuple[str, str], Mapping[str, Values]],
    base: str,
    models: Sequence[str],
    groups: Sequence[str],
    seed: int,
) -> Iterator[KnowledgeDifference]:
    """Every model less the base, paired by row."""
    for group, name in product(groups, (name for name in models if name != base)):
        mine, reference = found[name, group], found[base, group]
        for measure in dict.fromkeys(key for row in reference.values() for key in row):
            sides = [{key: row[measure] for key, row in rows.items() if measure in row} for rows in (mine, reference)]
            difference = Difference.between(paired_difference(sides[0], sides[1], seed=seed))
            yield KnowledgeDifference(model=name, group=group, measure=measure, **asdict(difference))


SHOWN = (
    "exact_memorization/response",
    "extraction_strength/response",
    "rouge_l/f_measure",
    "negative_log_likelihood/response",
)


def show(results: Memorization, console: Console) -> None:
    """The table: a row for each measure, model and group."""
    rows = [
        (measure, cell.model, cell.group, number(metric.value), interval(metric), str(metric.n))
        for measure, cell in product(SHOWN, results.cells)
        if (metric := cell.figures.get(measure)) is not None
    ]
    head = ("measure", "model", "rows", "value", "95% interval", "n")
    print_table(console, f"memorization of {results.data.name}", head, rows, left=len(head))
