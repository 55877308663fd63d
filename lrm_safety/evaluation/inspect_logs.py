"""Write an evaluation's responses and scores as Inspect logs, by running its tasks over what is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from inspect_ai import eval as inspect_eval
from inspect_ai.model import GenerateConfig, Model, modelapi
from inspect_ai.solver import TaskState

from ..conversation import ResponseParser
from ..errors import InvariantError
from .benchmarks.question import Question
from .graders.grade import Grade
from .inspect_provider import NUM_CONNECTIONS, EngineModel, request_key
from .inspect_tasks import Grades, Verdicts, build_task
from .judges.build import judge_views
from .judges.judge import Verdict, View
from .responses import Generated
from .scoring import Scored

if TYPE_CHECKING:
    from numpy import ndarray

    from .run import PreparedEvaluation


def write_logs(
    prepared: PreparedEvaluation, responses: Mapping[str, Sequence[Generated]], scored: Mapping[str, Sequence[Scored]]
) -> None:
    """One log a benchmark in FOLDER/logs, for `inspect view`."""
    settings = prepared.settings
    stored = {
        request_key(ask.prompt_ids, ask.seed): generated
        for one in prepared.planned
        for ask, generated in zip(one.asks, responses[one.name], strict=True)
    }

    async def respond(request: tuple[ndarray, int]) -> Generated:
        return stored[request_key(*request)]

    parser = ResponseParser(prepared.family, prepared.tokenizer)

    # Inspect names a model by its registered provider, and copies the arguments of its construction into the log.
    @modelapi(name="lrm_safety_evaluation")
    class StoredModel(EngineModel):
        def __init__(self, model_name: str) -> None:
            super().__init__(model_name, prepared.planner, parser, respond=respond, keep_tokens=False)

    api = StoredModel(settings.model.name)
    judges = {name: judge_views(judge) for name, judge in settings.evaluation.judges.items()}
    tasks = []
    for one in prepared.planned:
        asked = {ask.question.id for ask in one.asks}
        kept = [question for question in one.questions if question.id in asked]
        by_key = {(each.ask.question.id, each.ask.repeat): each for each in scored[one.name]}
        benchmark = settings.evaluation.benchmarks[one.name]
        tasks.append(
            build_task(
                one.name,
                one.benchmark.kind,
                type(one.questions)(tuple(kept), one.questions.source),
                one.samples,
                attack=one.attack,
                attack_arguments=benchmark.attack_arguments,
                seed=settings.evaluation.seed,
                verdicts={name: (_stored_verdicts(name, by_key), views) for name, views in judges.items()}
                if one.benchmark.judged
                else {},
                grades=None if one.benchmark.judged else _stored_grades(by_key),
            )
        )
    folder = prepared.directory / "logs"
    protocol = prepared.protocol
    logs = inspect_eval(
        tasks,
        model=Model(api, GenerateConfig(max_connections=NUM_CONNECTIONS)),
        log_dir=str(folder),
        display="none",
        max_tasks=1,
        max_samples=256,
        fail_on_error=True,
        ctl_server=False,
        metadata={"protocol": protocol.name, "model_fingerprint": prepared.fingerprint},
        temperature=protocol.temperature,
        top_p=protocol.top_p,
        max_tokens=protocol.max_response_tokens,
    )
    for log in logs:
        if log.status != "success":
            reason = log.error.message if log.error else log.status
            raise InvariantError(f"{folder}: the Inspect log of {log.eval.task} was not written ({reason})")


def _stored_verdicts(judge: str, by_key: Mapping[tuple[str, int], Scored]) -> Verdicts:
    async def verdicts(question: Question, repeat: int, state: TaskState) -> Mapping[View, Verdict]:
        return by_key[question.id, repeat].verdicts[judge]

    return verdicts


def _stored_grades(by_key: Mapping[tuple[str, int], Scored]) -> Grades:
    async def grades(question: Question, repeat: int, state: TaskState) -> Grade:
        found = by_key[question.id, repeat].grade
        assert found is not None
        return found

    return grades
