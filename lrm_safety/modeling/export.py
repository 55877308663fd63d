"""Gather the sharded policy and write it as a Hugging Face folder."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from ..errors import DataError, first_line
from ..files import give_usual_modes, put_in_place
from ..settings import LoraSettings, ModelSettings
from .configuration import load_tokenizer
from .load import load_causal_lm
from .lora import add_lora, merged, save_adapter, scaling

_WRAPPED = "model."
"""What the trainer's `TokenLogprobs` puts before the names of its model."""


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
        folder: written by rank 0 beside its place and renamed; one that is there is replaced once the new one is whole.
    """
    state = gather_state_dict(model, rank)
    if rank == 0:
        write_model(model, state, tokenizer, source, Path(folder))


def export_checkpoint(
    settings: ModelSettings, lora: LoraSettings, seed: int, state: Path, world_size: int, folder: Path
) -> None:
    """Write the model of a checkpoint's ZeRO-3 files as `export_model` does in the run itself, to the bit; no rank is needed.

    The files hold every rank's part of the float32 master weights, which the weights are a rounding of; frozen weights, which
    LoRA has, are those of `settings.path`. The whole model lies in this process's memory, in its own dtype.

    Args:
        settings: the run's; `path` resolved.
        state: folder with the files of all ranks.
        world_size: ranks that wrote it.

    Raises:
        DataError: files are missing, cannot be read, or are of another model.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")  # nothing is computed
    settings = replace(settings, attention="sdpa")
    model = load_causal_lm(settings, "cpu")
    if lora.rank:
        add_lora(model, lora, name=settings.path, seed=seed)
    masters = _master_weights(state, world_size)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *_saved_buffers(model)]:
            master = masters.get(f"{_WRAPPED}{name}")
            if master is None:
                if isinstance(value, torch.nn.Parameter) and value.requires_grad:
                    raise DataError(f"{state} lacks {name}: it is the state of another model than {settings.path}")
                continue
            if tuple(master.shape) != tuple(value.shape):
                raise DataError(
                    f"{state} holds {name} with the shape {list(master.shape)}, {settings.path} with {list(value.shape)}: it is "
                    "the state of another model"
                )
            value.copy_(master.contiguous())
    write_model(model, whole_state(model), load_tokenizer(settings), settings.path, folder)


def whole_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Weights, adapters and saved buffers by module name of a model that is not sharded; tied ones under both names."""
    whole = {name: value.detach() for name, value in model.named_parameters(remove_duplicate=False)}
    return whole | dict(_saved_buffers(model))


def write_model(
    model: PreTrainedModel, state: dict[str, Tensor], tokenizer: PreTrainedTokenizerBase, source: str, folder: Path
) -> None:
    """What `export_model` writes, from a whole state. Beside its place, then renamed: an export that is there is replaced once the
    new one is whole."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        save_adapter(model, state, source, partial / "adapter")
        model.save_pretrained(partial, state_dict=merged(state, scaling(model)))
        tokenizer.save_pretrained(partial)
        # Where the source has no generation config, save_pretrained has written the one that follows from the configuration.
        with contextlib.suppress(OSError):
            GenerationConfig.from_pretrained(source).save_pretrained(partial)
        give_usual_modes(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # on a full disk it would keep the next try from its room
        raise
    put_in_place(partial, folder)


def _saved_buffers(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    saved = model.state_dict().keys()
    return [(name, buffer) for name, buffer in model.named_buffers() if name in saved]


def _master_weights(state: Path, world_size: int) -> Mapping[str, Any]:
    """Trained parameters, float32, and buffers by name; each is put together from its parts at `contiguous()`."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    from .zero import weights_only

    found = len(list(state.glob("*_optim_states.pt")))
    if found != world_size:
        raise DataError(
            f"{state} holds the state of {found} trainer ranks instead of {world_size}: copy all of its files"
        )
    quiet = io.StringIO()
    try:
        with weights_only(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
            masters: Mapping[str, Any] = get_fp32_state_dict_from_zero_checkpoint(
                str(state.parent), tag=state.name, exclude_frozen_parameters=True, lazy_mode=True
            )
    # Whatever unpickling and putting together raise is said of these files.
    except Exception as error:
        raise DataError(f"the trainer state in {state} cannot be read ({first_line(error)})") from error
    return masters
