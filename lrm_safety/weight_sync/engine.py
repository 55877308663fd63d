"""The engine's end of `shm` and `object_store`: a weight-transfer engine for vLLM on the CPU, which has none of its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from .backends import HOST_TENSORS, end_with_parent


def register() -> None:
    """Make the backend known to vLLM in this process, and let an engine's own process end with its worker; may be called
    again.

    Entry point of the group `vllm.general_plugins`, which vLLM runs in every process it starts.
    """
    end_with_parent()
    if HOST_TENSORS not in WeightTransferEngineFactory._registry:
        WeightTransferEngineFactory.register_engine(HOST_TENSORS, HostTensorsEngine)


@dataclass
class HostTensorsInitInfo(WeightTransferInitInfo):
    """Nothing to agree on beforehand: each update brings its tensors."""


@dataclass
class HostTensorsUpdateInfo(WeightTransferUpdateInfo):
    """One bucket."""

    tensors: dict[str, torch.Tensor]
    """Whole tensors under checkpoint names; read only, since they may lie in memory that engines share."""


class HostTensorsEngine(WeightTransferEngine[HostTensorsInitInfo, HostTensorsUpdateInfo]):
    """Loads tensors through vLLM's layerwise reload, without a copy before a layer is whole.

    They are got by the worker whose process this is (on the CPU an engine has no other), which Ray and files can reach.

    On the CPU the layers hold packed copies of their weights, so `load_weights` alone would write into the wrong place;
    the layerwise reload unpacks, loads and packs again. vLLM 0.32 forgets two packed copies there, without an error:
    that of a language-model head tied to the embedding, and that of unquantised experts. `finish_weight_update` mends
    both. Experts whose intermediate size vLLM has to pad (48, for instance) cannot be reloaded there at all: it raises.
    """

    init_info_cls = HostTensorsInitInfo
    update_info_cls = HostTensorsUpdateInfo

    def init_transfer_engine(self, init_info: HostTensorsInitInfo) -> None:
        """Tensors in memory need no rendezvous."""

    def start_weight_update(self) -> None:
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: HostTensorsUpdateInfo) -> None:
        self.model.load_weights(update_info.tensors.items())

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
