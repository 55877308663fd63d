"""Schema of how a run learns: algorithm, optimiser, schedule, sampling."""

from dataclasses import dataclass, field
from typing import Any

from ..algorithm import baselines, corrections
from ..registry import Registry
from .fields import choice, integer, number, registered

BASELINES = Registry("baselines", baselines.Baseline, ours=baselines.BASELINES, calls={"subtract": baselines.complaint})
CORRECTIONS = Registry(
    "corrections", corrections.Correction, ours=corrections.CORRECTIONS, calls={"weigh": corrections.complaint}
)


@dataclass
class KLSettings:
    """Distance from the frozen reference."""

    placement: str = choice("reward", "loss", "none")
    """reward: a per-token penalty inside the return (the paper). loss: a differentiated term. none: no reference group
    is started."""
    estimator: str = choice("k1", "k2", "k3")
    """k1 = log-ratio, k2 = its square / 2, k3 = exp(-x) - 1 + x. In the loss k1 is refused: its gradient does not pull
    towards the reference."""
    coef: float = number(0.01, low=0.0)
    """beta: weight of the KL term."""
    controller: str = choice("fixed", "adaptive")
    """adaptive moves `coef` towards `target` (Ziegler et al. 2019)."""
    target: float = number(6.0, low=0.0)
    """adaptive: wanted mean KL per RESPONSE, in nats, as in the controller's paper; a target per token (OpenRLHF, verl) times
    the mean response length."""
    clamp: float | None = number(None, low=0.0, high=1e6)
    """Bound of every token's estimate, to [-clamp, clamp]: k1 in the reward, k2 and k3 in the loss, where the gradient of a
    token beyond it is 0. null: none, so one token at a log-ratio of -15 has a k3 of 3e6. Others clamp at 10."""
    horizon: int = integer(10_000, low=1)
    """adaptive: responses over which the coefficient adapts."""


@dataclass
class AlgorithmSettings:
    """REINFORCE++ and its relatives: conf/algorithm."""

    name: str = "reinforce_pp"
    """Name of the variant; the default run.name is made of it."""
    rollout_batch_size: int = integer(256, low=1)
    """Prompts per rollout batch."""
    samples_per_prompt: int = integer(1, low=1)
    """Responses sampled for every prompt."""
    mini_batch_size: int = integer(128, low=1)
    """Responses per update (optimiser step); must divide rollout_batch_size * samples_per_prompt."""
    baseline: str = registered(BASELINES, "none")
    """Subtracted from a score: nothing, the prompt group's mean, the mean of the other samples (RLOO), or standardise
    in the group (GRPO); or `package.module:NAME` of a baseline of your own (lrm_safety/algorithm/baselines.py)."""
    gamma: float = number(1.0, low=0.0, high=1.0)
    """Discount of the return."""
    normalisation: str = choice("batch", "group", "none")
    """Standardise advantages over all action tokens of the whole rollout batch, per prompt group, or not."""
    clip_low: float | None = number(0.2, low=0.0)
    """epsilon below 1 in the clipped surrogate; null: no lower clip."""
    clip_high: float | None = number(0.2, low=0.0)
    """epsilon above 1 in the clipped surrogate; null: no upper clip."""
    dual_clip: float | None = number(None, low=1.0)
    """Lower bound c * A for negative advantages (dual-clip PPO); null: off."""
    aggregation: str = choice("token_mean", "sequence_mean", "micro_batch_mean")
    """Mean of the loss over the update's tokens, over per-response means, or per micro-batch (OpenRLHF up to 0.9), which
    needs trainer.micro_batch_sequences."""
    old_logprobs: str = choice("recompute", "rollout")
    """Log-probs of the sampling policy: the trainer's own forward pass, or the rollout engine's."""
    correction: str = registered(CORRECTIONS, "tis")
    """Engine mismatch, by the importance weight of trainer over engine. tis: truncated at the cap. off: weight 1. mask: weight
    1 within [1/cap, cap], else 0. icepop: the weight itself within [1/cap, cap], else 0. A token of weight 0 still counts in
    the mean. With old_logprobs=rollout the weight is 1 by construction. One of your own: `package.module:NAME`
    (lrm_safety/algorithm/corrections.py)."""
    correction_cap: float = number(2.0, low=1.0)
    """Cap of the importance weight."""
    kl: KLSettings = field(default_factory=KLSettings)
    """Distance from the reference."""


@dataclass
class ScheduleSettings:
    """How long a run is; it stops at whichever limit comes first."""

    max_updates: int = integer(500, low=1)
    """Optimiser steps of the whole run; the lr schedule spans them."""
    passes: float | None = number(None, low=0.0)
    """Passes over the prompts; null: no limit."""
    stop_after_updates: int | None = integer(None, low=1)
    """Leave early, with a checkpoint, once the run has done so many updates (a time-limited job); resume goes on. Not
    part of the run's identity."""


@dataclass
class LoraSettings:
    """Low-rank adapters on a frozen policy: only they train and are saved; engines and exports get merged weights."""

    rank: int = integer(0)
    """Rank of every adapter; 0: off, all weights train."""
    alpha: float = number(16.0, low=0.0)
    """The adapters' product is scaled by alpha / rank."""
    dropout: float = number(0.0, low=0.0, high=1.0)
    """Dropout on the adapters' input in updates; scoring has none. In RL it makes rho differ from 1: refused unless
    run.invariants=warn."""
    target_modules: list[str] = field(default_factory=lambda: ["all-linear"])
    """Layers that get an adapter, by (the end of) their name, e.g. [q_proj,v_proj]; [all-linear]: every linear layer but
    the head."""


@dataclass
class TrainerSettings:
    """The policy group: optimiser, ZeRO-3, micro-batches: conf/trainer."""

    lr: float = number(1e-6, low=0.0)
    """Peak learning rate."""
    lr_schedule: str = choice("cosine", "constant", "linear")
    """Shape after the warm-up."""
    min_lr_ratio: float = number(0.1, low=0.0, high=1.0)
    """Final lr / peak lr."""
    warmup_fraction: float = number(0.03, low=0.0, high=1.0)
    """Fraction of max_updates over which lr rises linearly."""
    warmup_from_zero: bool = False
    """The whole schedule one update later, after a first update at lr 0: that of transformers. Off: the first update
    moves."""
    beta1: float = number(0.9, low=0.0, high=1.0)
    """AdamW's first moment decay."""
    beta2: float = number(0.95, low=0.0, high=1.0)
    """AdamW's second moment decay."""
    epsilon: float = number(1e-8, low=0.0)
    """AdamW's epsilon."""
    weight_decay: float = number(0.0, low=0.0)
    """AdamW's decoupled weight decay."""
    gradient_clip: float = number(1.0, low=0.0)
    """Largest global gradient norm; 0: no clipping."""
    micro_batch_tokens: int = integer(8192, low=1)
    """Token budget of one forward/backward on one rank; a longer single sequence makes a micro-batch of its own."""
    micro_batch_sequences: int | None = integer(None, low=1)
    """Updates in micro-batches of so many responses each, in the random order of the mini-batch, instead of under
    micro_batch_tokens (which scoring keeps). Needed by aggregation=micro_batch_mean, whose weights depend on the cut; null:
    by tokens."""
    max_skipped_steps: int = integer(3)
    """Updates in a row whose loss or gradient may be no finite number: each is skipped and counted (train/num_skipped), one
    more ends the run. 0: the first one ends it."""
    logprob_chunk_tokens: int = integer(1024, low=1)
    """Tokens whose logits exist at one time on the log-prob path."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass."""
    offload_optimizer: bool = False
    """Keep optimiser states in host memory (ZeRO-Offload)."""
    offload_parameters: bool = False
    """Keep parameters in host memory between uses."""
    reference_sharding: str = choice("plain", "zero3")
    """Reference model: a whole copy per worker, or sharded with ZeRO-3 inference."""
    max_restarts: int = integer(0)
    """Times within an hour, and from one checkpoint, that the run restarts itself from the last checkpoint after a trainer rank
    died."""
    restart_pause_seconds: float = number(10.0, low=0.0)
    """Pause before a restart, so that a node can come back; doubles with every restart within the hour, up to 10 minutes."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Further DeepSpeed keys, merged over ours; passed through unchecked."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Low-rank adapters instead of all weights."""


@dataclass
class RolloutSettings:
    """vLLM sampling and engines: conf/rollout."""

    temperature: float = number(1.0, low=0.01)
    """Sampling temperature; the trainer divides its logits by it too."""
    top_p: float = number(1.0, low=0.0, high=1.0)
    """Nucleus. Below 1 the engine's distribution is not the trainer's: refused unless old_logprobs=rollout."""
    top_k: int = integer(0)
    """Top-k; 0: off. Same restriction as top_p."""
    max_prompt_tokens: int = integer(1024, low=1)
    """Longest rendered prompt; a longer one is an error that names its row."""
    max_response_tokens: int = integer(4096, low=1)
    """Longest response."""
    stream_chunk_size: int = integer(16, low=1)
    """Finished responses that leave an engine together for scoring while the others still generate."""
    max_num_seqs: int = integer(256, low=1)
    """Responses an engine decodes at the same time."""
    max_num_batched_tokens: int | None = integer(None, low=1)
    """vLLM's token budget of one engine step; null: vLLM's default."""
    tensor_parallel_size: int = integer(1, low=1)
    """GPUs of one engine; on the CPU only 1."""
    gpu_memory_utilization: float = number(0.85, low=0.05, high=1.0)
    """CUDA: share of GPU memory an engine may take."""
    kv_cache_bytes: int | None = integer(None, low=1)
    """KV cache of one engine; required on the CPU."""
    enforce_eager: bool = False
    """Skip CUDA graphs and compilation; on the CPU compiling costs more than it saves."""
    enable_prefix_caching: bool = True
    """Share the KV cache of common prompt prefixes."""
    weight_transfer: str = choice("auto", "shm", "nccl", "ipc")
    """vLLM weight-transfer backend; auto: shm on the CPU, ipc when colocated on CUDA, nccl otherwise."""
    bucket_bytes: int = integer(512 * 1024**2, low=1)
    """Bytes gathered and sent together in a weight sync. A layer or a tensor that is larger goes alone."""
    probe_tolerance: float | None = number(None, low=0.0)
    """|logprob difference| between engine and trainer on the probe after a weight sync: 99 % of the tokens within it and the
    mean within a quarter of it; single tokens beyond four times of it are a note. null: 1e-3 in float32, 0.4 in bfloat16
    (docs/gpu.md)."""
    probe_every_syncs: int = integer(1)
    """Run the probe on every n-th sync; 0: never."""
    timeout_seconds: float = number(3600.0, low=1.0)
    """Limit of one rollout batch."""
    max_restarts: int = integer(3)
    """Times dead engines are replaced within an hour."""
    log_level: str = choice("ERROR", "WARNING", "INFO", "DEBUG")
    """What vLLM logs, into Ray's session folder or with tracking.worker_logs=true the console. Every weight sync warns of
    layers without weights of their own: nothing is amiss. KV cache, attention kernel and memory are shown at any level."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Further vLLM engine arguments; passed through unchecked."""
