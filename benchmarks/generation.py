"""Generation through the rollout group against a bare `vllm.LLM.generate` in one process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from lrm_safety.rollouts import GenerationRequest, SamplingParameters
from lrm_safety.workers.environment import engine_environment
from lrm_safety.workers.specs import EngineSpec

from .figures import Context, Measurement, NotMeasured
from .isolated import Isolated
from .timing import interleave, speed_ratio

WORK = {"miniature": (128, 96), "smollm2": (32, 24)}
"""Requests, and response tokens of each: the model has no end token, so that every response has all of them."""
SAMPLING = SamplingParameters(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=0, stop_token_ids=())


class BareEngine:
    """vLLM as its own documentation uses it, with the arguments of our engine."""

    def __init__(self, spec: EngineSpec) -> None:
        from vllm import LLM

        from lrm_safety.workers.engine_start import engine_arguments

        arguments = engine_arguments(spec)
        del arguments["weight_transfer_config"]
        self._llm = LLM(**arguments)

    def generate(self, requests: list[GenerationRequest], lengths: list[int]) -> tuple[float, list[list[int]]]:
        """Seconds, and the token ids of every response in the order of the requests; response i has `lengths[i]` tokens."""
        from vllm import SamplingParams

        # Every round then reads its prompts anew, as ours does.
        self._llm.reset_prefix_cache()
        prompts: list[Any] = [{"prompt_token_ids": request.prompt_ids.tolist()} for request in requests]
        parameters = [
            SamplingParams(
                temperature=1.0,
                max_tokens=length,
                seed=request.seed,
                logprobs=0,
                flat_logprobs=True,
                detokenize=False,
            )
            for request, length in zip(requests, lengths, strict=True)
        ]
        begin = time.perf_counter()
        outputs = self._llm.generate(prompts, parameters, use_tqdm=False)
        seconds = time.perf_counter() - begin
        return seconds, [list(output.outputs[0].token_ids) for output in outputs]


def requests_of(count: int, seed: int = 0) -> list[GenerationRequest]:
    """Prompts of 16 to 48 arbitrary ids; the work of an engine does not depend on which."""
    generator = np.random.default_rng(seed)
    return [
        GenerationRequest(index, index, generator.integers(10, 200, generator.integers(16, 49)).astype(np.int32), index)
        for index in range(count)
    ]


def measure(model: str) -> Callable[[Context], Measurement]:
    """The measurement for `miniature` or `smollm2`."""

    def ratio(context: Context) -> Measurement:
        system = context.systems.get(model)
        spec = EngineSpec.of(system.settings)
        count, max_tokens = WORK[model]
        requests, sampling = requests_of(count), replace(SAMPLING, max_response_tokens=max_tokens)
        responses: dict[str, list[list[int]]] = {}
        with Isolated(BareEngine, spec, environment=engine_environment(spec)) as bare:

            def through_the_group() -> float:
                begin = time.perf_counter()
                rollouts = [rollout for chunk in system.rollout.generate(requests, sampling) for rollout in chunk]
                seconds = time.perf_counter() - begin
                rollouts.sort(key=lambda rollout: rollout.request_id)
                responses["group"] = [rollout.response_ids.tolist() for rollout in rollouts]
                return seconds

            def in_one_process() -> float:
                seconds, responses["bare"] = bare.call("generate", requests, [max_tokens] * count)
                return seconds

            sides = {"group": through_the_group, "bare": in_one_process}
            seconds = interleave(sides, warm_up=1, rounds=context.rounds_of(model))
        if {len(ids) for side in responses.values() for ids in side} != {max_tokens}:
            raise NotMeasured("a response was shorter than asked for: the work was not equal")
        same = sum(one == other for one, other in zip(responses["group"], responses["bare"], strict=True))
        facts = {"responses": count, "response_tokens": max_tokens, "equal_responses": same}
        return Measurement(speed_ratio(seconds["group"], seconds["bare"]), facts | {"seconds": seconds})

    return ratio
