"""Memory of one worker of every group, in bytes, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...modeling.shapes import ModelShape, adapter_parameters, kv_bytes_per_token, num_parameters
from ...settings import RewardModelSettings, Settings
from ...weight_sync.backends import is_colocated
from .assumptions import Assumptions

GIB = 2**30
LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed's stage3_max_live_parameters: gathered at one time at most."""
REDUCE_BUCKET = 250_000_000
"""reduce_bucket_size of the trainer on CUDA, in float32 elements (modeling/zero.py)."""
SUB_GROUP = 1_000_000_000
"""DeepSpeed's sub_group_size: elements of a rank that are one array of masters."""
NODE_GPUS = 8
PASSING = ("activations", "head gradients", "log-probs", "gathered layers", "reduction")
"""Parts, by the beginning of their name, that exist during a pass only; colocated workers give them back after it."""
OFFLOADED = ("master weights", "Adam moments")
"""Parts of a colocated policy that are in host memory while engines generate (workers/policy.py:offload)."""
MAMBA_CHUNK = 256
MAMBA_INTERMEDIATES = 12
"""float32 [tokens, chunk, heads] alive at one time in transformers' own scan, which runs where mamba-ssm is absent."""


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
    def at_rest(self) -> int:
        """What stays between passes."""
        return sum(size for name, size in self.parts.items() if not name.startswith(PASSING))

    @property
    def stored(self) -> int:
        """Weights, gradients and optimiser states: no estimate."""
        return sum(size for name, size in self.parts.items() if name.startswith(("weights", "gradients", *OFFLOADED)))

    @property
    def offloaded(self) -> int:
        """What a policy moves to the host when it makes room for engines on its GPU."""
        return sum(self.parts.get(name, 0) for name in OFFLOADED)


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
    tokens = longest_part(settings)
    parts["gathered layers"] = value * min(count, LIVE_PARAMETERS)
    # The sum over the chunks so far, and the newest chunk's.
    parts["head gradients"] = 0 if adapters else 2 * value * shape.vocabulary * shape.hidden
    if settings.cluster.device == "cuda":
        parts["reduce bucket"] = 4 * min(trained, REDUCE_BUCKET)
        # The bucket is copied rank by rank; a gradient that is larger than the bucket is copied into float32.
        parts["reduction"] = parts["reduce bucket"]
        parts["CUDA context"] = round(assumed.cuda_context_gib * GIB)
    parts["activations"] = activation_bytes(shape, tokens, value, checkpointing=trainer.gradient_checkpointing)
    # Logits, their softmax and their gradient of one chunk, float32.
    parts["log-probs"] = 3 * 4 * min(trainer.logprob_chunk_tokens, tokens) * shape.vocabulary
    if is_colocated(settings.cluster) and settings.cluster.device == "cuda" and not trainer.offload_optimizer:
        host += 3 * pinned_bytes(trained // ranks)  # masters and two moments
    return GroupMemory("policy", ranks, parts, host)


def activation_bytes(shape: ModelShape, tokens: int, value: int, *, checkpointing: bool) -> int:
    """Activations of one micro-batch of an update, an estimate with a memory-saving attention kernel.

    A layer keeps about 10 hidden and 4 intermediate vectors a token, and in its backward pass 6 and 3 more are alive
    (float32 norms, copies for the rotation, gradients); with checkpointing only every layer's input is kept, and one
    layer is computed again at a time.
    """
    backward = value * tokens * (6 * shape.hidden + 3 * shape.intermediate)
    layer = forward_bytes(shape, tokens, value)
    kept = shape.layers * value * tokens * shape.hidden + layer if checkpointing else shape.layers * layer
    return kept + backward


def forward_bytes(shape: ModelShape, tokens: int, value: int) -> int:
    """Activations of one layer for `tokens` tokens."""
    scan = 4 * MAMBA_INTERMEDIATES * MAMBA_CHUNK * shape.mamba_heads
    return tokens * (value * (10 * shape.hidden + 4 * shape.intermediate) + scan)


def rollout_memory(settings: Settings, shape: ModelShape, assumed: Assumptions) -> GroupMemory:
    """One GPU of an engine: weights / tensor_parallel_size, overhead, and the KV cache that its share leaves.

    Where weight syncs bring adapters alone, these too, and a colocated engine keeps its weights in host memory while it sleeps.
    """
    rollout, value = settings.rollout, _bytes(settings.model.dtype)
    weights = value * num_parameters(shape) // rollout.tensor_parallel_size
    parts, host = {"weights": weights}, 0
    if settings.trainer.lora.syncs_alone:
        parts["adapters"] = value * adapter_parameters(shape, settings.trainer.lora)
        if is_colocated(settings.cluster) and settings.cluster.device == "cuda":
            host = sum(parts.values()) * rollout.tensor_parallel_size
    if settings.cluster.device == "cuda":
        parts["engine overhead"] = round(assumed.engine_overhead_gib * GIB)
        share = round(rollout.gpu_memory_utilization * assumed.gpu_memory_gib * GIB)
        room = max(0, share - sum(parts.values()))
        parts["KV cache"] = rollout.kv_cache_bytes if rollout.kv_cache_bytes is not None else room
    else:
        parts["KV cache"] = rollout.kv_cache_bytes or 0
    return GroupMemory("rollout", settings.cluster.rollout.num_workers, parts, host)


def pinned_bytes(elements: int) -> int:
    """Host memory of a float32 value for each of a rank's elements, which DeepSpeed keeps in arrays of SUB_GROUP: torch rounds
    every pinned one up to a power of two."""
    arrays = [SUB_GROUP] * (elements // SUB_GROUP) + ([elements % SUB_GROUP] if elements % SUB_GROUP else [])
    return sum(2 ** (4 * size - 1).bit_length() for size in arrays)


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
    parts["activations"] = forward_bytes(shape, tokens, value)
    parts["log-probs"] = 2 * 4 * min(settings.trainer.logprob_chunk_tokens, tokens) * shape.vocabulary
    if settings.cluster.device == "cuda":
        shards = settings.trainer.reference_sharding == "zero3"
        parts["CUDA context"] = round((assumed.cuda_context_gib if shards else assumed.scorer_context_gib) * GIB)
    return GroupMemory("reference", workers, parts)


def reward_memory(
    settings: Settings, shapes: Mapping[str, tuple[RewardModelSettings, ModelShape]], assumed: Assumptions
) -> GroupMemory:
    """One copy of every classifier among the reward models; functions and endpoints take nothing."""
    parts: dict[str, int] = {}
    for name, (model, shape) in shapes.items():
        value = _bytes(model.dtype)
        parts[f"weights of {name}"] = value * num_parameters(shape)
        parts[f"activations of {name}"] = forward_bytes(shape, model.micro_batch_tokens, value)
    if settings.cluster.device == "cuda" and parts:
        parts["CUDA context"] = round(assumed.scorer_context_gib * GIB)
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
    if settings.cluster.device == "cpu":
        for name, group in groups.items():
            process = round(getattr(assumed, f"{name}_process_gib") * GIB)
            groups[name] = replace(group, parts={**group.parts, "process": process})
    return groups


def longest_row(settings: Settings) -> int:
    """Tokens of the largest micro-batch on one worker: the budget, or a single sequence that is longer."""
    return max(settings.trainer.micro_batch_tokens, _longest_sequence(settings))


def longest_part(settings: Settings) -> int:
    """The same on a policy rank, which holds its part alone of a row that several read together."""
    together = settings.trainer.sequence_parallel_size
    return max(settings.trainer.micro_batch_tokens, -(-_longest_sequence(settings) // together))


def _longest_sequence(settings: Settings) -> int:
    return settings.rollout.max_prompt_tokens + settings.rollout.max_response_tokens


def _bytes(dtype: str) -> int:
    return 4 if dtype == "float32" else 2
