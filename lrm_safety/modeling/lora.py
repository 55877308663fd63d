"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv:2106.09685) on a frozen model, and the plain weights they stand for.

A target layer computes W x + alpha / rank * B A x. Only A and B train. What leaves the trainer is W + alpha / rank * B A under
the base model's names, so that nobody else has to know of adapters; but for engines that apply A and B themselves
(weight_sync/adapters.py), and the folder of adapters beside an export.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import ConfigError, ModelError, first_line
from ..files import read_json, write_json
from ..settings import LoraSettings, ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"
"""Name that peft gives the only adapter of a layer."""
ALL_LINEAR = ["all-linear"]


def add_lora(model: PreTrainedModel, settings: LoraSettings, *, name: str, seed: int) -> None:
    """Freeze the model and give its target layers adapters: A random (Kaiming), B zero, so that the function is unchanged.

    A is drawn from `seed` alone, the same on every rank. The adapters take the weights' dtype, which ZeRO-3 demands of
    all parameters; its optimiser keeps them in float32.

    Args:
        model: whole or partitioned by ZeRO-3; changed in place.
        name: the model's path, for messages.

    Raises:
        ConfigError: `target_modules` names what is no linear layer of the model.
    """
    from peft import LoraConfig, inject_adapter_in_model  # takes seconds to import, and most runs do without

    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]  # peft calls it an integer and only divides it
        lora_dropout=settings.dropout,
        target_modules=_targets(model, settings.target_modules, name),
    )
    dtype = next(model.parameters()).dtype
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    for parameter in adapter_parameters(model).values():
        parameter.data = parameter.data.to(dtype)


def target_layers(model: ModelSettings, settings: LoraSettings) -> list[str]:
    """Full names of the layers that get adapters. Reads the model's configuration only and builds it without memory.

    Raises ConfigError when the model has no such target layers, ModelError when it cannot be built at all.
    """
    trust = model.trust_remote_code
    try:
        config = transformers.AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=trust)
        with torch.device("meta"):
            skeleton = transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ModelError(f"the model {model.path} could not be built: {first_line(error)}") from error
    return _targets(skeleton, settings.target_modules, model.path)


def adapter_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """A and B of every target layer by module name; empty without LoRA."""
    return {name: parameter for name, parameter in model.named_parameters() if is_adapter(name)}


def scaling(model: nn.Module) -> float:
    """alpha / rank of the model's adapters; 1 without LoRA, where nothing is scaled."""
    config = getattr(model, "peft_config", {}).get(ADAPTER)
    return 1.0 if config is None else config.lora_alpha / config.r


def merged(tensors: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Whole tensors by module name -> the plain model's, in the same order; those without adapters are passed on as they are.

    A merged weight is a new tensor, summed in float32 and rounded once to its dtype. On the meta device it costs nothing.
    """
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_adapter(name):
            continue
        layer, inside, rest = name.partition(".base_layer.")
        if inside and rest == "weight":
            down = tensors[f"{layer}.lora_A.{ADAPTER}.weight"]
            up = tensors[f"{layer}.lora_B.{ADAPTER}.weight"]
            tensor = (tensor.float() + scale * (up.float() @ down.float())).to(tensor.dtype)
        plain[plain_name(name)] = tensor
    return plain


def is_adapter(name: str) -> bool:
    """Whether a parameter of this name is an A or a B."""
    return f".{ADAPTER}." in name and ".lora_" in name


def peft_name(name: str) -> str:
    """Name in peft's files, which vLLM reads too, of an A or a B by its module name."""
    return f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}"


def plain_name(name: str) -> str:
    """Name in the plain model of the weight that a parameter is part of: that of A, B and W is one."""
    if is_adapter(name):
        return name.rpartition(".lora_")[0] + ".weight"
    return name.replace(".base_layer.", ".")


def save_adapter(model: PreTrainedModel, state: Mapping[str, Tensor], base: str, folder: Path) -> None:
    """Write the adapters of a gathered state as peft does, for `PeftModel.from_pretrained(base model, folder)`; nothing without
    LoRA."""
    config = getattr(model, "peft_config", {}).get(ADAPTER)
    if config is None:
        return
    config.base_model_name_or_path, config.task_type = base, "CAUSAL_LM"
    config.save_pretrained(str(folder))
    # peft writes its set of layers in an order that differs from one process to the next.
    path = folder / "adapter_config.json"
    written = read_json(path, ModelError)
    written |= {
        name: sorted(value) for name, value in written.items() if name == "target_modules" and isinstance(value, list)
    }
    write_json(path, written, sort_keys=True)
    adapters = {peft_name(name): tensor.contiguous() for name, tensor in state.items() if is_adapter(name)}
    save_file(adapters, folder / "adapter_model.safetensors", metadata={"format": "pt"})


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Scores are those of the weights, not of a random part of them: no dropout inside."""
    dropouts = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    for module in dropouts:
        module.eval()
    try:
        yield
    finally:
        for module in dropouts:
            module.train()


def _targets(model: PreTrainedModel, wanted: list[str], path: str) -> list[str]:
    """Full names of the layers that get adapters."""
    linear = _linear_layers(model)
    if wanted == ALL_LINEAR:
        return linear
    for target in wanted:
        if not any(_matches(name, target) for name in linear):
            known = sorted({name.rpartition(".")[2] for name in linear})
            raise ConfigError(
                f"trainer.lora.target_modules: {target} is no linear layer of {path} that can be adapted; it has "
                f"{', '.join(known)}"
            )
    return [name for name in linear if any(_matches(name, target) for target in wanted)]


def _matches(name: str, target: str) -> bool:
    return f".{name}".endswith(f".{target}")


def _linear_layers(model: PreTrainedModel) -> list[str]:
    """Names of the linear layers that are called as modules, the only ones an adapter takes effect in.

    The head's weight is read by `ChunkedHead`, a Mamba mixer's `out_proj` by its fused CUDA kernel.
    """
    head = model.get_output_embeddings()
    names = []
    for name, module in model.named_modules():
        parent, _, child = name.rpartition(".")
        if not isinstance(module, nn.Linear) or module is head:
            continue
        if child == "out_proj" and isinstance(getattr(model.get_submodule(parent), "conv1d", None), nn.Conv1d):
            continue
        names.append(name)
    return names
