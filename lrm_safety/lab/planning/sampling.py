"""How long engines take for a rollout batch: arithmetic of lengths, engines, places and speeds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import psutil

from ...modeling.shapes import ModelShape, adapter_parameters, num_parameters
from ...settings import Settings
from .assumptions import Assumptions

CPU_GENERATE = 1.35e10
"""Parameters times tokens/s of one engine on two cores: SmolLM2-135M makes about 100 tokens/s."""
CPU_GENERATE_LIMIT = 3000.0
"""tokens/s that the miniature's engine reaches on two cores."""


@dataclass(frozen=True)
class Sampling:
    """Seconds of one rollout batch."""

    tokens: float
    """Sampled for it, those that are thrown away among them."""
    in_turn: float
    """Engines begin idle and end with the last response."""
    continuous: float
    """What engines need for it that have more to do before and after."""
    longest: float
    """Of the longest response, by itself."""


def sampling(settings: Settings, active_parameters: int, assumed: Assumptions, concurrency: float) -> Sampling:
    """Of the lengths and speeds that are assumed; `concurrency`: responses that the KV cache of an engine holds.

    With `step_ms` and `token_ms` an engine's seconds are those of its steps and those of its tokens. Otherwise they are its
    tokens at a mean speed, or the longest response where that takes longer.
    """
    algorithm, engines = settings.algorithm, settings.cluster.rollout.num_workers
    mean, longest = response_tokens(settings, assumed), longest_tokens(settings, assumed)
    asked = algorithm.num_responses
    cut = (algorithm.num_in_flight - algorithm.rollout_batch_size) * algorithm.samples_per_prompt
    kept_tokens = asked * mean
    dropped = 0.0 if algorithm.max_staleness else cut * min(assumed.dropped_tokens or mean, longest)
    tokens = kept_tokens + dropped
    requests = (asked + (0 if algorithm.max_staleness else cut)) / engines
    places = max(1.0, min(settings.rollout.max_num_seqs, concurrency))
    uneven = 1.0 if settings.rollout.dispatch == "as_slots_free" else imbalance(engines, requests, assumed)
    each, crowd = tokens / engines, crowding(settings, assumed)
    # Steps before the last request begins. In the order in which they came the longest is in the middle of them, in the mean;
    # the queue of as_slots_free begins with it.
    queue = mean * max(0.0, requests / places - 1)
    begins = 0.0 if settings.rollout.dispatch == "as_slots_free" else queue / 2
    if assumed.step_ms is not None and assumed.token_ms is not None:
        step, token = crowd * assumed.step_ms / 1000, crowd * assumed.token_ms / 1000
        in_flight = min(places, requests * in_flight_batches(settings))
        return Sampling(
            tokens,
            max(begins + longest, each / places) * step + each * uneven * token,
            each / in_flight * step + each * token,
            longest * step,
        )
    speed = generate_speed(settings, active_parameters, assumed) * settings.rollout.tensor_parallel_size / crowd
    step = step_seconds(settings, active_parameters, assumed)
    return Sampling(tokens, max(each * uneven / speed, (begins + longest) * step), each / speed, longest * step)


def in_flight_batches(settings: Settings) -> float:
    """Rollout batches that engines have at one time, at most."""
    algorithm = settings.algorithm
    if algorithm.num_in_flight > algorithm.rollout_batch_size:
        return algorithm.num_in_flight / algorithm.rollout_batch_size if algorithm.max_staleness else 1.0
    return algorithm.max_staleness + 1


def response_tokens(settings: Settings, assumed: Assumptions) -> float:
    """Mean length of a response."""
    limit = settings.rollout.max_response_tokens
    return min(assumed.response_tokens, limit) if assumed.response_tokens else limit / 2


def longest_tokens(settings: Settings, assumed: Assumptions) -> float:
    """Length of the longest response of a batch; never below the mean."""
    limit = settings.rollout.max_response_tokens
    return max(min(assumed.longest_response_tokens or limit, limit), response_tokens(settings, assumed))


def imbalance(engines: int, requests: float, assumed: Assumptions) -> float:
    """Tokens of the engine that has most, over the mean: shares of so many requests are dealt before lengths are known.

    The largest of n normal variables lies where Blom (1958) puts it: at the (n - 3/8) / (n + 1/4) quantile.
    """
    if engines == 1:
        return 1.0
    return 1 + largest_of(engines) * assumed.response_spread / math.sqrt(max(1.0, requests))


def largest_of(number: int) -> float:
    """Standard deviations by which the largest of so many normal variables lies above their mean, about."""
    return NormalDist().inv_cdf((number - 0.375) / (number + 0.25))


def generate_speed(settings: Settings, active_parameters: int, assumed: Assumptions) -> float:
    """tokens/s of one GPU, or of one engine on the CPU: the mean over a batch that thins out."""
    if assumed.generate_tokens_per_second is not None:
        return assumed.generate_tokens_per_second
    if settings.cluster.device == "cpu":
        return min(CPU_GENERATE_LIMIT, CPU_GENERATE / active_parameters)
    return 5000.0 * 8e9 / active_parameters


def step_seconds(settings: Settings, active_parameters: int, assumed: Assumptions) -> float:
    """One step of an engine, which reads all weights; 0 on the CPU, where that is not what it waits for."""
    if assumed.step_ms is not None:
        return assumed.step_ms / 1000
    if settings.cluster.device == "cpu":
        return 0.0
    weights = bytes_of(settings) * active_parameters / settings.rollout.tensor_parallel_size
    return assumed.decode_overhead_ms / 1000 + weights / (assumed.memory_tb_per_second * 1e12)


def crowding(settings: Settings, assumed: Assumptions) -> float:
    """By how much engines slow each other down that have more threads than there are cores; 1 on CUDA."""
    if settings.cluster.device == "cuda":
        return 1.0
    rollout = settings.cluster.rollout
    return max(1.0, rollout.num_workers * rollout.threads_per_worker / num_cores(assumed))


def busy_cores(settings: Settings, group: str, assumed: Assumptions) -> float:
    """Cores that the threads of a group keep busy, on the CPU."""
    workers = getattr(settings.cluster, group)
    return float(min(workers.num_workers * workers.threads_per_worker, num_cores(assumed)))


def num_cores(assumed: Assumptions) -> float:
    """Those of `plan.cores`, or of this machine."""
    return assumed.cores or psutil.cpu_count() or 1


def synced_parameters(settings: Settings, policy: ModelShape) -> int:
    """What a weight sync sends: the adapters alone, or all of the model."""
    return (
        adapter_parameters(policy, settings.trainer.lora)
        if settings.trainer.lora.syncs_alone
        else num_parameters(policy)
    )


def bytes_of(settings: Settings) -> int:
    """Of one value of the policy."""
    return 4 if settings.model.dtype == "float32" else 2
