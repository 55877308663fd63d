"""Gather the sharded policy and write it as a Hugging Face folder."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from .lora import merged, save_adapter, scaling


def gather_state_dict(model: PreTrainedModel, rank: int) -> dict[str, Tensor]:
    """Whole weights and adapters by module name on the CPU of rank 0 (an empty dictionary elsewhere); every rank calls.

    One parameter is whole on the devices at a time. Tied parameters appear under both names and share memory.
    """
    import deepspeed

    state: dict[str, Tensor] = {}
    gathered: dict[int, Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in gathered:
            with deepspeed.zero.GatheredParameters([parameter]):
                whole = parameter.detach().to("cpu", copy=True) if rank == 0 else torch.empty(0)
            gathered[id(parameter)] = whole
        state[name] = gathered[id(parameter)]
    if rank != 0:
        return {}
    saved = model.state_dict().keys()
    state |= {name: buffer.detach().cpu() for name, buffer in model.named_buffers() if name in saved}
    return state


def export_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str, folder: str, rank: int
) -> None:
    """Write configuration, safetensors weights, tokenizer with chat template and generation config; every rank calls.

    Names are the hub's (fused expert weights are split again), and a tied weight is stored once. Adapters (LoRA) are merged
    into the weights; beside the merged model they stand by themselves in `adapter/`, in peft's form.

    Args:
        model: the causal language model under ZeRO-3, not its log-prob wrapper.
        source: folder or hub id the model was loaded from; its generation config is taken over.
        folder: written by rank 0; made when absent.
    """
    state = gather_state_dict(model, rank)
    if rank != 0:
        return
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_adapter(model, state, source, Path(folder) / "adapter")
    model.save_pretrained(folder, state_dict=merged(state, scaling(model)))
    tokenizer.save_pretrained(folder)
    try:
        GenerationConfig.from_pretrained(source).save_pretrained(folder)
    except OSError:
        # The source has none; save_pretrained has then written the one that follows from the configuration.
        return
