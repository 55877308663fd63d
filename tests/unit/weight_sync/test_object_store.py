"""Tensors as bytes that numpy can carry, and back without a copy."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import torch

from lrm_safety.weight_sync.object_store import PackedBucket, pack, unpack


def through_the_store(packed: PackedBucket) -> PackedBucket:
    """As Ray does it: bytes beside the pickle, given back read-only."""
    buffers: list[pickle.PickleBuffer] = []
    rest = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    assert len(rest) < 1000
    return pickle.loads(rest, buffers=[memoryview(bytes(buffer.raw())) for buffer in buffers])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7, 3, 5), (33, 1)])
def test_any_tensor_comes_back_to_the_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = (torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    (back,) = unpack(through_the_store(pack([("a", tensor)]))).values()
    assert back.dtype == dtype and back.shape == tensor.shape
    assert torch.equal(back, tensor)


def test_every_bit_of_bfloat16_survives() -> None:
    """Infinities, not-a-numbers with their payload and negative zero too."""
    bits = torch.arange(2**16, dtype=torch.int32).to(torch.uint16)
    back = unpack(through_the_store(pack([("a", bits.view(torch.bfloat16))])))["a"]
    assert torch.equal(back.view(torch.uint16), bits)


def test_a_view_is_packed_in_its_own_order() -> None:
    tensor = torch.arange(12.0).reshape(3, 4).T[1:]
    assert unpack(pack([("a", tensor)]))["a"].tolist() == [[1, 5, 9], [2, 6, 10], [3, 7, 11]]


def test_neither_end_copies_or_warns() -> None:
    tensor = torch.arange(10, dtype=torch.bfloat16)
    packed = pack([("a", tensor)])
    assert packed["a"].data.ctypes.data == tensor.data_ptr()
    read_only = through_the_store(packed)
    assert not read_only["a"].data.flags.writeable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert unpack(read_only)["a"].data_ptr() == read_only["a"].data.ctypes.data


def test_names_keep_their_order() -> None:
    tensors = [(name, torch.tensor([float(position)])) for position, name in enumerate("zayx")]
    unpacked = unpack(pack(tensors))
    assert list(unpacked) == list("zayx")
    np.testing.assert_array_equal(torch.cat(list(unpacked.values())).numpy(), [0.0, 1.0, 2.0, 3.0])
