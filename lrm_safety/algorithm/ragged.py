"""Ragged batches: N responses of different lengths stored one after the other in a flat tensor.

Everywhere in this package a batch is `lengths` (int64 `[N]`, every length >= 1) and per-token values are one flat
tensor `[total_tokens]` with `total_tokens == lengths.sum()`. Nothing is padded, so no mask can be wrong: in some model
families the pad token is the end-of-sequence token, and a mask guessed from token ids would drop a sampled token.

Sums are accumulated in float64 and returned in the dtype of the input, so that results do not depend on how the
responses are ordered (to float32 precision).
"""

from __future__ import annotations

import torch
from torch import Tensor


def check_ragged(values: Tensor, lengths: Tensor, name: str = "values") -> None:
    """Raise ValueError unless `values` is a flat `[lengths.sum()]` tensor and every length is at least 1."""
    if lengths.dim() != 1:
        raise ValueError(f"lengths must have shape [num_responses], got {list(lengths.shape)}")
    if lengths.numel() and int(lengths.min()) < 1:
        raise ValueError("every response needs at least one token: lengths holds a value below 1")
    if values.shape != (int(lengths.sum()),):
        raise ValueError(f"{name} must be flat with {int(lengths.sum())} tokens, got shape {list(values.shape)}")


def segment_ids(lengths: Tensor) -> Tensor:
    """Index of the response each token belongs to, int64 `[total_tokens]`."""
    return torch.repeat_interleave(torch.arange(lengths.numel(), device=lengths.device), lengths)


def last_token_index(lengths: Tensor) -> Tensor:
    """Flat position of every response's last token, int64 `[N]`."""
    return torch.cumsum(lengths, dim=0) - 1


def expand_to_tokens(per_response: Tensor, lengths: Tensor) -> Tensor:
    """Repeat one value per response `[N]` over its tokens, `[total_tokens]`."""
    return torch.repeat_interleave(per_response, lengths)


def segment_sum(values: Tensor, lengths: Tensor) -> Tensor:
    """Sum of every response's tokens: `[total_tokens]` -> `[N]`, same dtype."""
    check_ragged(values, lengths)
    totals = torch.zeros(lengths.numel(), dtype=torch.float64, device=values.device)
    return totals.index_add(0, segment_ids(lengths), values.double()).to(values.dtype)


def discounted_suffix_sum(values: Tensor, lengths: Tensor, gamma: float) -> Tensor:
    """`out_t = sum_{s >= t} gamma^(s - t) values_s`, inside each response; `[total_tokens]`, same dtype.

    A doubling scan: after round j every token holds the sum over its next 2^j tokens, so log2(max length) vector
    operations replace the loop over tokens. Unlike a reversed cumulative sum over the flat tensor minus the sum at
    the segment's end, no token ever meets a number of another response, hence no cancellation.
    """
    check_ragged(values, lengths)
    total = values.numel()
    sums = values.double()
    if total == 0:
        return values.clone()
    end = expand_to_tokens(last_token_index(lengths), lengths)
    tokens_left = end - torch.arange(total, device=values.device)
    longest = int(lengths.max())
    stride = 1
    while stride < longest:
        ahead = torch.zeros_like(sums)
        ahead[:-stride] = sums[stride:]
        sums = sums + gamma**stride * ahead.masked_fill(tokens_left < stride, 0.0)
        stride *= 2
    return sums.to(values.dtype)
