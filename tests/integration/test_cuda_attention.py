"""Packed rows on CUDA, without a GPU: torch's real `varlen_attn` on tensors without contents, and its numbers as documented.

It shows that torch takes what we hand over, forward and backward, and that what it documents is what the CPU computes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import tiny_model, tiny_qwen
from torch import Tensor
from torch.nn.attention import varlen
from transformers import MistralForCausalLM, PreTrainedModel, masking_utils

from lrm_safety.modeling import packed_attention
from lrm_safety.modeling.packed_attention import Borders, attend_by_sequence, attend_within, has_varlen_kernel
from lrm_safety.modeling.packing import pack
from lrm_safety.modeling.token_logprobs import TokenLogprobs

REAL = varlen.varlen_attn
SIGNATURE = inspect.signature(REAL)
WINDOW = 4
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "full": lambda: tiny_qwen(seed=0, initializer_range=0.3),
    "windows": lambda: tiny_model(MistralForCausalLM, seed=0, sliding_window=WINDOW, initializer_range=0.3),
}
SIZES = [(3, 9), (1, 1), (6, 2)]
LENGTHS = [prompt + response for prompt, response in SIZES]
PAIRS = [(np.arange(prompt), np.arange(1, response + 1)) for prompt, response in SIZES]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Whatever the device, the kernel is there; the arguments of its calls, which run the real function."""
    taken: list[dict[str, Any]] = []

    def call(*arguments: Any, **named: Any) -> Any:
        bound = SIGNATURE.bind(*arguments, **named)
        bound.apply_defaults()
        taken.append(bound.arguments)
        return REAL(*arguments, **named)

    monkeypatch.setattr(packed_attention, "has_varlen_kernel", lambda query, value: True)
    monkeypatch.setattr(varlen, "varlen_attn", call)
    # It looks into the positions, for a mask that is not made.
    monkeypatch.setattr(masking_utils, "find_packed_sequence_indices", lambda position_ids: None)
    return taken


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("checkpointing", [False, True])
def test_one_call_a_layer_forward_and_backward(name: str, checkpointing: bool, calls: list[dict[str, Any]]) -> None:
    model = MODELS[name]().to(torch.bfloat16).to("meta").train()
    assert attend_by_sequence(model)
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    batch = pack(PAIRS, packing=True).to("meta")
    logprobs, _ = TokenLogprobs(model, temperature=1.0, chunk_tokens=8)(batch)
    assert len(calls) == 2  # layers
    logprobs.sum().backward()
    assert len(calls) == (4 if checkpointing else 2)
    assert all(parameter.grad.shape == parameter.shape for parameter in model.parameters())
    total = sum(LENGTHS)
    for call in calls:
        for which, heads in (("query", 4), ("key", 2), ("value", 2)):
            tensor = call[which]
            assert tensor.shape == (total, heads, 8) and tensor.dtype == torch.bfloat16
            assert tensor.stride(-1) == 1  # the kernel refuses anything else
        assert call["cu_seq_q"] is call["cu_seq_k"] is batch.borders.starts
        assert call["cu_seq_q"].shape == (len(LENGTHS) + 1,) and call["cu_seq_q"].dtype == torch.int32
        assert call["max_q"] == call["max_k"] == max(LENGTHS)
        assert call["enable_gqa"] and call["scale"] == 8**-0.5
        assert call["window_size"] == ((WINDOW - 1, 0) if name == "windows" else (-1, 0))
        assert call["seqused_k"] is call["block_table"] is call["return_aux"] is None


def as_documented(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, *_: int, **named: Any) -> Tensor:
    """[T, heads, size]: query i sees the keys from i - left to i + right of its sequence; -1 is no end."""
    left, right = named["window_size"]
    position = torch.arange(len(query))
    sequence = torch.bucketize(position, starts[1:], right=True)
    ahead = position[None] - position[:, None]
    seen = sequence[None] == sequence[:, None]
    seen &= (ahead <= right if right >= 0 else True) & (ahead >= -left if left >= 0 else True)
    group = query.shape[1] // key.shape[1]
    assert named["enable_gqa"] == (group > 1)
    key, value = (tensor.repeat_interleave(group, dim=1) for tensor in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * named["scale"]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -math.inf).softmax(-1), value)


@pytest.mark.parametrize("name", list(MODELS))
def test_what_torch_documents_is_what_the_cpu_computes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for kernel in (False, True):
        model = MODELS[name]()
        assert attend_by_sequence(model)
        with monkeypatch.context() as patch:
            patch.setattr(packed_attention, "has_varlen_kernel", lambda query, value, kernel=kernel: kernel)
            patch.setattr(varlen, "varlen_attn", as_documented)
            logprobs, entropy = TokenLogprobs(model, temperature=1.0, chunk_tokens=8)(pack(PAIRS, packing=True))
            logprobs.sum().backward()
        results.append([logprobs, entropy, *(parameter.grad for parameter in model.parameters())])
    for by_sequence, by_kernel in zip(*results, strict=True):
        torch.testing.assert_close(by_kernel, by_sequence, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize(("window", "told"), [(None, -1), (4, 3), (11, 10), (12, -1), (1, 0)])
def test_a_window_that_nothing_fills_is_none(window: int | None, told: int, calls: list[dict[str, Any]]) -> None:
    query = torch.empty(1, 4, sum(LENGTHS), 8, dtype=torch.bfloat16, device="meta")
    attended = attend_within(query, query, query, Borders.of(LENGTHS, "meta"), scale=None, window=window)
    assert attended.shape == (1, sum(LENGTHS), 4, 8)
    (call,) = calls
    assert call["window_size"] == (told, 0) and not call["enable_gqa"]


def test_what_the_kernel_does_not_take_is_read_by_sequence() -> None:
    """In float32 and with heads that it does not know a GPU, too, attends sequence by sequence."""

    def tensor(dtype: torch.dtype = torch.bfloat16, size: int = 128, is_cuda: bool = True) -> Any:
        return SimpleNamespace(dtype=dtype, shape=(1, 4, 6, size), is_cuda=is_cuda)

    assert has_varlen_kernel(tensor(), tensor()) and has_varlen_kernel(tensor(torch.float16), tensor(torch.float16))
    for query in (tensor(torch.float32), tensor(size=20), tensor(size=264), tensor(is_cuda=False)):
        assert not has_varlen_kernel(query, query)
    assert not has_varlen_kernel(tensor(size=192), tensor(size=128))
