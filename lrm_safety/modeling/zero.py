"""DeepSpeed ZeRO-3: its configuration, the training engine, the inference engine.

Import only after `distributed.join`, which chooses DeepSpeed's accelerator.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import Enum
from pickle import UnpicklingError
from typing import Any

import deepspeed
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from transformers.integrations.deepspeed import HfDeepSpeedConfig

from ..settings import ModelSettings, TrainerSettings
from .load import freeze, load_causal_lm
from .lora import add_lora
from .loss import parameter_groups
from .packed_attention import reads_by_sequence
from .packing import pack
from .sequence_parallel import SequenceGroup
from .token_logprobs import TokenLogprobs

MOE_BLOCKS = (
    "transformers.models.mixtral.modeling_mixtral.MixtralSparseMoeBlock",
    "transformers.models.qwen2_moe.modeling_qwen2_moe.Qwen2MoeSparseMoeBlock",
    "transformers.models.qwen3_moe.modeling_qwen3_moe.Qwen3MoeSparseMoeBlock",
    "transformers.models.granitemoe.modeling_granitemoe.GraniteMoeMoE",
    "transformers.models.granitemoehybrid.modeling_granitemoehybrid.GraniteMoeHybridMoE",
)
"""Mixture-of-experts blocks, gathered as a whole: which experts run differs from rank to rank."""

BUCKET_ELEMENTS = {"cpu": 10_000_000, "cuda": 250_000_000}
"""Gradient bucket, float32: 1 GB on CUDA. It is set aside for the whole run; a larger gradient is reduced alone."""


def deepspeed_config(trainer: TrainerSettings, *, dtype: str, device: str, train: bool = True) -> dict[str, Any]:
    """The DeepSpeed configuration, with `trainer.deepspeed` merged over it key by key.

    `managed_gradient_accumulation` is off: a mini-batch has as many micro-batches as its tokens need, and every
    `engine.step()` ends one. `train=False` gives the inference engine of a frozen model.
    """
    zero: dict[str, Any] = {
        "stage": 3,
        "overlap_comm": device == "cuda",
        "contiguous_gradients": True,
        "leaf_module": {"classes": list(MOE_BLOCKS)},
        "reduce_bucket_size": BUCKET_ELEMENTS[device],
    }
    if trainer.offload_optimizer and train:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": device == "cuda"}
    if trainer.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": device == "cuda"}
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "zero_optimization": zero,
        "bf16": {"enabled": dtype == "bfloat16"},
        "gradient_clipping": trainer.gradient_clip,
        # A bfloat16 model's gradients leave a micro-batch in bfloat16; over ranks and over micro-batches they are summed
        # in float32 (by default DeepSpeed reduces in the model's dtype).
        "communication_data_type": "fp32",
        "data_types": {"grad_accum_dtype": "fp32"},
        # torch's AdamW on host memory: slower than DeepSpeed's, but nothing has to be compiled.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    return _merge(config, trainer.deepspeed)


def policy_engine(
    model: ModelSettings,
    trainer: TrainerSettings,
    device: str,
    *,
    temperature: float,
    seed: int,
    sequence: SequenceGroup | None = None,
) -> deepspeed.DeepSpeedEngine:
    """Load the policy partitioned over all ranks, with torch's AdamW; every rank calls. `seed` is of new adapters, `sequence`
    the ranks that read rows together with this one.

    With `trainer.lora` the weights are frozen and only adapters, added here, have gradients and optimiser state.
    The engine's module is a `TokenLogprobs`. Raises ModelError as `load_causal_lm` does.
    """
    config = deepspeed_config(trainer, dtype=model.dtype, device=device)
    if sequence is not None:
        model = replace(model, attention="sdpa")  # the one that reads a row by its heads; `auto` may be another on CUDA
    module = _load_partitioned(model, device, config, temperature, trainer.logprob_chunk_tokens, sequence)
    assert sequence is None or reads_by_sequence(module.model), "check_sequence_parallel let a model through"
    if trainer.lora.rank:
        add_lora(module.model, trainer.lora, name=model.path, seed=seed)
    if trainer.gradient_checkpointing:
        module.model.gradient_checkpointing_enable({"use_reentrant": False})
    optimizer = torch.optim.AdamW(
        parameter_groups(module, trainer.weight_decay),
        lr=trainer.lr,
        betas=(trainer.beta1, trainer.beta2),
        eps=trainer.epsilon,
        fused=True,  # one pass over the partition, no temporaries of its size
    )
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    engine.train()
    _notice_shared_parameters(engine)
    return engine


def reference_engine(
    model: ModelSettings, trainer: TrainerSettings, device: str, *, temperature: float
) -> deepspeed.DeepSpeedEngine:
    """Load the frozen reference partitioned over the ranks, without optimiser; every rank calls."""
    config = deepspeed_config(trainer, dtype=model.dtype, device=device, train=False)
    module = _load_partitioned(model, device, config, temperature, trainer.logprob_chunk_tokens)
    engine, *_ = deepspeed.initialize(model=freeze(module), config=config)
    engine.eval()
    return engine


def _load_partitioned(
    settings: ModelSettings,
    device: str,
    config: dict[str, Any],
    temperature: float,
    chunk_tokens: int,
    sequence: SequenceGroup | None = None,
) -> TokenLogprobs:
    # transformers holds this object weakly and partitions whatever is loaded while it lives: until this returns.
    active = HfDeepSpeedConfig(config)
    model = load_causal_lm(settings, device)
    del active
    module = TokenLogprobs(model, temperature=temperature, chunk_tokens=chunk_tokens, sequence=sequence)
    for parameter in model.get_output_embeddings().parameters():
        # The head computes with a parameter it does not own; ZeRO-3 has to gather it around the head's forward
        # and backward.
        deepspeed.zero.register_external_parameter(module.head, parameter)
    return module


def _notice_shared_parameters(engine: deepspeed.DeepSpeedEngine) -> None:
    """Run one dummy through the model with every parameter partitioned.

    A module that reads a child's weight directly (Mamba its convolution's) is noticed by ZeRO-3 only while that weight
    is partitioned, and noticed later than the first pass it is an error. Small weights stay whole on every rank, until
    a gather for a weight sync or an export partitions them in the middle of the run.
    """
    for parameter in engine.optimizer.persistent_parameters:
        parameter.partition()
    with torch.no_grad():
        # Ranks that read a row together read only packed ones.
        engine(pack([], packing=engine.module.sequence is not None).to(engine.device))


def _merge(base: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


@contextmanager
def weights_only() -> Iterator[None]:
    """Let DeepSpeed read tensors and its own few classes only: it asks torch for whole pickles, which can run code."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # the only way past an explicit weights_only=False
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        safe = [DynamicLossScaler, LossScaler, ZeroStageEnum, (_member, "builtins.getattr")]
        with torch.serialization.safe_globals(safe):
            yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _member(kind: type[Enum], name: str) -> Enum:
    """What stands in for `getattr`, as which Python 3.11.0 to 3.11.3 (Debian 12 has 3.11.2) pickles a member of an enumeration."""
    if kind is not ZeroStageEnum or name not in ZeroStageEnum.__members__:
        raise UnpicklingError(f"{kind}.{name} is no stage of DeepSpeed's")
    return kind[name]
