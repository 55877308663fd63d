"""The benchmarks as Inspect tasks: `inspect eval lrm_safety/attaq --model ... -T subset=clean`.

Task arguments (-T) besides the benchmark's own: `samples`, `attack`, `attack_arguments`, `seed`, and `judge`, the name of a
file in conf/judge (safety and over-refusal only).
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from inspect_ai import Epochs, Task, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import ChatMessageAssistant, ChatMessageUser
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver

from ..conversation import ParsedResponse
from ..settings.compose import compose_judges
from ..settings.evaluation import Kind
from .attacks import make_attack
from .batcher import Batcher
from .benchmarks.question import Question, Questions
from .benchmarks.registry import BENCHMARKS, Scoring, get_benchmark
from .figures import is_harmful, refusal_in, refusal_of, refusal_view
from .graders.grade import Grade
from .graders.math import MathGrader
from .inspect_provider import response_of, told_in_one_line
from .judges.build import build_judge, check_judged, judge_views
from .judges.judge import Judge, JudgeItem, Verdict, View, judge_all
from .plan import request_seed
from .scoring import answered, grade, views_of

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
