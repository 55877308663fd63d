"""Operations worked out by hand, and against torch's own counter, which watches the matrix products of a real model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import VOCABULARY, tiny_granite, tiny_qwen
from torch.utils.flop_counter import FlopCounterMode

from lrm_safety.modeling.cards import peak_flops
from lrm_safety.modeling.flops import (
    attention_flops,
    body_parameters,
    forward_flops,
    generation_flops,
    head_parameters,
    update_flops,
)
from lrm_safety.modeling.shapes import KNOWN, ModelShape, kv_bytes_per_token, shape_of

# Two layers of width 8: 4 query heads and 2 of keys and values of 3, feed-forward 5, 11 tokens.
SHAPE = ModelShape("hand", 2, 8, 5, 4, 2, 3, 11)
# Queries 8 x 12, keys and values 8 x 6 each, output 12 x 8, gate, up and down 8 x 5 each.
BODY = 2 * (96 + 48 + 48 + 96 + 120)
# 4 x heads x head width x layers for each pair.
PAIR = 4 * 4 * 3 * 2


def test_a_dense_model_with_fewer_heads_of_keys() -> None:
    assert body_parameters(SHAPE) == BODY == 816 and head_parameters(SHAPE) == 88
    # Sequences of 3 and 1 tokens: 6 + 1 pairs, logits at 2 + 0 of them.
    assert forward_flops(SHAPE, [3, 1], [2, 0]) == 2 * (4 * 816 + 2 * 88) + 7 * PAIR
    assert update_flops(SHAPE, [3, 1], [2, 0]) == 3 * (2 * (4 * 816 + 2 * 88) + 7 * PAIR)


def test_as_many_heads_of_keys_as_of_queries_cost_their_projections_alone() -> None:
    all_heads = replace(SHAPE, kv_heads=4)
    assert body_parameters(all_heads) == BODY + 2 * 2 * 48
    assert attention_flops(all_heads, [3]) == attention_flops(SHAPE, [3])


def test_a_tied_head_costs_what_another_does_and_a_reward_has_none() -> None:
    tied = replace(SHAPE, tied=True)
    assert forward_flops(tied, [3], [2]) == forward_flops(SHAPE, [3], [2])
    assert forward_flops(replace(SHAPE, head=False), [3], [2]) == 2 * 3 * 816 + 6 * PAIR


def test_attention_grows_with_the_square() -> None:
    assert attention_flops(SHAPE, [1]) == PAIR
    assert attention_flops(SHAPE, [1000]) == 500_500 * PAIR
    assert attention_flops(SHAPE, [1000] * 3) == 3 * 500_500 * PAIR


def test_what_is_cached_is_only_looked_at() -> None:
    """Of 5 tokens 3 are cached: the others see 4 and 5."""
    assert forward_flops(SHAPE, [5], [1], cached=[3]) == 2 * (2 * 816 + 88) + 9 * PAIR


def test_adapters_leave_the_weights_without_gradients_of_their_own() -> None:
    """Weights: forward and the gradients of their inputs. Adapters of 7 parameters and attention: the whole three."""
    assert update_flops(SHAPE, [3], [2], adapters=7) == 4 * (3 * 816 + 2 * 88) + 3 * 6 * PAIR + 6 * 7 * 3
    assert forward_flops(SHAPE, [3], [2], adapters=7) == forward_flops(SHAPE, [3], [2]) + 2 * 7 * 3


def test_sampling_reads_a_prompt_once_and_never_the_last_token() -> None:
    """A prompt of 3 with samples of 2 and 4. The first reads 3 + 1 tokens (10 pairs); the second the prompt's last one and 3 of
    its own, which see 3, 4, 5 and 6."""
    first = 2 * (4 * 816 + 2 * 88) + 10 * PAIR
    second = 2 * (4 * 816 + 4 * 88) + 18 * PAIR
    assert generation_flops(SHAPE, [3, 3], [2, 4], is_first=np.array([True, False])) == first + second
    both = generation_flops(SHAPE, [3, 3], [2, 4], is_first=np.array([True, True]))
    assert both == first + second + 2 * 2 * 816 + 3 * PAIR


def test_token_by_token_is_one_pass() -> None:
    """Decoding 4 tokens after a prompt of 3: the prompt's pass, then one pass a token over a growing cache."""
    steps = forward_flops(SHAPE, [3], [1])
    for length in (4, 5, 6):
        steps += forward_flops(SHAPE, [length], [1], cached=[length - 1])
    assert generation_flops(SHAPE, [3], [4], is_first=np.array([True])) == steps


@pytest.mark.parametrize("tied", [True, False])
def test_torch_counts_the_same_in_a_real_model(tied: bool, tmp_path: Path) -> None:
    """torch counts all 49 pairs of 7 tokens, masked or not: 21 more than may be seen."""
    model = tiny_qwen(tied=tied, attn_implementation="eager")
    model.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path), "model.path")
    ids = torch.arange(7)[None] % VOCABULARY
    with FlopCounterMode(display=False) as forward:
        logits = model(ids).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    unseen = 21 * attention_flops(shape, [1])
    assert forward.get_total_flops() - unseen == forward_flops(shape, [7], [7])
    assert forward.get_total_flops() + backward.get_total_flops() - 3 * unseen == update_flops(shape, [7], [7])


def test_of_a_mixture_only_the_chosen_experts_work(tmp_path: Path) -> None:
    """Two layers of 4 experts of 3 x 32 x 48, of which 2 work on a token; one of the two layers has keys."""
    model = tiny_granite()
    model.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path), "model.path")
    stored = sum(parameter.numel() for parameter in model.parameters())
    assert shape.active_parameters == stored - 2 * 2 * (3 * 32 * 48)
    assert body_parameters(shape) == shape.active_parameters - VOCABULARY * 32  # tied: it is looked up and is the head
    assert attention_flops(shape, [3]) == 6 * 4 * 4 * 8
    assert kv_bytes_per_token(shape) == 2 * 1 * 2 * 8 * 2


def test_a_hybrid_of_which_the_active_parameters_are_stated() -> None:
    """Granite 4.0 Tiny: 1 B less embedding and head, keys in 4 of 40 layers; the scan is not counted."""
    shape = KNOWN["ibm-granite/granite-4.0-tiny-preview"]
    body = 1_000_000_000 - 2 * 49_160 * 1536
    assert forward_flops(shape, [100], [10]) == 2 * (100 * body + 10 * 49_160 * 1536) + 5050 * 4 * 12 * 128 * 4


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA H100 NVL", 835.5),
        ("NVIDIA H200", 989.0),
        ("NVIDIA H20", 148.0),
        ("NVIDIA GH200 480GB", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA GB200", 2500.0),
        ("NVIDIA L40S", 362.05),
        ("NVIDIA A10G", None),
        ("Tesla T4", None),
    ],
)
def test_cards_are_known_by_the_whole_of_their_name(card: str, tflops: float | None) -> None:
    assert peak_flops(card) == (None if tflops is None else tflops * 1e12)
