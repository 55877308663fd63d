"""Evaluation: generation with its store against a bare `vllm.LLM.generate`, and how long grading takes."""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lrm_safety.errors import DataError
from lrm_safety.rollouts import GenerationRequest
from lrm_safety.settings import Settings
from lrm_safety.workers.environment import environment

from .figures import Context, Measurement, NotMeasured
from .generation import SAMPLING, WORK, BareEngine, requests_of
from .isolated import Isolated
from .timing import interleave, speed_ratio

if TYPE_CHECKING:
    from lrm_safety.evaluation.plan import PlannedBenchmark

MODEL = "smollm2"
GRADING_ROUNDS = 3


class SuiteEngine:
    """The engine of `lrm-safety evaluate` behind the store that makes it resumable."""

    def __init__(self, settings: Settings, requests: list[GenerationRequest]) -> None:
        from lrm_safety.evaluation.engine import Engine

        self._engine = Engine(settings)
        self._planned = planned(requests)

    def generate(self, max_tokens: int) -> tuple[float, list[list[int]]]:
        """Seconds until every response is saved, and the token ids in the order of the requests."""
        from lrm_safety.evaluation.responses import ResponseStore

        sampling = replace(SAMPLING, max_response_tokens=max_tokens)
        with tempfile.TemporaryDirectory() as folder:
            store = ResponseStore(Path(folder), {}, batch_size=256)
            begin = time.perf_counter()
            store.open([self._planned])
            store.complete([self._planned], self._engine, sampling, lambda num_tokens: None)
            seconds = time.perf_counter() - begin
            return seconds, [one.ids.tolist() for one in store.read(self._planned)]


def planned(requests: list[GenerationRequest]) -> PlannedBenchmark:
    """The requests as a benchmark's plan."""
    from lrm_safety.datasets.serialised import Source
    from lrm_safety.evaluation.benchmarks.question import Question, Questions
    from lrm_safety.evaluation.benchmarks.registry import get_benchmark
    from lrm_safety.evaluation.plan import Ask, PlannedBenchmark

    questions = [Question(str(request.request_id), "", "") for request in requests]
    nothing = np.zeros(0, dtype=np.int32)
    asks = tuple(
        Ask(question, 0, "", "", request.prompt_ids, nothing, request.seed)
        for question, request in zip(questions, requests, strict=True)
    )
    benchmark = get_benchmark("long_tail")
    return PlannedBenchmark("work", benchmark, Questions(tuple(questions), Source("benchmark")), 1, None, asks, 0)


def generation_ratio(context: Context) -> Measurement:
    """Speed of an evaluation's generation / speed of bare vLLM, same engine arguments, prompts, seeds and threads."""
    settings = context.systems.settings(MODEL)
    count, max_tokens = WORK[MODEL]
    requests = requests_of(count)
    responses: dict[str, list[list[int]]] = {}
    variables = environment("rollout", settings)
    with (
        Isolated(SuiteEngine, settings, requests, environment=variables) as suite,
        Isolated(BareEngine, settings, environment=variables) as bare,
    ):

        def side(name: str, process: Isolated, *arguments: object) -> float:
            seconds, responses[name] = process.call("generate", *arguments)
            return seconds

        sides = {
            "suite": lambda: side("suite", suite, max_tokens),
            "bare": lambda: side("bare", bare, requests, max_tokens),
        }
        seconds = interleave(sides, warm_up=1, rounds=context.rounds)
    if {len(ids) for each in responses.values() for ids in each} != {max_tokens}:
        raise NotMeasured("a response was shorter than asked for: the work was not equal")
    same = sum(one == other for one, other in zip(responses["suite"], responses["bare"], strict=True))
    facts = {"responses": count, "response_tokens": max_tokens, "equal_responses": same}
    return Measurement(speed_ratio(seconds["suite"], seconds["bare"]), facts | {"seconds": seconds})


def grading_seconds(context: Context) -> Measurement:
    """Seconds to grade MATH500's 500 gold answers against themselves, the slowest of several rounds."""
    from lrm_safety.conversation import ParsedResponse
    from lrm_safety.evaluation.benchmarks import math500
    from lrm_safety.evaluation.graders.math import MathGrader, MathItem

    try:
        golds = [question.target for question in math500.load()]
    except DataError as error:
        raise NotMeasured(str(error)) from error
    items = [
        MathItem(ParsedResponse("", rf"The answer is $\boxed{{{gold}}}$.", "complete", 0, 8, True), gold)
        for gold in golds
    ]
    seconds = []
    for _ in range(GRADING_ROUNDS):
        begin = time.perf_counter()
        with MathGrader() as grader:
            grades = grader.grade_many(items)
        seconds.append(time.perf_counter() - begin)
        if not all(grade.correct for grade in grades):
            raise NotMeasured("a gold answer was graded wrong")
    return Measurement(max(seconds), {"answers": len(golds), "seconds": seconds})
