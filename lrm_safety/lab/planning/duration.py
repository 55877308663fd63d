"""Tokens and hours of a run, from its configuration and stated or measured speeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...modeling.flops import forward_flops, update_flops
from ...modeling.shapes import ModelShape, adapter_parameters, num_parameters
from ...schedule import Schedule, needs_old_logprobs
from ...settings import Settings
from ...weight_sync.backends import is_colocated
from .assumptions import Assumptions
from .sampling import busy_cores, bytes_of, num_cores, response_tokens, sampling, synced_parameters


@dataclass(frozen=True)
class Duration:
    """One iteration (a rollout batch) and the whole run."""

    iterations: int
    updates: int
    responses_per_iteration: int
    generated_tokens_per_iteration: float
    """Those that are thrown away are not among them."""
    trained_tokens_per_iteration: float
    """Prompt and response."""
    sampled_tokens_per_iteration: float
    seconds: Mapping[str, float]
    """Work of an iteration by phase, whatever it overlaps."""
    phases: Mapping[str, float]
    """What the loop waits for, by the names of time/*_seconds; their sum is the iteration."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Of what lies between iterations: start-ups, evaluations, checkpoints."""
    beside: Mapping[str, float] = field(default_factory=dict)
    """Its seconds in all."""

    @property
    def iteration_seconds(self) -> float:
        return math.fsum(self.phases.values())

    @property
    def total_seconds(self) -> float:
        return self.iterations * self.iteration_seconds + math.fsum(self.beside.values())

    @property
    def hours(self) -> float:
        return self.total_seconds / 3600

    @property
    def generated_tokens(self) -> float:
        return self.iterations * self.generated_tokens_per_iteration

    @property
    def trained_tokens_per_update(self) -> float:
        return self.trained_tokens_per_iteration * self.iterations / self.updates


@dataclass(frozen=True)
class Operations:
    """Of one iteration."""

    logprobs: float
    update: float
    reference: float
    reward: float
    """Of classifiers; 0: there are none."""


def operations(
    settings: Settings, policy: ModelShape, rewards: Mapping[str, ModelShape], assumed: Assumptions
) -> Operations:
    """Every response as long as their mean; recomputation is one more forward pass."""
    responses, output = settings.algorithm.num_responses, response_tokens(settings, assumed)
    length = output + min(assumed.prompt_tokens, settings.rollout.max_prompt_tokens)
    lengths, outputs = [length] * responses, [output] * responses
    adapters = adapter_parameters(policy, settings.trainer.lora)
    forward = forward_flops(policy, lengths, outputs, adapters=adapters)
    learning = update_flops(policy, lengths, outputs, adapters=adapters)
    updates = responses // settings.algorithm.mini_batch_size
    return Operations(
        logprobs=forward if needs_old_logprobs(settings.algorithm, updates) else 0.0,
        update=learning + (forward if settings.trainer.gradient_checkpointing else 0.0),
        reference=0.0 if settings.algorithm.kl.placement == "none" else forward_flops(policy, lengths, outputs),
        reward=_reward_operations(settings, rewards, lengths),
    )


def duration(
    settings: Settings,
    policy: ModelShape,
    rewards: Mapping[str, ModelShape],
    assumed: Assumptions,
    concurrency: float = math.inf,
) -> Duration:
    """Arithmetic of a run; `concurrency`: responses that the KV cache of an engine holds at a time."""
    algorithm, cluster = settings.algorithm, settings.cluster
    responses = algorithm.num_responses
    per_iteration = responses // algorithm.mini_batch_size
    updates = settings.schedule.max_updates
    iterations = -(-updates // per_iteration)
    output = response_tokens(settings, assumed)
    length = output + min(assumed.prompt_tokens, settings.rollout.max_prompt_tokens)
    needed = operations(settings, policy, rewards, assumed)
    engines = sampling(settings, policy.active_parameters or num_parameters(policy), assumed, concurrency)
    scores = {
        "reward": needed.reward / speed(settings, "reward", "reward", assumed)
        + responses * assumed.reward_seconds / cluster.reward.num_workers,
        "reference": needed.reference / speed(settings, "reference", "reference", assumed),
    }
    seconds = {
        "generate": engines.in_turn,
        "score": max(scores.values()),
        "log-probs": needed.logprobs / speed(settings, "policy", "logprobs", assumed),
        "update": needed.update / speed(settings, "policy", "update", assumed)
        + per_iteration * assumed.update_overhead_seconds,
        "sync": bytes_of(settings) * synced_parameters(settings, policy) / (assumed.sync_gib_per_second * 2**30),
    }
    if is_colocated(settings.cluster) and cluster.device == "cuda":
        # The optimiser, off the GPU and back; a sleeping engine drops its weights.
        trained = adapter_parameters(policy, settings.trainer.lora) or num_parameters(policy)
        moved = 0 if settings.trainer.offload_optimizer else 12 * trained / cluster.policy.num_workers
        seconds["exchange"] = 2 * moved / (assumed.host_copy_gib_per_second * 2**30)
    # What was sampled last is scored when all else has been.
    tail = seconds["score"] * assumed.score_tail_chunks * min(1.0, settings.rollout.stream_chunk_size / responses)
    phases = {
        "generate": seconds["generate"],
        "score_wait": tail if algorithm.max_staleness else max(seconds["score"] - seconds["generate"], tail),
        "logprobs": seconds["log-probs"],
        "update": seconds["update"],
        "sync": seconds["sync"] + seconds.get("exchange", 0.0),
        "controller": assumed.iteration_overhead_seconds,
    }
    if algorithm.max_staleness:
        seconds["generate"] = engines.continuous
        learning = math.fsum(value for name, value in phases.items() if name != "generate")
        phases["generate"] = (
            _overlapped(settings, engines.continuous, engines.longest, seconds["score"], phases, assumed) - learning
        )
    counts = _counts(settings, per_iteration, iterations, updates)
    beside = {name: count * getattr(assumed, f"{name}_seconds") for name, count in counts.items()}
    return Duration(
        iterations,
        updates,
        responses,
        responses * output,
        responses * length,
        engines.tokens,
        seconds,
        phases,
        counts,
        {name: value for name, value in beside.items() if value},
    )


def _overlapped(
    settings: Settings, generate: float, longest: float, score: float, phases: Mapping[str, float], assumed: Assumptions
) -> float:
    """Seconds of an iteration whose engines sample while the trainer learns (`algorithm.max_staleness`). The largest of:

    what the trainer does, and what of the sampling it has to wait for; what engines do, which take the weights between; what
    scores do; and the longest response, which max_staleness + 1 iterations have to end in, with as many times the learning
    less one. On the CPU all share its cores, and no two things end sooner than their work on all of them.
    """
    algorithm = settings.algorithm
    learning = math.fsum(value for name, value in phases.items() if name != "generate")
    # Batches that are begun ahead overlap whole. Where prompts are cut off, only those that a batch leaves over.
    more = algorithm.num_in_flight / algorithm.rollout_batch_size - 1
    share = min(1.0, more) if more else 1.0
    found = max(
        learning + (1 - share) * generate,
        generate + phases["sync"],
        score,
        (longest + learning) / (algorithm.max_staleness + 1),
    )
    if settings.cluster.device == "cpu":
        cores = num_cores(assumed)
        learns = math.fsum(phases[name] for name in ("logprobs", "update")) * busy_cores(settings, "policy", assumed)
        samples = generate * busy_cores(settings, "rollout", assumed)
        rest = math.fsum(phases[name] for name in ("score_wait", "sync", "controller"))
        found = max(found, rest + (learns + samples) / cores)
    return found


def _counts(settings: Settings, per_iteration: int, iterations: int, updates: int) -> dict[str, int]:
    """Start-ups, evaluations and checkpoints of a run that is neither stopped nor started again."""
    schedule = Schedule(
        settings.schedule, settings.trainer, num_rows=1, batch_size=1, updates_per_iteration=per_iteration
    )
    ends = [per_iteration * (i + 1) for i in range(iterations)]

    def due(every: int) -> int:
        return sum(end >= updates or schedule.crossed(end, every) for end in ends)

    every = settings.evaluation.every_updates
    return {
        "startup": 1,
        "evaluate": 1 + due(every) if every else 0,
        "checkpoint": due(settings.checkpoint.every_updates),
    }


def _reward_operations(settings: Settings, rewards: Mapping[str, ModelShape], lengths: list[float]) -> float:
    found = 0.0
    for name, shape in rewards.items():
        model = settings.reward.models[name]
        views: float = len(model.read_views())
        if settings.reward.granularity == "segment":  # n - 1 prefixes, half a response long in the mean
            views += len(model.prefix_views()) * (settings.reward.segment.max_steps - 1) / 2
        found += views * forward_flops(shape, lengths, outputs=0)
    return found


def speed(settings: Settings, group: str, phase: str, assumed: Assumptions) -> float:
    """Operations per second of a group in a phase."""
    workers, reached = getattr(settings.cluster, group), getattr(assumed, f"{phase}_tflops")
    # A worker that reserves a part of a GPU has the whole of it while the others wait; one without a GPU is as slow as a core.
    on_gpu = settings.cluster.device == "cuda" and workers.gpus_per_worker > 0
    if reached is not None:
        return float((workers.num_workers if on_gpu else busy_cores(settings, group, assumed)) * reached * 1e12)
    if on_gpu:
        return float(workers.num_workers * assumed.peak_tflops * 1e12 * assumed.utilisation)
    return assumed.cpu_gflops * 1e9
