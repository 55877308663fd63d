"""`lrm-safety analyze reflection`: every model reads every model's responses, and what their entropies come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Literal

from rich.console import Console

from ...errors import ConfigError, DataError
from ...evaluation.results import interval, number
from ...results import (
    Difference,
    Forking,
    ForkingThreshold,
    Metric,
    ReadingDifference,
    Reflection,
    ReflectionCell,
    known,
)
from ...settings import ModelSettings
from ...settings.analysis import AnalyzeSettings, ReflectionSettings
from ...statistics import paired_difference
from ...terminal import print_table
from .models import common_tokenizer, describe, locate, reading
from .reflection import (
    PER_RESPONSE,
    ReadResponse,
    ReflectionCounts,
    by_question,
    count_reflection,
    decile_figures,
    find_reflection_tokens,
    forking_threshold,
    reflection_figures,
)
from .responses import Written, WrittenResponse, read_evaluation

Key = tuple[str, str, str, float]
"""Reader, writer, benchmark, temperature."""


def analyze_reflection(settings: AnalyzeSettings, console: Console) -> Reflection:
    """Run it to its end; returns what reflection.json holds. Raises ConfigError, DataError or ModelError in one line."""
    options, seed = settings.analysis.reflection, settings.seed
    written, models = _gather(settings)
    benchmarks = _comparable(written)
    tokenizer = common_tokenizer(models | {f"{name}.evaluation": one.model for name, one in written.items()})
    tokens = find_reflection_tokens(tokenizer, options.preset, options.words)
    temperatures = choose_temperatures(options.temperatures, [one.temperature for one in written.values()])
    read: dict[Key, list[ReadResponse]] = {}
    for name, model in models.items():
        read |= _read_all(settings, name, model, written, benchmarks, temperatures, console)
    base = next(iter(written))
    thresholds = {
        temperature: _threshold(options, [read[base, base, benchmark, temperature] for benchmark in benchmarks])
        for temperature in temperatures
    }
    ids = frozenset(tokens.ids.values())
    counts = {
        key: [count_reflection(one, ids, thresholds[key[-1]]) for one in responses] for key, responses in read.items()
    }
    results = Reflection(
        base=base,
        models=describe(models),
        sampling_temperatures={name: one.temperature for name, one in written.items()},
        tokens=tokens,
        forking=Forking(
            percentile=options.forking_percentile if options.forking_threshold is None else None,
            thresholds=tuple(ForkingThreshold(temperature, known(value)) for temperature, value in thresholds.items()),
        ),
        seed=seed,
        cells=tuple(
            ReflectionCell(
                *key,
                num_responses=len(mine),
                figures={name: Metric.of(figure) for name, figure in reflection_figures(mine, seed).items()},
                deciles=tuple(map(Metric.of, decile_figures(mine, seed))),
            )
            for key, mine in counts.items()
        ),
        differences=tuple(_differences(counts, base, list(models), list(written), benchmarks, temperatures, seed)),
    )
    show(results, console)
    return results


def _gather(settings: AnalyzeSettings) -> tuple[dict[str, Written], dict[str, ModelSettings]]:
    """What was written, by model, and all models; the first that wrote something is the base."""
    options = settings.analysis.reflection
    written: dict[str, Written] = {}
    models: dict[str, ModelSettings] = {}
    for name, one in settings.analysis.models.items():
        key = f"analysis.models.{name}"
        if one.evaluation is not None:
            written[name] = read_evaluation(Path(one.evaluation), options.benchmarks, options.limit)
            if (family := written[name].model.family) != settings.model.family:
                raise ConfigError(
                    f"{key}.evaluation={one.evaluation}: is of model.family={family}, not {settings.model.family}"
                )
        if one.path is not None:
            models[name] = locate(settings.model, one.path, one.revision, f"{key}.path")
        elif name in written:
            own = written[name].model
            models[name] = locate(settings.model, own.path, own.revision, f"{key}.evaluation")
        else:
            raise ConfigError(f"{key}: set path, evaluation, or both")
    if not written:
        raise ConfigError(
            "analysis.models: nobody has responses; add a model with +analysis.models.NAME.evaluation=FOLDER of "
            "`lrm-safety evaluate`"
        )
    return written, models


def choose_temperatures(asked: Sequence[float], sampled_at: Sequence[float]) -> list[float]:
    """Temperatures, each once: those asked for, or those of the responses' sampling first and then 1.

    Responses that were decoded greedily (temperature 0) add none: the entropy of greedy decoding is 0 everywhere. Raises
    ConfigError for a temperature that is not above 0.
    """
    if any(temperature <= 0 for temperature in asked):
        raise ConfigError("analysis.reflection.temperatures: must be above 0; at 0 every entropy is 0")
    return list(dict.fromkeys(asked or [*(temperature for temperature in sampled_at if temperature > 0), 1.0]))


def _comparable(written: Mapping[str, Written]) -> list[str]:
    """Benchmarks that all hold. Raises DataError when there is none, or their questions or prompts differ."""
    first, *others = written
    shared = [name for name in written[first].benchmarks if all(name in written[other].benchmarks for other in others)]
    if not shared:
        raise DataError(f"the evaluations of {', '.join(written)} have no benchmark in common")
    for name, other in product(shared, others):
        mine, theirs = (written[writer].benchmarks[name] for writer in (first, other))
        if _prompts(mine) != _prompts(theirs):
            raise DataError(
                f"{name}: {first} and {other} were asked other questions or prompted otherwise; evaluate both with the same "
                "data, attack, samples and limit, or read as many by analysis.reflection.limit"
            )
    return shared


def _prompts(responses: Sequence[WrittenResponse]) -> dict[str, bytes]:
    """Each question's first prompt."""
    return {one.question: one.prompt_ids.tobytes() for one in reversed(responses)}


def _read_all(
    settings: AnalyzeSettings,
    name: str,
    model: ModelSettings,
    written: Mapping[str, Written],
    benchmarks: Sequence[str],
    temperatures: Sequence[float],
    console: Console,
) -> dict[Key, list[ReadResponse]]:
    """One model reads all responses; it is loaded once and its memory given back."""
    responses_of = {key: written[key[0]].benchmarks[key[1]] for key in product(written, benchmarks)}
    found: dict[Key, list[ReadResponse]] = {}
    total = sum(map(len, responses_of.values())) * len(temperatures)
    with reading(model, settings, console, f"{name} reads {', '.join(written)}", total) as reader:
        for (writer, benchmark), responses in responses_of.items():
            pairs = [(one.prompt_ids, one.response_ids) for one in responses]
            for temperature in temperatures:
                entropies = reader.entropies(pairs, temperature)
                found[name, writer, benchmark, temperature] = [
                    ReadResponse(one.question, one.response_ids, mine, one.num_trace_tokens)
                    for one, mine in zip(responses, entropies, strict=True)
                ]
    return found


def _threshold(options: ReflectionSettings, own: Sequence[Sequence[ReadResponse]]) -> float:
    if options.forking_threshold is not None:
        return options.forking_threshold
    return forking_threshold([one for responses in own for one in responses], options.forking_percentile)


def _differences(
    counts: Mapping[Key, Sequence[ReflectionCounts]],
    base: str,
    readers: Sequence[str],
    writers: Sequence[str],
    benchmarks: Sequence[str],
    temperatures: Sequence[float],
    seed: int,
) -> Iterator[ReadingDifference]:
    """Every model less the base, paired by question: each on its own responses (another policy), and both on the same
    responses (another reader of one text)."""
    pairs: list[tuple[Literal["own_responses", "same_responses"], str, str, str]]
    pairs = [("own_responses", other, other, base) for other in writers if other != base]
    pairs += [("same_responses", other, writer, writer) for other, writer in product(readers, writers) if other != base]
    for benchmark, temperature, (kind, other, writer, base_writer) in product(benchmarks, temperatures, pairs):
        mine, reference = (
            counts[key]
            for key in ((other, writer, benchmark, temperature), (base, base_writer, benchmark, temperature))
        )
        for measure, value in PER_RESPONSE.items():
            first, second = by_question(mine, value), by_question(reference, value)
            if (
                kind == "same_responses"
                and first.keys() == second.keys()
                and measure.startswith(("reflections", "length"))
            ):
                continue  # a property of the text alone
            found = Difference.between(paired_difference(first, second, seed=seed))
            yield ReadingDifference(
                kind=kind,
                reader=other,
                writer=writer,
                benchmark=benchmark,
                temperature=temperature,
                measure=measure,
                **asdict(found),
            )


SHOWN = ("emit/token_mean", "next/token_mean", "other/token_mean", "reflections/per_1000_trace_tokens")


def show(results: Reflection, console: Console) -> None:
    """The table: a row for each reader, writer and temperature. `other` are the trace tokens that are no reflection."""
    rows = []
    for cell in results.cells:
        metrics = [cell.figures.get(name) for name in SHOWN]
        emits, *others = (number(one.value if one else None) for one in metrics)
        place = (cell.benchmark, f"{cell.temperature:g}", cell.writer, cell.reader)
        rows.append((*place, f"{emits}\n{interval(metrics[0])}", *others))
    head = ("benchmark", "T", "written by", "read by", "emits", "next", "other", "per 1000")
    print_table(console, "entropy at reflection tokens, nats", head, rows, left=5)
    left_out = results.tokens.words_without_token
    if left_out:
        console.print(f"not a single token here, so not counted: {', '.join(left_out)}")
