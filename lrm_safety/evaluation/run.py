"""One evaluation from a checked configuration to its results: plan, generate, judge and grade, figures, logs.

Every step keeps what it has done in the evaluation's folder, so the same command goes on after a kill, and another judge
or benchmark adds to what is there.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..conversation.families import Family, Protocol, get_family
from ..conversation.response import ResponseParser
from ..errors import ConfigError
from ..modeling.adapter import Adapter, find_adapter, merge_adapter
from ..modeling.folder import model_fingerprint
from ..modeling.load import check_causal_lm, load_tokenizer
from ..models_cache import ensure_cached
from ..monitoring.progress import counted, waiting
from ..results import EvaluatedAdapter, Evaluation, Model
from ..rollouts import SamplingParameters
from ..settings import EvaluateSettings, ModelSettings
from ..settings.paths import CACHE_PREFIX, resolve
from ..settings.types import Device
from .engine import Engine, EngineGroup, context_tokens, engine_spec, resolve_device
from .figures import figures
from .graders.math import MathGrader
from .judges.judge import build_judge, check_judged, judge_identity, judge_views
from .judges.refusal_rules import measured_error
from .plan import PlannedBenchmark, Planner, check_template_thinks, choose_protocol, sampling_parameters
from .responses import Generated, ResponseStore, identity_of
from .results import SAMPLES, benchmark_results, show, write_samples
from .scoring import Scored, VerdictStore, grade, parse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RESPONSES, LOGS, MERGED = "responses", "logs", ".merged"
JUDGED_TOGETHER = 256
"""Texts that a judge reads at once where responses come in no batches."""


@dataclass
class PreparedEvaluation:
    """A checked evaluation: everything is known but the responses."""

    settings: EvaluateSettings
    directory: Path
    device: Device
    family: Family
    tokenizer: PreTrainedTokenizerBase
    protocol: Protocol
    sampling: SamplingParameters
    planner: Planner
    planned: list[PlannedBenchmark]
    fingerprint: str
    """Of the model."""
    adapter: Adapter | None
    """On top of it."""
    responses: ResponseStore
    verdicts: dict[str, VerdictStore]
    """By judge; empty when no benchmark is judged."""


def prepare(settings: EvaluateSettings, directory: Path) -> PreparedEvaluation:
    """Check and plan everything that needs no engine: the model, every prompt, the judges, and what `directory` holds.

    Writes nothing. Raises ConfigError, DataError or ModelError in one line.
    """
    evaluation, model = settings.evaluation, settings.model
    if not evaluation.benchmarks:
        raise ConfigError("evaluation.benchmarks: is empty; choose some, e.g. evaluation=[attaq,math500]")
    if model.path.startswith(CACHE_PREFIX):
        ensure_cached(model.path.removeprefix(CACHE_PREFIX), lambda line: None)
    model = replace(model, path=resolve(model.path, "model.path"))
    settings = replace(settings, model=model)
    family = get_family(model.family)
    config = check_causal_lm(model)
    tokenizer = load_tokenizer(model)
    stop = tuple(family.stop_token_ids(tokenizer))
    rollout = settings.rollout
    as_training = SamplingParameters(
        rollout.temperature, rollout.top_p, rollout.top_k, rollout.max_response_tokens, stop
    )
    protocol = choose_protocol(evaluation, family, as_training)
    check_template_thinks(protocol, family, tokenizer)
    context = context_tokens(model.path, model.revision, model.trust_remote_code)
    room = rollout.max_prompt_tokens if context is None else context - protocol.max_response_tokens
    if room < 1:
        raise ConfigError(
            f"evaluation.max_response_tokens={protocol.max_response_tokens}: leaves no room for a prompt in the model's context "
            f"of {context} tokens; lower it"
        )
    planner = Planner(
        family,
        tokenizer,
        system_prompt=model.system_prompt,
        max_prompt_tokens=room,
        limit_key=f"the model's context of {context} tokens less evaluation.max_response_tokens",
        num_embeddings=getattr(config.get_text_config(), "vocab_size", None),
    )
    planned = planner.plan(evaluation, protocol)
    judged = [one for one in planned if one.benchmark.judged]
    check_judged({one.name: one.benchmark.kind for one in judged}, evaluation.judges)
    device = resolve_device(settings.run.device)
    fingerprint = model_fingerprint(model.path, model.revision)
    adapter = find_adapter(model.adapter, model) if model.adapter else None
    identity = identity_of(
        model.name, fingerprint, model.dtype, device, protocol, evaluation.seed, evaluation.batch_size
    )
    if adapter is not None:
        identity["adapter_fingerprint"] = adapter.fingerprint
    responses = ResponseStore(directory / RESPONSES, identity, evaluation.batch_size)
    responses.check(planned)
    verdicts = {
        name: VerdictStore(
            directory / RESPONSES,
            name,
            judge_identity(name, judge),
            judge_views(judge),
            evaluation.batch_size or JUDGED_TOGETHER,
        )
        for name, judge in evaluation.judges.items()
        if judged
    }
    for store in verdicts.values():
        for one in judged:
            store.check(one)
    return PreparedEvaluation(
        settings=settings,
        directory=directory,
        device=device,
        family=family,
        tokenizer=tokenizer,
        protocol=protocol,
        sampling=sampling_parameters(protocol, stop),
        planner=planner,
        planned=planned,
        fingerprint=fingerprint,
        adapter=adapter,
        responses=responses,
        verdicts=verdicts,
    )


def evaluate(prepared: PreparedEvaluation, console: Console) -> Evaluation:
    """Run it to its end; returns what results.json holds."""
    settings, planned, adapter = prepared.settings, prepared.planned, prepared.adapter
    seconds: dict[str, float] = {}
    with _timed(seconds, "generate_seconds"):
        responses = _generate(prepared, console)
    parser = ResponseParser(prepared.family, prepared.tokenizer)
    scored = {one.name: parse(one, responses[one.name], parser) for one in planned}
    with _timed(seconds, "judge_seconds"):
        for store in prepared.verdicts.values():
            _judge(prepared, store, scored, console)
    with _timed(seconds, "grade_seconds"), MathGrader() as grader:
        for one in planned:
            if not one.benchmark.judged:
                items = [(each.ask.question, each.response, each.ask.target) for each in scored[one.name]]
                for each, result in zip(scored[one.name], grade(one.benchmark.scoring, items, grader), strict=True):
                    each.grade = result
    judges = {name: judge_views(judge) for name, judge in settings.evaluation.judges.items()}
    benchmarks = {
        one.name: benchmark_results(
            one, scored[one.name], figures(one, scored[one.name], judges, settings.evaluation.seed), judges
        )
        for one in planned
    }
    write_samples(prepared.directory / SAMPLES, scored, log_text=settings.evaluation.log_text)
    results = Evaluation(
        model=Model(
            name=settings.model.name,
            path=settings.model.path,
            family=settings.model.family,
            dtype=settings.model.dtype,
            fingerprint=prepared.fingerprint,
            adapter=EvaluatedAdapter(adapter.path, adapter.fingerprint) if adapter else None,
        ),
        protocol=prepared.protocol,
        seed=settings.evaluation.seed,
        judges={
            name: store.identity | ({"measured": measured_error()} if store.identity["kind"] == "refusal_rules" else {})
            for name, store in prepared.verdicts.items()
        },
        benchmarks=benchmarks,
        seconds={name: round(value, 2) for name, value in seconds.items()},
    )
    results.write(prepared.directory)
    show(results, console)
    _write_logs(prepared, responses, scored, console)
    return results


def _write_logs(
    prepared: PreparedEvaluation,
    responses: Mapping[str, Sequence[Generated]],
    scored: Mapping[str, Sequence[Scored]],
    console: Console,
) -> None:
    """Inspect's logs where text may be kept, after everything else: with many long responses they take minutes."""
    folder = prepared.directory / LOGS
    for old in folder.glob("*.eval"):
        old.unlink()  # of an evaluation before this one
    if not prepared.settings.evaluation.log_text:  # they would hold prompts and responses
        return
    console.print(
        f"{prepared.directory}/results.json is written; now the Inspect logs of {sum(map(len, scored.values()))} responses ...",
        soft_wrap=True,
    )
    from .inspect_tasks import write_logs

    write_logs(prepared, responses, scored)


def _generate(prepared: PreparedEvaluation, console: Console) -> dict[str, list[Generated]]:
    settings, planned, store = prepared.settings, prepared.planned, prepared.responses
    store.open(planned)
    missing = sum(store.num_missing(one) for one in planned)
    if missing:
        with _plain_model(prepared, console) as model:
            wanted = engine_spec(
                model,
                settings.rollout,
                device=prepared.device,
                seed=settings.evaluation.seed,
                max_prompt_tokens=max(len(ask.prompt_ids) for one in planned for ask in one.asks),
                max_response_tokens=prepared.protocol.max_response_tokens,
                num_engines=settings.run.num_engines,
            )
            several = settings.run.num_engines > 1
            engine = (
                EngineGroup(wanted, lambda line: console.print(line, soft_wrap=True)) if several else Engine(wanted)
            )
            try:
                with counted(console, "generating", missing) as advance:
                    store.complete(planned, engine, prepared.sampling, advance)
            finally:
                engine.close()
    return {one.name: store.read(one) for one in planned}


@contextmanager
def _plain_model(prepared: PreparedEvaluation, console: Console) -> Iterator[ModelSettings]:
    """The model that the engines load: with an adapter one that it is merged into, in the evaluation's folder until they end."""
    model, folder = prepared.settings.model, prepared.directory / MERGED
    if prepared.adapter is None:
        yield model
        return
    try:
        with waiting(console, f"merging {prepared.adapter.path} into its base"):
            merge_adapter(model, prepared.adapter, folder)
        yield replace(model, path=str(folder), revision=None)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _judge(
    prepared: PreparedEvaluation, store: VerdictStore, scored: Mapping[str, list[Scored]], console: Console
) -> None:
    """All verdicts of one judge; it is only built when some are missing."""
    judged = [one for one in prepared.planned if one.benchmark.judged]
    for one in judged:
        store.open(one)
    if missing := sum(store.num_missing(one, scored[one.name]) for one in judged):
        with waiting(console, f"loading the judge {store.name}"):
            judge = build_judge(store.name, prepared.settings.evaluation.judges[store.name], device=prepared.device)
        try:
            with counted(console, f"judging with {store.name}", missing) as advance:
                for one in judged:
                    store.complete(one, scored[one.name], judge, advance)
        finally:
            judge.close()
    for one in judged:
        store.read(one, scored[one.name])


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begin = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begin
