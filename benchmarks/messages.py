"""What an answer costs the controller's thread, by the number of engines: real Ray, SIMULATED engines, many of them in one process.

The group is the one that a run has, with `rollout.dispatch=as_slots_free`; its engines answer one request a turn, at once.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import ray

from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.continuous_group import ContinuousRolloutGroup
from lrm_safety.workers.group import WorkerGroup
from lrm_safety.workers.groups import join_ray
from lrm_safety.workers.placement import Placement
from lrm_safety.workers.specs import EngineSpec
from lrm_safety.workers.watchdog import Watchdog

from .figures import Context, Measurement
from .timing import interleave

FEW, MANY = 8, 1024
HOSTS = 2
"""Processes that the engines are in."""
PER_ENGINE = 4
"""Requests to each engine."""
TOKENS = 500
"""Of a response, as many numbers of every kind as a real one brings."""


class Host:
    """Many engines in one process. Each answers one request a turn, the oldest, without waiting."""

    def __init__(self) -> None:
        self._open: dict[int, list[GenerationRequest]] = {}

    def answered(
        self, engine: int, requests: Sequence[GenerationRequest], sampling: SamplingParameters, seconds: float
    ) -> list[Rollout]:
        mine = self._open.setdefault(engine, [])
        mine += requests
        return [_answer(mine.pop(0))] if mine else []


def _answer(one: GenerationRequest) -> Rollout:
    ids, logprobs = np.ones(TOKENS, dtype=np.int32), np.ones(TOKENS, dtype=np.float32)
    return Rollout(one.request_id, one.prompt_index, one.prompt_ids, ids, logprobs, "stop", 0)


class _Method:
    def __init__(self, host: Any, method: str, engine: int) -> None:
        self._method, self._engine = getattr(host, method), engine

    def remote(self, *arguments: Any) -> Any:
        return self._method.remote(self._engine, *arguments)


class _Handle:
    """What stands for the handle of an engine's actor."""

    def __init__(self, host: Any, engine: int) -> None:
        self._host, self._engine = host, engine

    def __getattr__(self, method: str) -> _Method:
        return _Method(self._host, method, self._engine)


class HostedWorkers(WorkerGroup):
    """Workers that share processes."""

    def __init__(self, hosts: Sequence[Any], count: int) -> None:
        self.workers = [_Handle(hosts[index % len(hosts)], index) for index in range(count)]


class HostedRollout(ContinuousRolloutGroup):
    """The controller's side as it is, of engines that share processes."""

    def __init__(self, spec: EngineSpec, hosts: Sequence[Any], count: int) -> None:
        self._workers = HostedWorkers(hosts, count)
        super().__init__(spec, cast(Placement, None), lambda: None)

    def _spawn(self, placement: Placement, watchdog: Watchdog | None) -> WorkerGroup:
        return self._workers


def seconds_of_an_answer(group: HostedRollout, count: int, settings: Settings) -> float:
    """Processor seconds of this thread for every request, from the asking to the last answer."""
    prompt = np.ones(100, dtype=np.int32)
    requests = [GenerationRequest(number, number, prompt, number) for number in range(count * PER_ENGINE)]
    sampling = SamplingParameters(1.0, 1.0, 0, TOKENS, ())
    begin = time.thread_time()
    group.begin(requests, sampling)
    left = len(requests)
    while left:
        left -= len(group.answered(1.0))
    return (time.thread_time() - begin) / len(requests)


def ratio(context: Context) -> Measurement:
    """Seconds of an answer of many engines / of few."""
    context.systems.end()
    settings, _ = compose_settings(["experiment=miniature", "rollout.dispatch=as_slots_free"])
    join_ray(settings.cluster)
    try:
        hosts = [ray.remote(Host).options(num_cpus=0).remote() for _ in range(HOSTS)]
        spec = EngineSpec.of(settings)
        groups = {count: HostedRollout(spec, hosts, count) for count in (FEW, MANY)}

        def side(count: int) -> float:
            # As many answers on either side.
            rounds = MANY // count
            return sum(seconds_of_an_answer(groups[count], count, settings) for _ in range(rounds)) / rounds

        taken = interleave(
            {str(count): lambda count=count: side(count) for count in groups}, warm_up=1, rounds=context.rounds
        )
    finally:
        ray.shutdown()
    few, many = (float(np.median(taken[str(count)])) for count in (FEW, MANY))
    return Measurement(many / few, {"processor_seconds_of_an_answer": taken, "answers": MANY * PER_ENGINE})
