"""Tensors that leave a GPU for a while and come back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class HostBuffers:
    """Where the tensors of a GPU wait while somebody else uses it.

    Each has one buffer, set aside when it first leaves and kept: pinned memory is copied several times as fast as other,
    and takes long to get. Torch rounds each pinned buffer up to a power of two.
    """

    def __init__(self, *, pinned: bool = True) -> None:
        self._pinned = pinned
        self._buffers: dict[str, Tensor] = {}

    def move_out(self, tensors: Mapping[str, Tensor]) -> None:
        """Copy the contents of named tensors, all at a time, and let them stand in host memory from then on."""
        for name, tensor in tensors.items():
            buffer = self._buffers.get(name)
            if buffer is None or buffer.shape != tensor.shape or buffer.dtype != tensor.dtype:
                buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._pinned)
                self._buffers[name] = buffer
            buffer.copy_(tensor, non_blocking=True)
        if self._pinned:
            torch.cuda.synchronize()
        for name, tensor in tensors.items():
            tensor.data = self._buffers[name]

    def move_back(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Let the tensors, with what they hold by now, stand on `device`; its work goes on when they are there."""
        for tensor in tensors.values():
            tensor.data = tensor.data.to(device, non_blocking=True, copy=True)
