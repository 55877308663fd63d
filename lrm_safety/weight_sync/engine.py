"""The engine's end of the `shm` backend: a weight-transfer engine for vLLM on the CPU, which has none of its own."""

from __future__ import annotations

from dataclasses import dataclass

from safetensors import safe_open
from torch import nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from .backends import end_with_parent

BACKEND = "shm"


def register() -> None:
    """Make the backend known to vLLM in this process, and let an engine's own process end with its worker; may be called
    again.

    Entry point of the group `vllm.general_plugins`, which vLLM runs in every process it starts.
    """
    end_with_parent()
    if BACKEND not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(BACKEND, SharedMemoryEngine)


@dataclass
class SharedMemoryInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: each update names its file."""


@dataclass
class SharedMemoryUpdateInfo(WeightTransferUpdateInfo):
    """One bucket."""

    path: str
    """Safetensors file of whole tensors under checkpoint names."""


class SharedMemoryEngine(WeightTransferEngine[SharedMemoryInitInfo, SharedMemoryUpdateInfo]):
    """Loads weights from safetensors files through vLLM's layerwise reload.

    On the CPU the layers hold packed copies of their weights, so `load_weights` alone would write into the wrong place;
    the layerwise reload unpacks, loads and packs again. vLLM 0.32 forgets two packed copies there, without an error:
    that of a language-model head tied to the embedding, and that of unquantised experts. `finish_weight_update` mends
    both. Experts whose intermediate size vLLM has to pad (48, for instance) cannot be reloaded there at all: it raises.
    """

    init_info_cls = SharedMemoryInitInfo
    update_info_cls = SharedMemoryUpdateInfo

    def init_transfer_engine(self, init_info: SharedMemoryInitInfo) -> None:
        """Files need no rendezvous."""

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: SharedMemoryUpdateInfo) -> None:
        # The tensors are views of the mapped file: no copy is made until a layer is whole; the map outlives the file.
        with safe_open(update_info.path, framework="pt") as file:
            self.model.load_weights((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118

    def finish_weight_update(self) -> None:
        finalize_layerwise_reload(self.model, self.model_config)
        _pack_tied_heads(self.model)
        _pack_experts(self.model)

    def shutdown(self) -> None:
        """Nothing is held between updates."""


def _pack_tied_heads(model: nn.Module) -> None:
    """A tied head is never loaded itself, so the reload puts back its old packed copy: pack the new embedding."""
    modules = list(model.modules())
    shared = {id(module.weight) for module in modules if _has_weight(module) and not isinstance(module, ParallelLMHead)}
    for module in modules:
        if isinstance(module, ParallelLMHead) and _has_weight(module) and id(module.weight) in shared:
            module.quant_method.process_weights_after_loading(module)


def _pack_experts(model: nn.Module) -> None:
    """The unquantised mixture packs its experts on the first load only; a reload leaves them in checkpoint order."""
    for module in model.modules():
        kernel = getattr(getattr(module, "quant_method", None), "moe_kernel", None)
        if kernel is not None and hasattr(module, "w13_weight"):
            kernel.fused_experts.process_weights_after_loading(module)


def _has_weight(module: nn.Module) -> bool:
    return getattr(module, "weight", None) is not None
