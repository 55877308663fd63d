"""The engine's end of a weight sync of LoRA adapters alone: vLLM applies them beside the weights that it read from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import torch
from safetensors.torch import load, save
from vllm.config.lora import MaxLoRARanks
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.lora.request import LoRARequest
from vllm.lora.utils import parse_fine_tuned_lora_name

from ..errors import InvariantError
from ..modeling.lora import peft_name, target_layers
from ..settings import LoraSettings, ModelSettings
from .source import Tensors

POLICY = LoRARequest(lora_name="policy", lora_int_id=1, lora_path="never a file")
"""The one adapter of an engine, under the same name in every version: a request that is under way goes on with the new one. vLLM
would read the path if the adapter were not there, and fail."""
RANKS: tuple[int, ...] = get_args(MaxLoRARanks)
"""vLLM keeps room for adapters of one of these ranks."""


def lora_arguments(model: ModelSettings, lora: LoraSettings) -> dict[str, Any]:
    """Arguments of `vllm.LLM` for an engine that takes adapters; empty where none of vLLM's ranks is large enough.

    Only the layers that have adapters get room for them.
    """
    rank = next((rank for rank in RANKS if rank >= lora.rank), None)
    if rank is None:
        return {}
    return {
        "enable_lora": True,
        "max_loras": 1,
        "max_lora_rank": rank,
        "lora_target_modules": sorted({name.rpartition(".")[2] for name in target_layers(model, lora)}),
        "worker_extension_cls": f"{AdapterWorker.__module__}.{AdapterWorker.__name__}",
    }


class EngineAdapters:
    """The adapters of one engine, in the rollout worker's process: what a sync brings is collected and then handed over at once,
    to all of the engine's own processes."""

    def __init__(self, model: ModelSettings, lora: LoraSettings) -> None:
        self._lora = lora
        self._layers = target_layers(model, lora)
        self._tensors: Tensors = {}
        self.request: LoRARequest | None = None
        """With what every request has to be added; None before the first sync, when the engine answers as `model.path`."""

    def obstacle(self, arguments: dict[str, Any]) -> str | None:
        """Why an engine of these arguments cannot take adapters, as far as that is known before it starts."""
        from vllm.engine.arg_utils import EngineArgs
        from vllm.model_executor.models import supports_lora
        from vllm.platforms import current_platform

        if arguments["dtype"] == "float32" and current_platform.is_cuda():
            return "vLLM's CUDA kernels for adapters take no float32 (model.dtype)"
        if self._lora.rank > RANKS[-1]:
            return f"trainer.lora.rank={self._lora.rank} is above {RANKS[-1]}, the largest that vLLM applies"
        config = EngineArgs(**arguments).create_model_config()
        architecture, name = config.registry.resolve_model_cls(config.architectures, config)
        return None if supports_lora(architecture) else f"vLLM applies none to {name}"

    def refusal(self, error: Exception) -> str | None:
        """What vLLM says where it is the adapters that it cannot start with; None where it is something else."""
        line = " ".join(str(error).split())
        # What an engine of several processes could not start with stands in their log alone: the start without adapters tells.
        hidden = "Engine core initialization failed" in line
        return f"vLLM says: {line}" if "LoRA" in line or hidden else None

    def unserved(self, llm: Any) -> str | None:
        """What layers have adapters in the trainer and would have none in this engine; None: they are the same."""
        missing = sorted(
            {name for names in llm.collective_rpc("unserved_layers", args=(self._layers,)) for name in names}
        )
        kinds = sorted({name.rpartition(".")[2] for name in missing})
        return f"vLLM has no such layers: {', '.join(kinds)} ({missing[0]})" if missing else None

    def begin(self) -> None:
        """Forget what an unfinished sync has brought."""
        self._tensors = {}

    def take(self, tensors: Tensors) -> None:
        """Keep A and B of some layers, under peft's names."""
        self._tensors |= tensors

    def load(self, llm: Any) -> None:
        """Put what was taken in the place of the adapters before.

        Raises InvariantError where not every layer's A and B, and nothing else, has come.
        """
        expected = {peft_name(f"{layer}.lora_{side}.weight") for layer in self._layers for side in "AB"}
        if wrong := sorted(expected ^ self._tensors.keys()):
            raise InvariantError(f"weight sync: {len(wrong)} adapters are missing or too many, such as {wrong[0]}")
        # As bytes: they reach an engine in processes of its own too, where tensors would need pickle.
        whole = save({name: tensor.contiguous() for name, tensor in self._tensors.items()})
        self._tensors = {}
        llm.collective_rpc("load_adapters", args=(whole, self._lora.rank, self._lora.alpha))
        self.request = POLICY


class AdapterWorker:
    """What vLLM's own workers are extended by (`worker_extension_cls`); `self` is the worker."""

    model_runner: Any

    def unserved_layers(self, layers: Sequence[str]) -> list[str]:
        """Those of the trainer's layers that this worker has no place for adapters in."""
        manager = self.model_runner.lora_manager._adapter_manager
        if self.model_runner.device.type == "cpu":
            whole = OneAdapter(max_num_batched_tokens=1, max_batches=1, device=self.model_runner.device)
            for module in manager.modules.values():
                module.set_mapping(whole)
        served = {part for name in manager.modules for part in manager.packed_modules.get(name, [name])}
        return [layer for layer in layers if _engine_name(layer, manager.model) not in served]

    def load_adapters(self, whole: bytes, rank: int, alpha: float) -> None:
        """Put A and B of every layer in the place of those before; `whole`: a safetensors file, under peft's names."""
        manager = self.model_runner.lora_manager._adapter_manager
        adapter = LoRAModel.from_lora_tensors(
            POLICY.lora_int_id,
            load(whole),
            PEFTHelper(r=rank, lora_alpha=alpha, target_modules=[]),  # alpha is divided only
            device="cpu",
            dtype=manager.lora_config.lora_dtype,
            weights_mapper=_renaming(manager.model),
        )
        manager.remove_adapter(POLICY.lora_int_id)
        manager.add_adapter(adapter)
        manager.activate_adapter(POLICY.lora_int_id)


class OneAdapter(PunicaWrapperCPU):
    """Two products for all tokens at once, where vLLM's own for the CPU copies A and B for every token.

    All requests of an engine have the same adapter, and before there is one A and B are zero.
    """

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """y [tokens, outputs] += scale * x [tokens, inputs] A^T B^T, slice by slice of the outputs; A [1, 1, rank, inputs] and B
        [1, 1, outputs of the slice, rank]. B holds alpha / rank already."""
        start = 0
        for down, up, size in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
            y[:, start : start + size].addmm_(x @ down[0, 0].T, up[0, 0].T, alpha=scale)
            start += size


def _engine_name(layer: str, model: Any) -> str:
    return parse_fine_tuned_lora_name(peft_name(f"{layer}.lora_A.weight"), _renaming(model))[0]


def _renaming(model: Any) -> Any:
    """vLLM's own names for those of a checkpoint, where they differ."""
    mapper = getattr(model, "hf_to_vllm_mapper", None)
    return None if mapper is None else mapper.get_rename_mapper()
