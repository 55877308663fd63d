"""The `object_store` backend: a bucket as an object of Ray's store, which every node reads once and its engines share.

Ray keeps the bytes of numpy arrays outside of the pickle, so that a reader's arrays lie in the node's store itself; torch
tensors it copies. numpy has no bfloat16: bytes travel, with dtype and shape beside them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from .source import Tensors


class PackedTensor(NamedTuple):
    """A tensor as numpy can carry it."""

    data: np.ndarray
    """uint8 [number of bytes], in row-major order."""
    dtype: torch.dtype
    shape: tuple[int, ...]


PackedBucket = dict[str, PackedTensor]
"""One bucket, by checkpoint name."""


def pack(bucket: Iterable[tuple[str, torch.Tensor]]) -> PackedBucket:
    """A bucket for the store; contiguous tensors in host memory are not copied."""
    return {
        name: PackedTensor(
            tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), tensor.dtype, tuple(tensor.shape)
        )
        for name, tensor in bucket
    }


def unpack(bucket: PackedBucket) -> Tensors:
    """The tensors that were packed, without a copy: what came out of the store must not be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {
            name: torch.from_numpy(packed.data).view(packed.dtype).reshape(packed.shape)
            for name, packed in bucket.items()
        }
