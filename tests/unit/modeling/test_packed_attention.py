"""Packed rows against dense attention with a mask, and against transformers' own reading of one sequence at a time."""

import math

import numpy as np
import pytest
import torch
from tiny_models import tiny_model, tiny_qwen
from torch import Tensor
from transformers import Gemma3ForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen2MoeForCausalLM

from lrm_safety.modeling.packed_attention import Borders, attend_by_sequence, attend_within, borders_for
from lrm_safety.modeling.packing import pack
from lrm_safety.modeling.token_logprobs import TokenLogprobs

LENGTHS = (5, 1, 9, 3)
T, HEADS, KEY_HEADS, SIZE = sum(LENGTHS), 4, 2, 8


def row(dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, heads, T, SIZE, generator=generator).to(dtype).requires_grad_()
        for heads in (HEADS, KEY_HEADS, KEY_HEADS)
    ]


def seen(window: int | None) -> Tensor:
    """[T, T]: which key each query sees, told position by position."""
    sequence = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    return torch.tensor(
        [
            [sequence[i] == sequence[j] and j <= i and (window is None or i - j < window) for j in range(T)]
            for i in range(T)
        ]
    )


def dense(query: Tensor, key: Tensor, value: Tensor, window: int | None, scale: float) -> Tensor:
    """[1, T, heads, size], float64: softmax over what is seen, every key head written out for its group of query heads."""
    key, value = (tensor.repeat_interleave(HEADS // KEY_HEADS, dim=1) for tensor in (key, value))
    scores = (query.double() @ key.double().transpose(2, 3) * scale).masked_fill(~seen(window), -math.inf)
    return (scores.softmax(-1) @ value.double()).transpose(1, 2)


@pytest.mark.parametrize("window", [None, 1, 3, 9, 100])
@pytest.mark.parametrize("scale", [None, 0.1])
def test_equals_dense_attention_with_a_mask(window: int | None, scale: float | None) -> None:
    direction = torch.randn(1, T, HEADS, SIZE, generator=torch.Generator().manual_seed(1))
    tensors = row()
    expected = dense(*tensors, window, SIZE**-0.5 if scale is None else scale)
    (expected * direction).sum().backward()
    gradients = [tensor.grad for tensor in tensors]

    tensors = row()
    attended = attend_within(*tensors, Borders.of(LENGTHS), scale=scale, window=window)
    (attended * direction).sum().backward()
    assert attended.shape == (1, T, HEADS, SIZE) and attended.is_contiguous()
    torch.testing.assert_close(attended.double(), expected, atol=1e-6, rtol=0)
    for tensor, gradient in zip(tensors, gradients, strict=True):
        torch.testing.assert_close(tensor.grad, gradient, atol=5e-6, rtol=0)


def test_where_sequences_begin_and_end() -> None:
    borders = Borders.of(LENGTHS)
    assert borders.starts.tolist() == [0, 5, 6, 15, 18] and borders.starts.dtype == torch.int32
    batch = pack([(np.array([1, 2]), np.array([3])), (np.array([4]), np.array([5]))], packing=True).to("cpu")
    assert batch.borders.lengths == (3, 2) and batch.borders.starts.tolist() == [0, 3, 5]
    assert pack([], packing=True).borders.lengths == (2,)


WINDOWED = {
    # A window on every layer, of which the configuration has no list.
    "mistral": lambda: tiny_model(MistralForCausalLM, seed=0, sliding_window=4, initializer_range=0.3),
    "qwen2": lambda: tiny_model(
        Qwen2ForCausalLM,
        seed=0,
        initializer_range=0.3,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    ),
    # Told to the mask alone.
    "qwen2_moe": lambda: tiny_model(
        Qwen2MoeForCausalLM,
        seed=0,
        initializer_range=0.3,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        num_experts=2,
        num_experts_per_tok=1,
    ),
    "gemma3": lambda: tiny_model(
        Gemma3ForCausalLM, seed=0, initializer_range=0.3, sliding_window=4, query_pre_attn_scalar=8
    ),
}


@pytest.mark.parametrize("name", list(WINDOWED))
def test_sliding_windows_as_transformers_reads_them(name: str) -> None:
    """Sequences of up to thrice the window; one at a time through transformers' eager attention is right."""
    model = WINDOWED[name]().eval()
    random = np.random.default_rng(0)
    pairs = [(random.integers(0, 97, n), random.integers(0, 97, m)) for n, m in [(3, 9), (1, 1), (6, 2), (2, 11)]]
    model.set_attn_implementation("eager")
    expected = []
    for prompt, response in pairs:
        tokens = torch.from_numpy(np.concatenate((prompt, response)))
        table = torch.log_softmax(model(input_ids=tokens[None], use_cache=False).logits[0, len(prompt) - 1 : -1], -1)
        expected.append(table.gather(1, torch.from_numpy(response)[:, None])[:, 0])
    torch.cat(expected).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]

    model.zero_grad()
    model.set_attn_implementation("sdpa")
    assert attend_by_sequence(model)
    logprobs, _ = TokenLogprobs(model, temperature=1.0, chunk_tokens=8)(pack(pairs, packing=True))
    torch.testing.assert_close(logprobs, torch.cat(expected), atol=2e-5, rtol=0)
    logprobs.sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-3, rtol=1e-3)


def test_layers_of_other_kinds_keep_transformers_masks() -> None:
    model = tiny_qwen()
    model.config.layer_types = ["chunked_attention", "full_attention"]
    assert not attend_by_sequence(model)
    assert model.config._attn_implementation == "sdpa" and borders_for(model, Borders.of(LENGTHS)) == {}


def test_padded_rows_pass_no_borders() -> None:
    model = tiny_qwen()
    assert attend_by_sequence(model)
    assert borders_for(model, None) == {} and borders_for(model, Borders.of(LENGTHS)).keys() == {"borders"}
