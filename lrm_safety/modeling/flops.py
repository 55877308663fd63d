"""Floating-point operations by a model's shape: of a forward pass, of an update, of sampling. Pure functions.

A multiplication and an addition are two operations. A token costs 2 for each weight that it is multiplied with (Kaplan et al.
2020, arXiv 2001.08361, table 1), and attention 4 x heads x head width for each pair of a query and a key that it may see: 2 for
their product, 2 for the weighted sum of the values. A backward pass costs two forward passes (Chowdhery et al. 2022, arXiv
2204.02311, appendix B: 6 N), one of them for the gradients of the weights, which frozen weights have none of.

These are the operations that the model needs, so that a share of the peak made of them is MFU and not HFU: what is recomputed
under checkpointing does not count. They are fewer than others count, whose MFU is higher for it: PaLM, Megatron-LM and verl take
every pair of a sequence, here a query sees only what stands before it; verl multiplies with the embedding, which is looked
up; and logits are made, as our workers do, of response tokens alone. Norms, biases, rotation and softmax are left out
everywhere, of Mamba layers the scan and the convolution, which are a few per cent of their projections.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .shapes import ModelShape, attention_layers

Counts = Sequence[int] | Sequence[float] | npt.NDArray[np.int64] | int
"""[sequences] of tokens, or one number for all; fractions where a plan knows means only."""


def head_parameters(shape: ModelShape) -> int:
    """Weights that make the logits of one token; those of a reward's single score are too few to count."""
    return shape.vocabulary * shape.hidden if shape.head else 0


def body_parameters(shape: ModelShape) -> int:
    """Weights that every token is multiplied with before the head. Of a dense model its projections; where `active_parameters`
    or `stated_parameters` are known instead, those without embedding and head."""
    known = shape.active_parameters or shape.stated_parameters
    if known is not None:
        return known - shape.vocabulary * shape.hidden * (1 if shape.tied or not shape.head else 2)
    query, key_value = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = shape.hidden * (query + 2 * key_value) + query * shape.hidden
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate)


def attention_flops(shape: ModelShape, lengths: Counts, cached: Counts = 0) -> float:
    """Scores and weighted sums over all attention layers; a sequence's first `cached` tokens are keys only.

    A layer with a sliding window is counted as if it had none.
    """
    last, first = np.asarray(lengths, dtype=np.float64), np.asarray(cached, dtype=np.float64)
    pairs = (last * (last + 1) - first * (first + 1)) / 2
    return float(4 * shape.heads * shape.head_dim * attention_layers(shape) * pairs.sum())


def forward_flops(
    shape: ModelShape, lengths: Counts, outputs: Counts, *, adapters: int = 0, cached: Counts = 0
) -> float:
    """One pass over sequences of `lengths` tokens, of which `cached` are in the KV cache, with logits at `outputs` of them.

    `adapters`: parameters of LoRA adapters beside the weights.
    """
    tokens = float((np.asarray(lengths, dtype=np.float64) - np.asarray(cached, dtype=np.float64)).sum())
    head = float(np.asarray(outputs, dtype=np.float64).sum()) * head_parameters(shape)
    return 2 * (tokens * (body_parameters(shape) + adapters) + head) + attention_flops(shape, lengths, cached)


def update_flops(shape: ModelShape, lengths: Counts, outputs: Counts, *, adapters: int = 0) -> float:
    """Forward and backward. With `adapters` the weights are frozen, and their backward pass is one forward pass instead of two."""
    forward = forward_flops(shape, lengths, outputs)
    if not adapters:
        return 3 * forward
    tokens = float(np.asarray(lengths, dtype=np.float64).sum())
    return 2 * forward + attention_flops(shape, lengths) + 6 * adapters * tokens


def generation_flops(
    shape: ModelShape, prompts: Counts, responses: Counts, *, is_first: npt.NDArray[np.bool_]
) -> float:
    """Sampling `responses` tokens after prompts of `prompts` tokens. `is_first` [sequences]: whether the engine reads the prompt;
    otherwise its keys and values are there from another sample, all but the last token's.

    The last sampled token is not read any more.
    """
    prompt, response = np.asarray(prompts, dtype=np.int64), np.asarray(responses, dtype=np.int64)
    return forward_flops(shape, prompt + response - 1, response, cached=np.where(is_first, 0, prompt - 1))
