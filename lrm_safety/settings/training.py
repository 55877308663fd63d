"""Schema of how a run learns: algorithm, optimiser, schedule, sampling."""

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

from ..algorithm import baselines, corrections
from ..algorithm.options import Aggregation, KLEstimator, Normalisation, ScheduleKind
from ..registry import Registry
from .types import (
    Conflict,
    Decay,
    Float,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
    nothing_reads,
    one_of,
    rule,
)

BASELINES = Registry(
    "baselines",
    baselines.Baseline,
    mend="write @baseline above it",
    ours=baselines.BASELINES,
    calls={"subtract": baselines.complaint},
)
CORRECTIONS = Registry(
    "corrections",
    corrections.Correction,
    mend="write @correction above it",
    ours=corrections.CORRECTIONS,
    calls={"weigh": corrections.complaint},
)


@dataclass
class KLSettings:
    """Distance from the frozen reference."""

    placement: Literal["reward", "loss", "none"] = "reward"
    """reward: a per-token penalty inside the return (the paper). loss: a differentiated term. none: no reference group
    is started."""
    estimator: KLEstimator = "k1"
    """k1 = log-ratio, k2 = its square / 2, k3 = exp(-x) - 1 + x. In the loss k1 is refused: its gradient does not pull
    towards the reference."""
    coef: NonNegativeFloat = 0.01
    """beta: weight of the KL term."""
    controller: Literal["fixed", "adaptive"] = "fixed"
    """adaptive moves `coef` towards `target` (Ziegler et al. 2019)."""
    target: NonNegativeFloat = 6.0
    """adaptive: wanted mean KL per RESPONSE, in nats, as in the controller's paper; a target per token (OpenRLHF, verl) times
    the mean response length."""
    clamp: Annotated[Float, Field(ge=0, le=1e6)] | None = None
    """Bound of every token's estimate, to [-clamp, clamp]: k1 in the reward, k2 and k3 in the loss, where the gradient of a
    token beyond it is 0. null: none, so one token at a log-ratio of -15 has a k3 of 3e6. Others clamp at 10."""
    horizon: PositiveInt = 10_000
    """adaptive: responses over which the coefficient adapts."""

    @rule
    def _keys_go_together(self) -> None:
        if self.placement == "loss" and self.estimator == "k1":
            raise Conflict(
                "estimator=k1: with kl.placement=loss its gradient is zero on average and pulls nowhere; use k2 or k3"
            )
        if self.placement == "reward" and self.estimator != "k1":
            raise Conflict(
                f"estimator={self.estimator}: with kl.placement=reward only k1 gives the paper's return; use k1"
            )
        if self.placement == "none":
            # Presets state estimator and coefficient for when there is a KL.
            nothing_reads(self, ["controller", "clamp"], "with algorithm.kl.placement=none; use reward or loss")
        if self.controller == "fixed":
            nothing_reads(self, ["target", "horizon"], "with algorithm.kl.controller=fixed; use adaptive")
        for name, value in (("coef", self.coef), ("target", self.target)):
            if self.controller == "adaptive" and value <= 0:
                raise Conflict(f"{name}={value}: must be above 0 for kl.controller=adaptive")


@dataclass
class AlgorithmSettings:
    """REINFORCE++ and its relatives: conf/algorithm."""

    name: Text = "reinforce_pp"
    """Name of the variant; the default run.name is made of it."""
    rollout_batch_size: PositiveInt = 256
    """Prompts per rollout batch."""
    samples_per_prompt: PositiveInt = 1
    """Responses sampled for every prompt."""
    mini_batch_size: PositiveInt = 128
    """Responses per update (optimiser step); must divide rollout_batch_size * samples_per_prompt."""
    baseline: Annotated[str, one_of(BASELINES)] = "none"
    """Subtracted from a score: nothing, the prompt group's mean, the mean of the other samples (RLOO), or standardise
    in the group (GRPO); or `package.module:NAME` of a baseline of your own (lrm_safety/algorithm/baselines.py)."""
    gamma: Fraction = 1.0
    """Discount of the return."""
    normalisation: Normalisation = "batch"
    """Standardise advantages over all action tokens of the whole rollout batch, per prompt group, or not."""
    clip_low: NonNegativeFloat | None = 0.2
    """epsilon below 1 in the clipped surrogate; null: no lower clip."""
    clip_high: NonNegativeFloat | None = 0.2
    """epsilon above 1 in the clipped surrogate; null: no upper clip."""
    dual_clip: Annotated[Float, Field(gt=1)] | None = None
    """Lower bound c * A for negative advantages (dual-clip PPO); null: off."""
    aggregation: Aggregation = "token_mean"
    """Mean of the loss over the update's tokens, over per-response means, or per micro-batch (OpenRLHF up to 0.9), which
    needs trainer.micro_batch_sequences."""
    old_logprobs: Literal["recompute", "rollout"] = "recompute"
    """Log-probs of the sampling policy: the trainer's own forward pass, or the rollout engine's."""
    correction: Annotated[str, one_of(CORRECTIONS)] = "tis"
    """Engine mismatch, by the importance weight of trainer over engine. tis: truncated at the cap. off: weight 1. mask: weight
    1 within [1/cap, cap], else 0. icepop: the weight itself within [1/cap, cap], else 0. A token of weight 0 still counts in
    the mean. With old_logprobs=rollout the weight is 1 by construction. One of your own: `package.module:NAME`
    (lrm_safety/algorithm/corrections.py)."""
    correction_cap: Annotated[Float, Field(ge=1)] = 2.0
    """Cap of the importance weight."""
    max_staleness: Annotated[NonNegativeInt, Field(le=16)] = 0
    """Iterations by which the weights that sampled a token may be older than those that learn from it. 0: engines and trainer take
    turns, and a run repeats to the last bit. k: while the trainer updates, engines sample up to k batches ahead and take new
    weights between two steps; needs a correction, or old_logprobs=rollout."""
    oversampling: Annotated[Float, Field(ge=1, le=2)] = 1.0
    """Prompts in flight for each one of a rollout batch, which ends when enough of them are answered. 1: the batch waits for all
    of its own. Above: what is cut is learned from in the next batch, with max_staleness=0 sampled again, and otherwise going on
    where it was, max_staleness batches later at the latest. Needs rollout.dispatch=as_slots_free."""
    kl: KLSettings = field(default_factory=KLSettings)
    """Distance from the reference."""

    @property
    def num_responses(self) -> int:
        """Of one rollout batch."""
        return self.rollout_batch_size * self.samples_per_prompt

    @property
    def num_in_flight(self) -> int:
        """Prompts that are in flight when a batch begins, cut ones of earlier batches among them."""
        return math.ceil(round(self.oversampling * self.rollout_batch_size, 6))

    @property
    def records_batches(self) -> bool:
        """Whether what a batch holds is not told by its iteration alone."""
        return self.max_staleness > 0 or self.num_in_flight > self.rollout_batch_size

    @rule
    def _keys_go_together(self) -> None:
        if self.num_responses % self.mini_batch_size:
            raise Conflict(
                f"mini_batch_size={self.mini_batch_size}: must divide the {self.num_responses} responses of a rollout batch "
                f"(rollout_batch_size {self.rollout_batch_size} x samples_per_prompt {self.samples_per_prompt})"
            )
        needed = BASELINES.get(self.baseline, "algorithm.baseline").min_samples
        if self.samples_per_prompt < needed:
            raise Conflict(
                f"baseline={self.baseline}: needs algorithm.samples_per_prompt of {needed} or more to compare samples"
            )
        if self.normalisation == "group" and self.samples_per_prompt < 2:
            raise Conflict("normalisation=group: needs algorithm.samples_per_prompt of 2 or more")
        if self.kl.controller == "adaptive" and self.num_responses >= 5 * self.kl.horizon:
            raise Conflict(
                f"kl.horizon={self.kl.horizon}: must be above a fifth of the {self.num_responses} responses of a rollout "
                "batch, or the coefficient could fall to zero"
            )
        CORRECTIONS.get(self.correction, "algorithm.correction")
        if self.old_logprobs == "rollout":
            if self.correction in ("mask", "icepop"):
                raise Conflict(
                    f"correction={self.correction}: does nothing with algorithm.old_logprobs=rollout, where every weight is 1; "
                    "use old_logprobs=recompute, or correction=off"
                )
            nothing_reads(self, ["correction_cap"], "with algorithm.old_logprobs=rollout; use recompute")
        elif self.correction == "off":
            if self.max_staleness:
                raise Conflict(
                    f"max_staleness={self.max_staleness}: older weights sample some tokens, which nothing corrects; use "
                    "algorithm.correction=tis, mask or icepop, or algorithm.old_logprobs=rollout"
                )
            nothing_reads(self, ["correction_cap"], "with algorithm.correction=off; use tis, mask or icepop")


@dataclass
class ScheduleSettings:
    """How long a run is; it stops at whichever limit comes first."""

    max_updates: PositiveInt = 500
    """Optimiser steps of the whole run; the lr schedule spans them."""
    passes: PositiveFloat | None = None
    """Passes over the prompts; null: no limit."""
    stop_after_updates: PositiveInt | None = None
    """Leave early, with a checkpoint, once the run has done so many updates (a time-limited job); resume goes on. Not
    part of the run's identity."""


@dataclass
class LoraSettings:
    """Low-rank adapters on a frozen policy: only they train and are saved; exports hold merged weights."""

    rank: NonNegativeInt = 0
    """Rank of every adapter; 0: off, all weights train."""
    alpha: NonNegativeFloat = 16.0
    """The adapters' product is scaled by alpha / rank."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Dropout on the adapters' input in updates; scoring has none. In RL it makes rho differ from 1: refused unless
    run.invariants=warn."""
    target_modules: list[Text] = field(default_factory=lambda: ["all-linear"])
    """Layers that get an adapter, by (the end of) their name, e.g. [q_proj,v_proj]; [all-linear]: every linear layer but
    the head."""
    sync: Literal["auto", "adapters", "merged"] = "auto"
    """What a weight sync of `train` sends to the engines. adapters: A and B alone, which vLLM applies beside the weights that it
    read from model.path. merged: every weight of the model, as rollout.weight_transfer says. auto: adapters where vLLM can
    apply them to this model and these layers; where not, one line says why."""

    @property
    def syncs_alone(self) -> bool:
        """Whether a weight sync brings adapters alone, wherever vLLM can apply them."""
        return self.rank > 0 and self.sync != "merged"

    @rule
    def _keys_go_together(self) -> None:
        if not self.rank:
            nothing_reads(self, ["alpha", "dropout", "target_modules", "sync"], "with trainer.lora.rank=0; set it")
            return
        if self.alpha <= 0:
            raise Conflict(f"alpha={self.alpha}: must be above 0, or the adapters do nothing")
        if not self.target_modules:
            raise Conflict("target_modules: is empty; use [all-linear] or names of layers")
        if "all-linear" in self.target_modules and len(self.target_modules) > 1:
            raise Conflict("target_modules: all-linear stands alone, it covers every other name")


@dataclass
class TrainerSettings:
    """The policy group: optimiser, ZeRO-3, micro-batches: conf/trainer."""

    lr: NonNegativeFloat = 1e-6
    """Peak learning rate."""
    lr_schedule: ScheduleKind = "cosine"
    """Shape after the warm-up."""
    min_lr_ratio: Fraction = 0.1
    """Final lr / peak lr."""
    warmup_fraction: Fraction = 0.03
    """Fraction of max_updates over which lr rises linearly."""
    warmup_from_zero: bool = False
    """The whole schedule one update later, after a first update at lr 0: that of transformers. Off: the first update
    moves."""
    beta1: Decay = 0.9
    """AdamW's first moment decay."""
    beta2: Decay = 0.95
    """AdamW's second moment decay."""
    epsilon: NonNegativeFloat = 1e-8
    """AdamW's epsilon."""
    weight_decay: NonNegativeFloat = 0.0
    """AdamW's decoupled weight decay."""
    gradient_clip: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0: no clipping."""
    micro_batch_tokens: PositiveInt = 8192
    """Token budget of one forward/backward on one rank; a longer single sequence makes a micro-batch of its own."""
    sequence_parallel_size: PositiveInt = 1
    """Ranks that read one row together (DeepSpeed Ulysses), for sequences too long for one: outside attention each holds its part
    of the tokens, inside it its part of the heads. A row then has the budget of them all. It divides the ranks and the model's
    attention heads; the reference reads rows whole."""
    micro_batch_sequences: PositiveInt | None = None
    """Updates in micro-batches of so many responses each, in the random order of the mini-batch, instead of under
    micro_batch_tokens (which scoring keeps). Needed by aggregation=micro_batch_mean, whose weights depend on the cut; null:
    by tokens."""
    max_skipped_steps: NonNegativeInt = 3
    """Updates in a row whose loss or gradient may be no finite number: each is skipped and counted (train/num_skipped), one
    more ends the run. 0: the first one ends it."""
    logprob_chunk_tokens: PositiveInt = 1024
    """Tokens whose logits exist at one time on the log-prob path."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass."""
    offload_optimizer: bool = False
    """Keep optimiser states in host memory (ZeRO-Offload)."""
    offload_parameters: bool = False
    """Keep parameters in host memory between uses."""
    reference_sharding: Literal["plain", "zero3"] = "plain"
    """Reference model: a whole copy per worker, or sharded with ZeRO-3 inference."""
    max_restarts: NonNegativeInt = 0
    """Times within an hour, and from one checkpoint, that the run restarts itself from the last checkpoint after a trainer rank
    died."""
    restart_pause_seconds: NonNegativeFloat = 10.0
    """Pause before a restart, so that a node can come back; doubles with every restart within the hour, up to 10 minutes."""
    deepspeed: dict[str, Any] = field(default_factory=dict)
    """Further DeepSpeed keys, merged over ours; passed through unchecked."""
    lora: LoraSettings = field(default_factory=LoraSettings)
    """Low-rank adapters instead of all weights."""

    @rule
    def _keys_go_together(self) -> None:
        if self.lr_schedule == "constant":
            nothing_reads(self, ["min_lr_ratio"], "with trainer.lr_schedule=constant; use cosine or linear")
        if not self.warmup_fraction:
            nothing_reads(self, ["warmup_from_zero"], "with trainer.warmup_fraction=0; set it")


@dataclass
class RolloutSettings:
    """vLLM sampling and engines: conf/rollout."""

    temperature: Annotated[Float, Field(ge=0.01)] = 1.0
    """Sampling temperature; the trainer divides its logits by it too."""
    top_p: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """Nucleus. Below 1 the engine's distribution is not the trainer's: refused unless old_logprobs=rollout."""
    top_k: NonNegativeInt = 0
    """Top-k; 0: off. Same restriction as top_p."""
    max_prompt_tokens: PositiveInt = 1024
    """Longest rendered prompt; a longer one is an error that names its row."""
    max_response_tokens: PositiveInt = 4096
    """Longest response."""
    stream_chunk_size: PositiveInt = 16
    """Finished responses that leave an engine together for scoring while the others still generate."""
    max_num_seqs: PositiveInt = 256
    """Responses an engine decodes at the same time."""
    dispatch: Literal["fixed", "as_slots_free"] = "fixed"
    """fixed: requests are dealt to the engines when they are asked, and a run repeats to the last bit. as_slots_free: those whose
    prompt had the longest responses first, each to an engine when a place falls free, so that none is through while others have
    work waiting. Seeds stay those of the requests; what runs beside a response, and with it its last bits, depends on time."""
    max_num_batched_tokens: PositiveInt | None = None
    """vLLM's token budget of one engine step; null: vLLM's default."""
    tensor_parallel_size: PositiveInt = 1
    """GPUs of one engine; on the CPU only 1."""
    gpu_memory_utilization: Annotated[Float, Field(ge=0.05, le=1)] = 0.85
    """CUDA: share of GPU memory an engine may take."""
    kv_cache_bytes: PositiveInt | None = None
    """KV cache of one engine; required on the CPU."""
    enforce_eager: bool = False
    """Skip CUDA graphs and compilation; on the CPU compiling costs more than it saves."""
    enable_prefix_caching: bool = True
    """Share the KV cache of common prompt prefixes."""
    weight_transfer: Literal["auto", "shm", "object_store", "nccl", "ipc"] = "auto"
    """How weights reach the engines; auto: on the CPU shm on one node and object_store (Ray's) on several, on CUDA ipc when
    colocated and nccl otherwise."""
    bucket_bytes: PositiveInt = 512 * 1024**2
    """Bytes gathered and sent together in a weight sync. A layer or a tensor that is larger goes alone."""
    probe_tolerance: NonNegativeFloat | None = None
    """|logprob difference| between engine and trainer on the probe after a weight sync: 99 % of the tokens within it and the
    mean within a quarter of it; single tokens beyond four times of it are a note. null: 1e-3 in float32, 0.4 in bfloat16
    (docs/gpu.md)."""
    probe_every_syncs: NonNegativeInt = 1
    """Run the probe on every n-th sync; 0: never."""
    timeout_seconds: Annotated[Float, Field(ge=1)] = 3600.0
    """Limit of one rollout batch."""
    max_restarts: NonNegativeInt = 3
    """Times dead engines are replaced within an hour."""
    log_level: Literal["ERROR", "WARNING", "INFO", "DEBUG"] = "ERROR"
    """What vLLM logs, into Ray's session folder or with tracking.worker_logs=true the console. Every weight sync warns of
    layers without weights of their own: nothing is amiss. KV cache, attention kernel and memory are shown at any level."""
    engine: dict[str, Any] = field(default_factory=dict)
    """Further vLLM engine arguments; passed through unchecked."""

    @rule
    def _keys_go_together(self) -> None:
        budget = self.max_num_batched_tokens
        if budget is not None and budget < self.max_num_seqs:
            raise Conflict(
                f"max_num_batched_tokens={budget}: must be at least rollout.max_num_seqs={self.max_num_seqs}; null leaves it "
                "to vLLM"
            )
        if not self.probe_every_syncs:
            nothing_reads(self, ["probe_tolerance"], "with rollout.probe_every_syncs=0; set it")
