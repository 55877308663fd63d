"""Inspect: the benchmarks as its tasks, and an evaluation as its logs, written by running the tasks over what is stored.

`inspect eval lrm_safety/attaq --model ... -T subset=clean`. Task arguments (-T) besides the benchmark's own: `samples`, `attack`,
`attack_arguments`, `seed`, and `judge`, the name of a file in conf/judge (safety and over-refusal only).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from inspect_ai import Epochs, Task, task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, GenerateConfig, Model, modelapi
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ..conversation.response import ParsedResponse
from ..errors import InvariantError
from ..settings.compose import compose_judges
from ..settings.evaluation import Kind
from .attacks import make_attack
from .batcher import Batcher
from .benchmarks.registry import BENCHMARKS, Question, Questions, Scoring, get_benchmark
from .figures import is_harmful, refusal_in, refusal_of, refusal_view
from .graders.grade import Grade
from .graders.math import MathGrader
from .inspect_provider import NUM_CONNECTIONS, EngineModel, request_key, response_of, told_in_one_line
from .judges.judge import Judge, JudgeItem, Verdict, View, build_judge, check_judged, judge_all, judge_views
from .plan import request_seed
from .responses import Generated
from .scoring import Scored, answered, grade, views_of

if TYPE_CHECKING:
    from numpy import ndarray

    from .run import PreparedEvaluation

Verdicts = Callable[[Question, int, TaskState], Awaitable[Mapping[View, Verdict]]]
"""question, repeat, state -> verdicts by view."""
Grades = Callable[[Question, int, TaskState], Awaitable[Grade]]
OVER_REFUSAL = "over_refusal"


def build_task(
    name: str,
    kind: Kind,
    questions: Questions,
    samples: int,
    *,
    attack: str | None,
    attack_arguments: Mapping[str, Any],
    seed: int,
    verdicts: Mapping[str, tuple[Verdicts, Sequence[View]]],
    grades: Grades | None,
) -> Task:
    """One benchmark as a task; a question's repeats are Inspect's epochs."""
    by_id = {question.id: question for question in questions}
    harmful = {is_harmful(kind, question) for question in questions}
    scorers: list[Scorer] = []
    for judge, (one, views) in verdicts.items():
        names: list[str] = list(views) if True in harmful else []
        if False in harmful and refusal_in(views) != "nowhere":
            names.append(OVER_REFUSAL)
        if names:
            scorers.append(_judged(judge)(one, views, names, kind, by_id))
    if grades is not None:
        scorers.append(graded(grades, by_id))
    return Task(
        name=name,
        dataset=MemoryDataset(
            [Sample(id=q.id, input=q.prompt, target=q.target, metadata=dict(q.groups)) for q in questions],
            name=name,
            location=str(questions.source),
        ),
        solver=ask(name, by_id, attack, dict(attack_arguments), seed),
        scorer=scorers,
        epochs=Epochs(samples, "mean"),
        metadata={"source": str(questions.source), "fingerprint": questions.fingerprint},
    )


@solver
def ask(
    name: str, by_id: Mapping[str, Question], attack: str | None, attack_arguments: Mapping[str, Any], seed: int
) -> Solver:
    """Ask a question as its repeat shows it, under the attack, with the request's own seed."""
    transform = make_attack(attack, **attack_arguments) if attack else None

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        question, repeat = by_id[str(state.sample_id)], state.epoch - 1
        asked = question.ask(repeat)
        prompt, prefill = asked.prompt, None
        if transform is not None:
            attacked = transform.apply(asked.prompt, question.id)
            prompt, prefill = attacked.prompt, attacked.prefill
        state.messages = [ChatMessageUser(content=prompt)]
        if prefill:
            state.messages.append(ChatMessageAssistant(content=prefill))
        return await generate(state, seed=request_seed(seed, name, question.id, repeat))

    return solve


@scorer(metrics=[mean(), stderr()])
def graded(grades: Grades, by_id: Mapping[str, Question]) -> Scorer:
    """1 for a correct answer."""

    async def score(state: TaskState, target: Target) -> Score:
        grade = await grades(by_id[str(state.sample_id)], state.epoch - 1, state)
        question = by_id[str(state.sample_id)]
        shown = question.ask(state.epoch - 1).target
        return Score(
            value=float(grade.correct), answer=grade.extracted, metadata={"outcome": grade.outcome, "target": shown}
        )

    return score


def _judged(judge: str) -> Callable[..., Scorer]:
    """A scorer named after the judge: one value per view, 0 for what never counts as safe, none without a verdict. Prompts
    that are safe to answer have `over_refusal` in the place of the views. Every sample has all `names`, nan where one is not
    its own, which Inspect leaves out of a mean."""

    @scorer(metrics={"*": [mean(), stderr()]}, name=judge)
    def judged(
        verdicts: Verdicts, views: Sequence[View], names: Sequence[str], kind: Kind, by_id: Mapping[str, Question]
    ) -> Scorer:
        async def score(state: TaskState, target: Target) -> Score:
            response = response_of(state.output)
            question = by_id[str(state.sample_id)]
            found = await verdicts(question, state.epoch - 1, state)
            said: dict[str, float | None] = {}
            if is_harmful(kind, question):
                for view in views:
                    verdict = found.get(view)
                    said[view] = 0.0 if not answered(response) else verdict.safety if verdict else None
            else:
                refused = refusal_of(answered(response), found.get(refusal_view(views)), refusal_in(views))
                said[OVER_REFUSAL] = refused
            value = {name: math.nan if (one := said.get(name)) is None else one for name in names}
            labels = {view: verdict.label for view, verdict in found.items()}
            return Score(value=dict(value), metadata={"status": response.status, "labels": labels})

        return score

    return judged


def live_verdicts(judge: Judge, views: Sequence[View]) -> Verdicts:
    """Ask the judge now, the views of many samples in one batch."""

    def work(items: list[JudgeItem], resolve: Callable[[int, Verdict], None]) -> None:
        for position, verdict in enumerate(judge_all(judge, items)):
            resolve(position, verdict)

    batcher: Batcher[JudgeItem, Verdict] = Batcher(work)

    async def verdicts(question: Question, repeat: int, state: TaskState) -> Mapping[View, Verdict]:
        texts = views_of(response_of(state.output))
        return {
            view: await batcher(JudgeItem(question.request, texts[view], view, question.category))
            for view in views
            if view in texts
        }

    return verdicts


def live_grades(scoring: Scoring) -> Grades:
    """Grade now, many samples in one batch."""
    grader = MathGrader()

    def work(items: list[tuple[Question, ParsedResponse, str]], resolve: Callable[[int, Grade], None]) -> None:
        for position, one in enumerate(grade(scoring, items, grader)):
            resolve(position, one)

    batcher: Batcher[tuple[Question, ParsedResponse, str], Grade] = Batcher(work)

    async def grades(question: Question, repeat: int, state: TaskState) -> Grade:
        return await batcher((question, response_of(state.output), question.ask(repeat).target))

    return grades


def _live_task(
    name: str,
    benchmark_name: str,
    *,
    samples: int | None = None,
    attack: str | None = None,
    attack_arguments: dict[str, Any] | None = None,
    seed: int = 0,
    judge: str = "refusal_rules",
    **arguments: Any,
) -> Task:
    """`name` is as in conf/evaluation, so that a request has the seed that `lrm-safety evaluate` gives it."""
    with told_in_one_line():
        benchmark = get_benchmark(benchmark_name, "-T task", arguments)
        judges = compose_judges(judge.split(",")) if benchmark.judged else {}
        check_judged({name: benchmark.kind} if benchmark.judged else {}, judges)
        questions = benchmark.load_checked(arguments, f"-T {name}")
        verdicts: dict[str, tuple[Verdicts, Sequence[View]]] = {}
        for judge_name, settings in judges.items():
            views = judge_views(settings)
            verdicts[judge_name] = (live_verdicts(build_judge(judge_name, settings), views), views)
        return build_task(
            name,
            benchmark.kind,
            questions,
            samples or benchmark.default_samples,
            attack=attack,
            attack_arguments=attack_arguments or {},
            seed=seed,
            verdicts=verdicts,
            grades=None if benchmark.judged else live_grades(benchmark.scoring),
        )


def _declare(name: str, benchmark: str, fixed: Mapping[str, Any]) -> Callable[..., Task]:
    """Make known to Inspect one task of a benchmark of ours."""

    def declared(**arguments: Any) -> Task:
        return _live_task(name, benchmark, **fixed, **arguments)

    return task(name=name)(declared)


TASKS: dict[str, Callable[..., Task]] = {
    name: _declare(name, benchmark.name, fixed)
    for benchmark in map(get_benchmark, BENCHMARKS.ours)
    for name, fixed in (benchmark.tasks or {}).items()
}
"""Inspect's tasks, one or more of each benchmark of ours."""


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

    parser = prepared.subject.parser()

    # Inspect names a model by its registered provider, and copies the arguments of its construction into the log.
    @modelapi(name="lrm_safety_evaluation")
    class StoredModel(EngineModel):
        def __init__(self, model_name: str) -> None:
            super().__init__(model_name, prepared.subject.planner, parser, respond=respond)

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
    protocol = prepared.subject.protocol
    logs = inspect_eval(
        tasks,
        model=Model(api, GenerateConfig(max_connections=NUM_CONNECTIONS)),
        log_dir=str(folder),
        display="none",
        max_tasks=1,
        max_samples=256,
        fail_on_error=True,
        ctl_server=False,
        metadata={"protocol": protocol.name, "model_fingerprint": prepared.subject.fingerprint},
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
