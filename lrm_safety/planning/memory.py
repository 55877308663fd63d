"""Memory of one worker of every group, in bytes, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..settings import ClusterSettings, RewardModelSettings, Settings
from .assumptions import Assumptions
from .shapes import ModelShape, adapter_parameters, kv_bytes_per_token, num_parameters

GIB = 2**30
LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed's stage3_max_live_parameters: gathered at one time at most."""
REDUCE_BUCKET = 500_000_000
"""DeepSpeed's reduce_bucket_size in elements."""
FREED_WHILE_GENERATING = (
    "master weights",
    "Adam moments",
    "activations",
    "log-probs",
    "gathered layers",
    "reduce bucket",
)
"""Parts of a colocated policy that are not on the GPU while engines generate (workers/policy.py:offload)."""


@dataclass(frozen=True)
class GroupMemory:
    """Device memory of one worker, and what it offloads to host memory beside that."""

    group: str
    num_workers: int
    parts: Mapping[str, int]
    """Bytes on one GPU (of an engine: on each of its GPUs), or in host memory on the CPU."""
    host_bytes: int = 0

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def while_generating(self) -> int:
        """What stays when a colocated policy has made room for the engines."""
        return sum(size for name, size in self.parts.items() if name not in FREED_WHILE_GENERATING)


def policy_memory(settings: Settings, shape: ModelShape, assumed: Assumptions) -> GroupMemory:
    """One ZeRO-3 rank: shards of weights, float32 masters, AdamW's moments and float32 gradients over `num_workers` ranks.

    With LoRA masters, moments and gradients are the adapters' alone.
    """
    trainer, ranks, value = settings.trainer, settings.cluster.policy.num_workers, _bytes(settings.model.dtype)
    count, adapters = num_parameters(shape), adapter_parameters(shape, trainer.lora)
    trained = adapters or count
    optimiser = {"master weights": 4 * trained // ranks, "Adam moments": 8 * trained // ranks}
    parts = {"weights": value * (count + adapters) // ranks, "gradients": 4 * trained // ranks}
    host = 0
    if trainer.offload_parameters:
        host += parts.pop("weights")
    if trainer.offload_optimizer:
        host += sum(optimiser.values())
    else:
        parts |= optimiser
    tokens = longest_row(settings)
    parts["gathered layers"] = value * min(count, LIVE_PARAMETERS)
    if settings.cluster.device == "cuda":
        parts["reduce bucket"] = value * min(trained, REDUCE_BUCKET)
        parts["CUDA context"] = round(assumed.cuda_context_gib * GIB)
    parts["activations"] = activation_bytes(shape, tokens, value, checkpointing=trainer.gradient_checkpointing)
    # Logits, their softmax and their gradient of one chunk, float32.
    parts["log-probs"] = 3 * 4 * min(trainer.logprob_chunk_tokens, tokens) * shape.vocabulary
    return GroupMemory("policy", ranks, parts, host)


def activation_bytes(shape: ModelShape, tokens: int, value: int, *, checkpointing: bool) -> int:
    """Activations of one micro-batch, an estimate with a memory-saving attention kernel.

    A layer keeps about 10 hidden and 4 intermediate vectors a token; with checkpointing only every layer's input is kept,
    and one layer is computed again at a time.
    """
    layer = value * tokens * (10 * shape.hidden + 4 * shape.intermediate)
    return shape.layers * value * tokens * shape.hidden + layer if checkpointing else shape.layers * layer


def rollout_memory(settings: Settings, shape: ModelShape, assumed: Assumptions) -> GroupMemory:
    """One GPU of an engine: weights / tensor_parallel_size, overhead, and the KV cache that its share leaves."""
    rollout, value = settings.rollout, _bytes(settings.model.dtype)
    weights = value * num_parameters(shape) // rollout.tensor_parallel_size
    parts = {"weights": weights}
    if settings.cluster.device == "cuda":
        parts["engine overhead"] = round(assumed.engine_overhead_gib * GIB)
        share = round(rollout.gpu_memory_utilization * assumed.gpu_memory_gib * GIB)
        room = max(0, share - sum(parts.values()))
        parts["KV cache"] = rollout.kv_cache_bytes if rollout.kv_cache_bytes is not None else room
    else:
        parts["KV cache"] = rollout.kv_cache_bytes or 0
    return GroupMemory("rollout", settings.cluster.rollout.num_workers, parts)


def kv_tokens(settings: Settings, shape: ModelShape, memory: GroupMemory) -> int:
    """Tokens that the KV cache of one engine holds; above one GPU for each KV head vLLM keeps heads more than once."""
    per_token = kv_bytes_per_token(shape, _bytes(settings.model.dtype))
    return memory.parts["KV cache"] * min(settings.rollout.tensor_parallel_size, shape.kv_heads) // per_token


def reference_memory(settings: Settings, shape: ModelShape, assumed: Assumptions) -> GroupMemory:
    """One frozen copy, or one ZeRO-3 shard of it."""
    workers, value = settings.cluster.reference.num_workers, _bytes(settings.model.dtype)
    count, tokens = num_parameters(shape), longest_row(settings)
    parts = {"weights": value * count}
    if settings.trainer.reference_sharding == "zero3":
        parts = {"weights": value * count // workers, "gathered layers": value * min(count, LIVE_PARAMETERS)}
    parts["activations"] = value * tokens * (10 * shape.hidden + 4 * shape.intermediate)
    parts["log-probs"] = 2 * 4 * min(settings.trainer.logprob_chunk_tokens, tokens) * shape.vocabulary
    if settings.cluster.device == "cuda":
        parts["CUDA context"] = round(assumed.cuda_context_gib * GIB)
    return GroupMemory("reference", workers, parts)


def reward_memory(
    settings: Settings, shapes: Mapping[str, tuple[RewardModelSettings, ModelShape]], assumed: Assumptions
) -> GroupMemory:
    """One copy of every classifier among the reward models; functions and endpoints take nothing."""
    parts: dict[str, int] = {}
    for name, (model, shape) in shapes.items():
        value = _bytes(model.dtype)
        parts[f"weights of {name}"] = value * num_parameters(shape)
        parts[f"activations of {name}"] = (
            value * model.micro_batch_tokens * (10 * shape.hidden + 4 * shape.intermediate)
        )
    if settings.cluster.device == "cuda" and parts:
        parts["CUDA context"] = round(assumed.cuda_context_gib * GIB)
    return GroupMemory("reward", settings.cluster.reward.num_workers, parts)


def memory_of(
    settings: Settings,
    policy: ModelShape,
    rewards: Mapping[str, tuple[RewardModelSettings, ModelShape]],
    assumed: Assumptions,
) -> dict[str, GroupMemory]:
    """Every group that the run starts."""
    groups = {
        "policy": policy_memory(settings, policy, assumed),
        "rollout": rollout_memory(settings, policy, assumed),
        "reward": reward_memory(settings, rewards, assumed),
    }
    if settings.algorithm.kl.placement != "none":
        groups["reference"] = reference_memory(settings, policy, assumed)
    return groups


def longest_row(settings: Settings) -> int:
    """Tokens of the largest micro-batch: the budget, or a single sequence that is longer."""
    return max(
        settings.trainer.micro_batch_tokens, settings.rollout.max_prompt_tokens + settings.rollout.max_response_tokens
    )


def num_gpus(cluster: ClusterSettings, tensor_parallel_size: int, groups: tuple[str, ...]) -> float:
    """GPUs that the groups reserve; parts of one, as in a colocated set, add up."""
    total = 0.0
    for name in groups:
        group = getattr(cluster, name)
        total += group.num_workers * group.gpus_per_worker * (tensor_parallel_size if name == "rollout" else 1)
    return round(total, 6)


def _bytes(dtype: str) -> int:
    return 4 if dtype == "float32" else 2
