"""The trainer's weights as a stream of whole tensors under their checkpoint names, gathered a bucket at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from ..modeling.lora import is_adapter, merged, peft_name, plain_name, scaling
from ..progress import PROGRESS

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class TensorDescription:
    """What iteration yields, said beforehand. The same fields as vLLM's `ParamMeta`, which needs no vLLM here."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class ZeroThreeSource:
    """Iterates over a model's weights; under ZeRO-3 all ranks must iterate in step, since each bucket is one all-gather.

    Names and shapes are the checkpoint's, not the module's: transformers 5 fuses the experts of a mixture into one
    parameter, while vLLM's loaders read what `save_pretrained` writes. A tensor tied to an earlier one is left out, and
    persistent buffers are sent along, because vLLM's reload waits for every tensor of a layer. Adapters (LoRA) are merged
    into their weights, one tensor at a time and on the rank that keeps them; the trained weights stay as they are.

    Fits vLLM's `WeightSource` protocol (`metadata()` and iteration over (name, tensor)) without importing vLLM.

    Args:
        model: a transformers model, ZeRO-3 sharded (`engine.module`) or plain.
        bucket_bytes: weights gathered at one time. A layer is never cut, since vLLM buffers incomplete layers; a single
            layer larger than this makes a bucket of its own.
        rank: this trainer rank. Rank 0 yields real tensors; the others yield tensors on the meta device and only take part
            in the gathers.
        every_rank: yield real tensors on every rank, as `ipc` needs: each rank hands over its own GPU's copy.
        adapters: A and B of every target layer alone, under peft's names.
    """

    def __init__(
        self, model: nn.Module, bucket_bytes: int, rank: int, *, every_rank: bool = False, adapters: bool = False
    ) -> None:
        self._model = model
        self._keep = every_rank or rank == 0
        self._scaling = scaling(model)
        self._adapters = adapters
        tensors = _unique_tensors(model)
        if adapters:
            tensors = {name: tensor for name, tensor in tensors.items() if is_adapter(name)}
        self._buckets = _cut(_layers(tensors), bucket_bytes)
        self._described = [
            self._checkpoint_form({name: _placeholder(tensor) for name, tensor in bucket.items()})
            for bucket in self._buckets
        ]

    @property
    def num_bytes(self) -> int:
        """Bytes of one whole pass."""
        return sum(tensor.numel() * tensor.element_size() for bucket in self._described for tensor in bucket.values())

    @property
    def largest_tensor_bytes(self) -> int:
        """Bytes of the largest single tensor, often the embedding: no transfer may cut a tensor."""
        return max(tensor.numel() * tensor.element_size() for bucket in self._described for tensor in bucket.values())

    def metadata(self) -> list[TensorDescription]:
        """What iteration yields, element for element, without gathering: the same conversion run on the meta device."""
        return [
            TensorDescription(name, tensor.dtype, tuple(tensor.shape))
            for bucket in self._described
            for name, tensor in bucket.items()
        ]

    def buckets(self, *, lent: bool = False) -> Iterator[list[tuple[str, torch.Tensor]]]:
        """Yield the weights bucket by bucket, as copies of which the shards are already released.

        `lent`: without that copy, for a reader that makes its own. The tensors are then valid only until the next bucket is
        asked for, and may be the trained weights themselves: they must not be written to.
        """
        for bucket, described in zip(self._buckets, self._described, strict=True):
            # vLLM's packed broadcast reads the last bucket on side streams; its memory may be reused only after that.
            _synchronize(bucket)
            with ExitStack() as held:
                with PROGRESS.piece("buckets"), torch.no_grad():
                    held.enter_context(_gathered(list(bucket.values())))
                    if self._keep:
                        whole = {name: tensor.detach() for name, tensor in bucket.items()}
                        keep = torch.Tensor.contiguous if lent else _copy
                        tensors = [(name, keep(tensor)) for name, tensor in self._checkpoint_form(whole).items()]
                        del whole
                    else:
                        tensors = list(described.items())
                    if not lent:
                        held.close()
                _synchronize(bucket)
                yield tensors
                del tensors

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        for bucket in self.buckets():
            # Popped, so that a tensor is free as soon as its reader lets go of it.
            bucket.reverse()
            while bucket:
                yield bucket.pop()

    def _checkpoint_form(self, tensors: Tensors) -> Tensors:
        """Module names, adapters and fused shapes into the checkpoint's; the order depends on the names alone."""
        if self._adapters:
            return {peft_name(name): tensor for name, tensor in tensors.items()}
        from transformers.core_model_loading import revert_weight_conversion

        return revert_weight_conversion(self._model, merged(tensors, self._scaling))


def _unique_tensors(model: nn.Module) -> Tensors:
    """Parameters and persistent buffers by module name, in module order, each storage once."""
    unique: Tensors = {}
    seen: set[int] = set()
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            unique[name] = tensor
    return unique


def _layers(tensors: Tensors) -> list[Tensors]:
    """Group what belongs to one layer: the name up to its first number; what has none stands alone, with its adapters."""
    layers: dict[str, Tensors] = {}
    for name, tensor in tensors.items():
        plain = plain_name(name)
        parts = plain.split(".")
        number = next((position for position, part in enumerate(parts) if part.isdigit()), None)
        key = plain if number is None else ".".join(parts[: number + 1])
        layers.setdefault(key, {})[name] = tensor
    return list(layers.values())


def _cut(layers: list[Tensors], bucket_bytes: int) -> list[Tensors]:
    """Fill buckets with whole layers, in order, up to `bucket_bytes`."""
    buckets: list[Tensors] = []
    room = 0
    for layer in layers:
        size = sum(_placeholder(tensor).numel() * tensor.element_size() for tensor in layer.values())
        if not buckets or size > room:
            buckets.append({})
            room = bucket_bytes
        buckets[-1].update(layer)
        room -= size
    return buckets


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.clone(memory_format=torch.contiguous_format)


def _placeholder(tensor: torch.Tensor) -> torch.Tensor:
    """An empty stand-in of the whole tensor's shape: a ZeRO-3 shard's own shape is (0,), `ds_shape` is the whole."""
    return torch.empty(getattr(tensor, "ds_shape", tensor.shape), dtype=tensor.dtype, device="meta")


def _gathered(tensors: list[torch.Tensor]) -> AbstractContextManager[None]:
    """All-gather the ZeRO-3 shards among the tensors for the length of the context; nothing to do for a plain model."""
    shards = [tensor for tensor in tensors if hasattr(tensor, "ds_id")]
    if not shards:
        return nullcontext()
    import deepspeed

    return deepspeed.zero.GatheredParameters(shards)


def _synchronize(tensors: Tensors) -> None:
    device = next(iter(tensors.values())).device
    if device.type == "cuda":
        torch.cuda.synchronize(device)
