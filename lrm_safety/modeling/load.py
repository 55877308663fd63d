"""Load causal language models from safetensors, and say plainly why one cannot be loaded."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from ..errors import ConfigError, ModelError, first_line
from ..settings import ModelSettings
from .folder import check_model_folder
from .packed_attention import READ_BY_SEQUENCE, attend_by_sequence

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
ROTATES_BY_LENGTH = {"dynamic", "longrope"}
"""Kinds of rotary positions whose frequencies depend on the largest position that a forward pass is given."""
RECURRENT_LAYERS = {"mamba", "linear_attention", "conv", "recurrent"}


def attention_implementation(requested: str, device: str) -> str:
    """Resolve `auto`: flash_attention_2 only on CUDA with the flash_attn package (transformers would otherwise try to
    download a kernel), sdpa elsewhere.
    """
    if requested != "auto":
        return requested
    return "flash_attention_2" if device.startswith("cuda") and importlib.util.find_spec("flash_attn") else "sdpa"


def check_sequence_parallel(settings: ModelSettings, config: PretrainedConfig, size: int) -> None:
    """Raise ConfigError where ranks cannot read rows of this model together: its heads do not come out even, a layer mixes
    tokens otherwise than through transformers' attention interface, or positions depend on what else a rank reads."""
    key, text = f"trainer.sequence_parallel_size={size}", config.get_text_config()
    model = AutoModelForCausalLM._model_mapping.get(type(config), None)
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    # Of state-space models not every configuration lists its layers; their classes say that they have a state.
    through_interface = model is not None and model._supports_attention_backend and model._supports_sdpa
    if not through_interface or model._is_stateful or not kinds <= READ_BY_SEQUENCE:
        others = ", ".join(sorted(kinds - READ_BY_SEQUENCE)) or "other attention or state"
        raise ConfigError(
            f"{key}: the layers of model.path={settings.path} ({config.model_type}: {others}) cannot be split over ranks; use 1"
        )
    heads = text.num_attention_heads
    if heads % size:
        fitting = [str(one) for one in range(1, heads + 1) if heads % one == 0]
        raise ConfigError(
            f"{key}: must divide the {heads} attention heads of model.path={settings.path}: {', '.join(fitting)}"
        )
    rotations: dict[str, Any] = getattr(text, "rope_parameters", None) or {}
    by_layer = (one for one in rotations.values() if isinstance(one, dict))
    if ROTATES_BY_LENGTH & {one.get("rope_type") for one in (rotations, *by_layer)}:
        raise ConfigError(
            f"{key}: model.path={settings.path} rotates positions by the longest sequence in sight (rope_type "
            f"{' or '.join(sorted(ROTATES_BY_LENGTH))}), which no rank sees whole; use 1"
        )


def one_attention_kernel() -> None:
    """On CUDA, leave torch's own flash kernel to `sdpa` in this process; to be called wherever a model is loaded.

    torch 2.13 would prefer cuDNN's on an H100, which builds and keeps a plan for every new length. vLLM does the same to
    whatever process imports it, so without this call policy and reference would compute with different kernels.
    """
    torch.backends.cuda.enable_cudnn_sdp(False)


def load_causal_lm(settings: ModelSettings, device: str) -> PreTrainedModel:
    """Load the policy's (or reference's) weights, strictly: every parameter from the checkpoint, nothing left over.

    Dropout is switched off, so that training and scoring see one function and rho is 1 at the first update.
    Under an active `HfDeepSpeedConfig` the parameters arrive partitioned (ZeRO-3), otherwise whole, on the CPU.

    Args:
        device: `cpu` or `cuda`, for the attention kernel only; the caller moves the model.

    Raises:
        ModelError: absent path, torn file, or a checkpoint of another model.
    """
    check_model_folder(settings.path, needs_tokenizer=False)
    one_attention_kernel()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            settings.path,
            revision=settings.revision,
            dtype=DTYPES[settings.dtype],
            attn_implementation=attention_implementation(settings.attention, device),
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ModelError(f"the model {settings.path} could not be loaded: {first_line(error)}") from error
    _check_report(settings.path, report)
    _check_packing(settings, model.config.get_text_config())
    _disable_dropout(model)
    if settings.packing:
        attend_by_sequence(model)
    return model


def freeze(model: nn.Module) -> nn.Module:
    """Switch to evaluation mode and drop every gradient; returns the model."""
    return model.eval().requires_grad_(False)


def _check_report(path: str, report: dict[str, Any]) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
        entries = sorted(str(entry) for entry in report.get(kind) or ())
        if entries:
            raise ModelError(
                f"{path} does not fit its config.json: {len(entries)} {kind.replace('_', ' ')}, first: {entries[0]}. "
                "It is a checkpoint of another model or role"
            )


def _check_packing(settings: ModelSettings, config: PretrainedConfig) -> None:
    """State-space and linear-attention layers carry their state over the borders of packed sequences."""
    recurrent = sorted(set(getattr(config, "layer_types", None) or ()) & RECURRENT_LAYERS)
    if settings.packing and recurrent:
        raise ModelError(f"{settings.path} has {recurrent[0]} layers, which cannot be packed: set model.packing=false")


def _disable_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010  (an attribute that nn.Module does not declare)
