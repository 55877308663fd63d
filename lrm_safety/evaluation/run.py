"""One evaluation from a checked configuration to its results: plan, generate, judge and grade, figures, logs.

Every step keeps what it has done in the evaluation's folder, so the same command goes on after a kill, and another judge
or benchmark adds to what is there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..errors import ConfigError
from ..monitoring.progress import counted, waiting
from ..results import Evaluation
from ..settings import EvaluateSettings
from .engine import resolve_device
from .figures import figures
from .graders.math import MathGrader
from .judges.judge import build_judge, check_judged, judge_identity, judge_views
from .judges.refusal_rules import measured_error
from .plan import PlannedBenchmark
from .responses import Generated, ResponseStore
from .results import SAMPLES, benchmark_results, show, write_samples
from .scoring import Scored, VerdictStore, grade, parse
from .subject import Subject, subject_of

RESPONSES, LOGS = "responses", "logs"
JUDGED_TOGETHER = 256
"""Texts that a judge reads at once where responses come in no batches."""


@dataclass
class PreparedEvaluation:
    """A checked evaluation: everything is known but the responses."""

    settings: EvaluateSettings
    directory: Path
    subject: Subject
    planned: list[PlannedBenchmark]
    responses: ResponseStore
    verdicts: dict[str, VerdictStore]
    """By judge; empty when no benchmark is judged."""


def prepare(settings: EvaluateSettings, directory: Path) -> PreparedEvaluation:
    """Check and plan everything that needs no engine: the model, every prompt, the judges, and what `directory` holds.

    Writes nothing. Raises ConfigError, DataError or ModelError in one line.
    """
    evaluation = settings.evaluation
    if not evaluation.benchmarks:
        raise ConfigError("evaluation.benchmarks: is empty; choose some, e.g. evaluation=[attaq,math500]")
    subject = subject_of(settings)
    planned = subject.planner.plan(evaluation, subject.protocol)
    judged = [one for one in planned if one.benchmark.judged]
    check_judged({one.name: one.benchmark.kind for one in judged}, evaluation.judges)
    responses = ResponseStore(directory / RESPONSES, subject.identity, subject.batch_size, subject.kind)
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
    return PreparedEvaluation(settings, directory, subject, planned, responses, verdicts)


def evaluate(prepared: PreparedEvaluation, console: Console) -> Evaluation:
    """Run it to its end; returns what results.json holds."""
    settings, planned = prepared.settings, prepared.planned
    seconds: dict[str, float] = {}
    with _timed(seconds, "generate_seconds"):
        responses = _generate(prepared, console)
    parser = prepared.subject.parser()
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
        model=prepared.subject.named(),
        protocol=prepared.subject.protocol,
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
    planned, store = prepared.planned, prepared.responses
    store.open(planned)
    missing = sum(store.num_missing(one) for one in planned)
    if missing:
        with (
            prepared.subject.engines(planned, prepared.directory, console) as engines,
            counted(console, "generating", missing) as advance,
        ):
            store.complete(planned, engines, prepared.subject.sampling, advance)
    return {one.name: store.read(one) for one in planned}


def _judge(
    prepared: PreparedEvaluation, store: VerdictStore, scored: Mapping[str, list[Scored]], console: Console
) -> None:
    """All verdicts of one judge; it is only built when some are missing."""
    judged = [one for one in prepared.planned if one.benchmark.judged]
    for one in judged:
        store.open(one)
    if missing := sum(store.num_missing(one, scored[one.name]) for one in judged):
        with waiting(console, f"loading the judge {store.name}"):
            judge = build_judge(
                store.name,
                prepared.settings.evaluation.judges[store.name],
                device=resolve_device(prepared.settings.run.device),
            )
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
