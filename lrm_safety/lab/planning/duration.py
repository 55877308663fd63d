"""Tokens and hours of a run, from its configuration and stated speeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...modeling.flops import forward_flops, update_flops
from ...modeling.shapes import ModelShape, adapter_parameters, num_parameters
from ...settings import Settings
from ...weight_sync.backends import is_colocated
from .assumptions import Assumptions

CPU_GENERATE = 1.35e10
"""Parameters times tokens/s of one engine on two cores: SmolLM2-135M makes about 100 tokens/s."""
CPU_GENERATE_LIMIT = 3000.0
"""tokens/s that the miniature's engine reaches on two cores."""


@dataclass(frozen=True)
class Duration:
    """One iteration (a rollout batch) and the whole run; evaluation, checkpoints and start-up are not in it."""

    iterations: int
    updates: int
    responses_per_iteration: int
    generated_tokens_per_iteration: float
    trained_tokens_per_iteration: float
    """Prompt and response."""
    seconds: Mapping[str, float]
    """By phase, of one iteration; `score` overlaps `generate` and counts only where it is longer."""

    @property
    def iteration_seconds(self) -> float:
        overlapped = max(self.seconds["generate"], self.seconds["score"])
        return overlapped + sum(value for name, value in self.seconds.items() if name not in ("generate", "score"))

    @property
    def hours(self) -> float:
        return self.iterations * self.iteration_seconds / 3600

    @property
    def generated_tokens(self) -> float:
        return self.iterations * self.generated_tokens_per_iteration

    @property
    def trained_tokens_per_update(self) -> float:
        return self.trained_tokens_per_iteration * self.iterations / self.updates


def duration(
    settings: Settings, policy: ModelShape, rewards: Mapping[str, ModelShape], assumed: Assumptions
) -> Duration:
    """Arithmetic of a run, every response as long as their mean; recomputation is one more forward pass."""
    algorithm, cluster, trainer = settings.algorithm, settings.cluster, settings.trainer
    responses = algorithm.rollout_batch_size * algorithm.samples_per_prompt
    per_iteration = responses // algorithm.mini_batch_size
    updates = settings.schedule.max_updates
    response_tokens = assumed.response_tokens or settings.rollout.max_response_tokens / 2
    generated = responses * response_tokens
    length = response_tokens + min(assumed.prompt_tokens, settings.rollout.max_prompt_tokens)
    lengths, outputs = [length] * responses, [response_tokens] * responses
    active = policy.active_parameters or num_parameters(policy)
    tensor_parallel = settings.rollout.tensor_parallel_size
    adapters = adapter_parameters(policy, trainer.lora)
    forward = forward_flops(policy, lengths, outputs, adapters=adapters)
    learning = update_flops(policy, lengths, outputs, adapters=adapters)
    recomputed = algorithm.old_logprobs == "recompute" and per_iteration > 1
    seconds = {
        # However many engines there are, the longest response takes its steps one after the other.
        "generate": max(
            generated / (generate_speed(settings, active, assumed) * cluster.rollout.num_workers * tensor_parallel),
            longest_response_seconds(settings, active, assumed),
        ),
        "score": _score_seconds(settings, forward_flops(policy, lengths, outputs), rewards, lengths, assumed),
        "log-probs": forward / _operations(settings, "policy", assumed) if recomputed else 0.0,
        "update": (learning + (forward if trainer.gradient_checkpointing else 0.0))
        / _operations(settings, "policy", assumed),
        "sync": _bytes_of(settings) * num_parameters(policy) / (assumed.sync_gib_per_second * 2**30),
    }
    if is_colocated(settings.cluster) and cluster.device == "cuda":
        # The optimiser, off the GPU and back; a sleeping engine drops its weights.
        trained = adapters or num_parameters(policy)
        moved = 0 if trainer.offload_optimizer else 12 * trained / cluster.policy.num_workers
        seconds["exchange"] = 2 * moved / (assumed.host_copy_gib_per_second * 2**30)
    iterations = -(-updates // per_iteration)
    return Duration(iterations, updates, responses, generated, responses * length, seconds)


def generate_speed(settings: Settings, active_parameters: int, assumed: Assumptions) -> float:
    """tokens/s of one GPU, or of one engine on the CPU."""
    if assumed.generate_tokens_per_second is not None:
        return assumed.generate_tokens_per_second
    if settings.cluster.device == "cpu":
        return min(CPU_GENERATE_LIMIT, CPU_GENERATE / active_parameters)
    return 5000.0 * 8e9 / active_parameters


def longest_response_seconds(settings: Settings, active_parameters: int, assumed: Assumptions) -> float:
    """A response of `rollout.max_response_tokens`, token by token on one engine; 0 on the CPU, where engines are busy."""
    if settings.cluster.device == "cpu":
        return 0.0
    weights = _bytes_of(settings) * active_parameters / settings.rollout.tensor_parallel_size
    step = assumed.decode_overhead_ms / 1000 + weights / (assumed.memory_tb_per_second * 1e12)
    return settings.rollout.max_response_tokens * step


def _score_seconds(
    settings: Settings,
    reference: float,
    rewards: Mapping[str, ModelShape],
    lengths: list[float],
    assumed: Assumptions,
) -> float:
    """Of the slower one, reward or reference; `reference`: operations of the reference's pass."""
    operations = 0.0
    for name, shape in rewards.items():
        model = settings.reward.models[name]
        views: float = len(model.read_views())
        if settings.reward.granularity == "segment":  # n - 1 prefixes, half a response long in the mean
            views += len(model.prefix_views()) * (settings.reward.segment.max_steps - 1) / 2
        operations += views * forward_flops(shape, lengths, outputs=0)
    reward = operations / _operations(settings, "reward", assumed)
    if settings.algorithm.kl.placement == "none":
        return reward
    return max(reward, reference / _operations(settings, "reference", assumed))


def _operations(settings: Settings, group: str, assumed: Assumptions) -> float:
    """Operations per second of a group."""
    workers = getattr(settings.cluster, group)
    if settings.cluster.device == "cpu":
        return assumed.cpu_gflops * 1e9
    # A worker that reserves a part of a GPU has the whole of it while the others wait; one without a GPU is as slow as a core.
    gpus = workers.num_workers if workers.gpus_per_worker else 0
    return gpus * assumed.peak_tflops * 1e12 * assumed.utilisation or assumed.cpu_gflops * 1e9


def _bytes_of(settings: Settings) -> int:
    return 4 if settings.model.dtype == "float32" else 2
