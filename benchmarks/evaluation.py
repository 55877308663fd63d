"""Evaluation: generation with its store against a bare `vllm.LLM.generate`, and how long grading takes."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrm_safety.errors import DataError
from lrm_safety.rollouts import GenerationRequest
from lrm_safety.workers.environment import engine_environment
from lrm_safety.workers.specs import EngineSpec

from .figures import Context, Measurement, NotMeasured
from .generation import SAMPLING, WORK, BareEngine, requests_of
from .isolated import Isolated
from .timing import interleave, speed_ratio

if TYPE_CHECKING:
    from lrm_safety.evaluation.plan import PlannedBenchmark

GRADING_ROUNDS = 3
MIXED = {"miniature": (128, 32, 40, 190), "smollm2": (24, 8, 12, 64)}
"""Requests, those that run at once, and the median and longest response in tokens."""


class SuiteEngine:
    """The engine of `lrm-safety evaluate` behind the store that makes it resumable."""

    def __init__(
        self, spec: EngineSpec, requests: list[GenerationRequest], lengths: list[int], batch_size: int | None
    ) -> None:
        """`lengths[i]`: tokens of the response to request i."""
        from lrm_safety.evaluation.engine import Engine

        give_lengths({request.seed: length for request, length in zip(requests, lengths, strict=True)})
        self._engine = Engine(spec)
        self._planned = planned(requests)
        self._sampling = replace(SAMPLING, max_response_tokens=max(lengths))
        self._batch_size = batch_size

    def generate(self) -> tuple[float, list[list[int]]]:
        """Seconds until every response is saved, and the token ids in the order of the requests."""
        from lrm_safety.evaluation.responses import ResponseStore

        with tempfile.TemporaryDirectory() as folder:
            store = ResponseStore(Path(folder), {}, self._batch_size)
            begin = time.perf_counter()
            store.open([self._planned])
            store.complete([self._planned], self._engine, self._sampling, lambda num_tokens: None)
            seconds = time.perf_counter() - begin
            return seconds, [one.ids.tolist() for one in store.read(self._planned)]


def planned(requests: list[GenerationRequest]) -> PlannedBenchmark:
    """The requests as a benchmark's plan."""
    from lrm_safety.datasets.serialised import Source
    from lrm_safety.evaluation.benchmarks.registry import Question, Questions, get_benchmark
    from lrm_safety.evaluation.plan import Ask, PlannedBenchmark

    questions = [Question(str(request.request_id), "", "") for request in requests]
    nothing = np.zeros(0, dtype=np.int32)
    asks = tuple(
        Ask(question, 0, "", "", request.prompt_ids, nothing, request.seed)
        for question, request in zip(questions, requests, strict=True)
    )
    benchmark = get_benchmark("long_tail")
    return PlannedBenchmark("work", benchmark, Questions(tuple(questions), Source("benchmark")), 1, None, asks, 0)


def give_lengths(by_seed: Mapping[int, int]) -> None:
    """From here on this process's vLLM ends the response to a request of seed s after `by_seed[s]` tokens, whoever asks: an
    evaluation has one limit for all, and a model ends where it likes."""
    from vllm.v1.engine.llm_engine import LLMEngine

    add_request: Any = LLMEngine.add_request

    def limited(engine: LLMEngine, request_id: str, prompt: Any, params: Any, *others: Any, **named: Any) -> Any:
        params.max_tokens = by_seed[params.seed]
        return add_request(engine, request_id, prompt, params, *others, **named)

    LLMEngine.add_request = limited


def generation_ratio(context: Context) -> Measurement:
    """Speed of an evaluation's generation in fixed batches / speed of bare vLLM, all responses of one length."""
    count, max_tokens = WORK["smollm2"]
    spec = EngineSpec.of(context.systems.settings("smollm2"))
    return _compare(context, "smollm2", spec, [max_tokens] * count, batch_size=256)


def mixed_length_ratio(model: str) -> Callable[[Context], Measurement]:
    """Speed of an evaluation's queue / speed of one call of bare vLLM over log-normal lengths."""

    def ratio(context: Context) -> Measurement:
        count, num_seqs, median, longest = MIXED[model]
        spec = EngineSpec.of(context.systems.settings(model))
        rollout = replace(spec.rollout, max_num_seqs=num_seqs, max_response_tokens=longest)
        lengths = log_normal_lengths(count, median, longest)
        return _compare(context, model, replace(spec, rollout=rollout), lengths, batch_size=None)

    return ratio


def log_normal_lengths(count: int, median: int, longest: int, *, seed: int = 0) -> list[int]:
    """Response lengths whose logarithm is normal with standard deviation 1, cut at `longest`: the mean is 1.6 medians, and one
    in six is over 2.7 medians."""
    drawn = np.random.default_rng(seed).lognormal(math.log(median), 1.0, count)
    return [int(length) for length in np.clip(np.rint(drawn), 1, longest)]


def _compare(
    context: Context, model: str, spec: EngineSpec, lengths: list[int], *, batch_size: int | None
) -> Measurement:
    """Speed of an evaluation's generation / speed of bare vLLM, same engine arguments, prompts, seeds, lengths and threads."""
    requests = requests_of(len(lengths))
    responses: dict[str, list[list[int]]] = {}
    variables = engine_environment(spec)
    with (
        Isolated(SuiteEngine, spec, requests, lengths, batch_size, environment=variables) as suite,
        Isolated(BareEngine, spec, environment=variables) as bare,
    ):

        def side(name: str, process: Isolated, *arguments: object) -> float:
            seconds, responses[name] = process.call("generate", *arguments)
            return seconds

        sides = {
            "suite": lambda: side("suite", suite),
            "bare": lambda: side("bare", bare, requests, lengths),
        }
        seconds = interleave(sides, warm_up=1, rounds=context.rounds_of(model))
    if any([len(ids) for ids in each] != lengths for each in responses.values()):
        raise NotMeasured("a response had another length than asked for: the work was not equal")
    same = sum(one == other for one, other in zip(responses["suite"], responses["bare"], strict=True))
    facts = {"responses": len(lengths), "response_tokens": sum(lengths), "equal_responses": same}
    return Measurement(speed_ratio(seconds["suite"], seconds["bare"]), facts | {"seconds": seconds})


def grading_seconds(context: Context) -> Measurement:
    """Seconds to grade MATH500's 500 gold answers against themselves, the slowest of several rounds."""
    from lrm_safety.conversation.response import ParsedResponse
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
