"""Attention within each sequence of a packed row: one kernel call a layer on CUDA, sequence by sequence elsewhere.

transformers' `sdpa` reads a packed row with a [T, T] block mask and so pays for T^2 whatever the lengths; causal attention
within each sequence costs the sum of the squares and needs no mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import transformers  # its names are looked up where they are used: the controller has no need of the code of models
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

from .sequence_parallel import SequenceGroup, to_heads, to_tokens

PACKED_ATTENTION = "packed_rows"
"""The name that transformers knows it by."""
READ_BY_SEQUENCE = {"full_attention", "sliding_attention"}
"""Kinds of layers that it can read; others get masks from transformers."""


@dataclass(frozen=True)
class Borders:
    """Where the N sequences of a packed row of T tokens begin and end."""

    lengths: tuple[int, ...]
    """Tokens of each sequence; they sum to T."""
    starts: Tensor
    """[N + 1] int32: 0, and the end of each sequence. On the row's device, so that no layer waits for a copy."""

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Borders:
        """Those of sequences that lie end to end."""
        starts = torch.tensor([0, *lengths]).cumsum(0)
        return cls(tuple(lengths), starts.to(device, torch.int32))

    def to(self, device: torch.device | str) -> Borders:
        """The same on another device."""
        return Borders(self.lengths, self.starts.to(device))


def attend_within(
    query: Tensor, key: Tensor, value: Tensor, borders: Borders, *, scale: float | None, window: int | None
) -> Tensor:
    """Causal attention that crosses no border: query [1, heads, T, size], key and value [1, fewer heads, T, size] ->
    [1, T, heads, size].

    Args:
        scale: of the scores; None: 1 / sqrt(size).
        window: a token sees itself and `window` - 1 tokens before it; None: all before it.
    """
    if has_varlen_kernel(query, value):
        from torch.nn.attention.varlen import varlen_attn  # with torch's compiler

        longest = max(borders.lengths)
        attended = varlen_attn(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            borders.starts,
            borders.starts,
            longest,
            longest,
            scale=scale,
            # Tokens to the left beside the token itself. A window that no sequence fills is none: a kernel less.
            window_size=(-1 if window is None or window >= longest else window - 1, 0),
            enable_gqa=query.shape[1] != key.shape[1],
        )
        assert isinstance(attended, Tensor)  # a tuple only where more is asked for
        return attended[None]
    parts = zip(*(tensor.split(borders.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    outputs = [_attend(*part, scale=scale, window=window) for part in parts]
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous()


def has_varlen_kernel(query: Tensor, value: Tensor) -> bool:
    """Whether torch's flash kernel for rows of several lengths takes these: it is CUDA's, of half precision, and of heads
    of at most 256 in steps of 8."""
    size = query.shape[-1]
    half = query.dtype in (torch.bfloat16, torch.float16)
    return query.is_cuda and half and size == value.shape[-1] and size <= 256 and size % 8 == 0


def _attend(query: Tensor, key: Tensor, value: Tensor, *, scale: float | None, window: int | None) -> Tensor:
    length = query.shape[2]
    if window is None or window >= length:
        return scaled_dot_product_attention(query, key, value, scale=scale, is_causal=True, enable_gqa=True)
    seen = torch.ones(length, length, dtype=torch.bool, device=query.device).tril().triu(1 - window)
    return scaled_dot_product_attention(query, key, value, attn_mask=seen, scale=scale, enable_gqa=True)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    borders: Borders | None = None,
    sequence: SequenceGroup | None = None,
    sliding_window: int | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """As transformers calls it; without `borders` the rows are padded, and with `sequence` query, key and value are this rank's
    part of a row. `sliding_window` is what it tells flash attention; some models (Qwen2Moe) tell it only to the mask, and keep
    it in the layer."""
    if borders is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    assert dropout == 0.0, "packed rows are read without dropout"
    window: int | None = getattr(module, "sliding_window", None) if sliding_window is None else sliding_window
    if sequence is None:
        return attend_within(query, key, value, borders, scale=scaling, window=window), None
    heads = to_heads(query, key, value, sequence)
    return to_tokens(attend_within(*heads, borders, scale=scaling, window=window), sequence), None


def _mask(*args: Any, attention_mask: Tensor | None = None, **kwargs: Any) -> Tensor | None:
    """No mask for packed rows, the usual one for padded rows."""
    from transformers.masking_utils import sdpa_mask

    return None if attention_mask is None else sdpa_mask(*args, attention_mask=attention_mask, **kwargs)


def attend_by_sequence(model: PreTrainedModel) -> bool:
    """Let a model under `sdpa` read packed rows by their `Borders`; returns whether its layers can be read so.

    Otherwise transformers finds the borders in the positions, and masks the whole row.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if config._attn_implementation != "sdpa" or not kinds <= READ_BY_SEQUENCE:
        return False
    transformers.AttentionInterface.register(PACKED_ATTENTION, _attention)
    transformers.AttentionMaskInterface.register(PACKED_ATTENTION, _mask)
    model.set_attn_implementation(PACKED_ATTENTION)
    return True


def reads_by_sequence(model: PreTrainedModel) -> bool:
    """Whether `attend_by_sequence` said so."""
    return bool(model.config.get_text_config()._attn_implementation == PACKED_ATTENTION)


def borders_for(
    model: PreTrainedModel, borders: Borders | None, sequence: SequenceGroup | None = None
) -> dict[str, Any]:
    """What to call the model with beside ids and positions: its attention's borders, where it reads them, and who has the other
    parts of the row."""
    if not reads_by_sequence(model) or borders is None:
        return {}
    return {"borders": borders} | ({} if sequence is None else {"sequence": sequence})
