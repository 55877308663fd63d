"""Sequence parallelism (DeepSpeed Ulysses, Jacobs et al. 2023, arXiv:2309.14509): S ranks read one packed row together.

Outside attention every rank holds T/S tokens of the row. Inside it every rank holds all T tokens of H/S heads, so that
attention within sequences stays what it is on one rank: one all-to-all before it, and one after it.

DeepSpeed's own `UlyssesSPAttentionHF` was not taken: it exchanges query, key and value one by one and gathers positions in
every layer, finds borders of sequences in those alone, and refuses numbers of key-value heads that S neither divides nor is
divided by. Nor are its group hooks needed: losses are scaled by the counts of the whole update, and ZeRO-3 averages over all
ranks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.nn.functional import pad


@dataclass(frozen=True)
class SequenceGroup:
    """The ranks that read a row together, as one of them sees it."""

    ranks: ProcessGroup
    rank: int
    """Position within the group: which part of a row is this rank's."""
    size: int
    """S."""


class _Exchange(torch.autograd.Function):
    """Part i of the first axis goes to rank i, whose place it takes there is the sender's; its gradient comes back the same way."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, ranks: ProcessGroup) -> Tensor:
        ctx.ranks = ranks
        return _all_to_all(parts, ranks)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _all_to_all(gradients[0], ctx.ranks), None


def _all_to_all(parts: Tensor, ranks: ProcessGroup) -> Tensor:
    parts = parts.contiguous()
    received = torch.empty_like(parts)
    torch.distributed.all_to_all_single(received, parts, group=ranks)
    return received


def _exchange(parts: Tensor, group: SequenceGroup) -> Tensor:
    exchanged: Tensor = _Exchange.apply(parts, group.ranks)
    return exchanged


def to_heads(query: Tensor, key: Tensor, value: Tensor, group: SequenceGroup) -> tuple[Tensor, Tensor, Tensor]:
    """All heads of this rank's tokens, [1, heads, T/S, size] each -> all tokens of this rank's heads, [1, heads/S, T, size].

    S divides the query's heads. Of key and value, which may have fewer, each head is repeated as often as S needs, and goes to
    every rank whose query heads read it.
    """
    parts = [_by_rank(tensor, group.size) for tensor in (query, *(_repeated(one, group.size) for one in (key, value)))]
    exchanged = _exchange(torch.cat([part.flatten(2) for part in parts], dim=2), group).flatten(0, 1)
    columns = exchanged.split([math.prod(part.shape[2:]) for part in parts], dim=1)
    query, key, value = (
        one.unflatten(1, part.shape[2:]).transpose(0, 1)[None] for one, part in zip(columns, parts, strict=True)
    )
    return query, key, value


def to_tokens(attended: Tensor, group: SequenceGroup) -> Tensor:
    """What attention made: all tokens of this rank's heads, [1, T, heads/S, size] -> all heads of this rank's tokens,
    [1, T/S, heads, size]."""
    exchanged = _exchange(attended[0].unflatten(0, (group.size, -1)), group)
    return exchanged.transpose(0, 1).flatten(1, 2)[None]


def _by_rank(tensor: Tensor, size: int) -> Tensor:
    """[1, heads, t, size of a head] -> [S, t, heads/S, size of a head]."""
    return tensor[0].unflatten(0, (size, -1)).transpose(1, 2)


def _repeated(tensor: Tensor, size: int) -> Tensor:
    """Heads one after the other so often that S divides them; as S divides the query's heads, these divide those."""
    heads = tensor.shape[1]
    times = math.lcm(heads, size) // heads
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=1)


def gather_tokens(own: Tensor, counts: Sequence[int], group: SequenceGroup) -> Tensor:
    """[..., counts[rank]] of every rank of the group -> [..., sum of counts] on each of them.

    Only this rank's own values carry a gradient: every rank takes the whole loss of what it gathered, and its parameters get
    the share that passed through its tokens. The sum over the group is the gradient of one loss.
    """
    longest = max(counts)
    padded = pad(own.detach(), (0, longest - own.shape[-1]))
    parts = [torch.empty_like(padded) for _ in counts]
    torch.distributed.all_gather(parts, padded, group=group.ranks)
    whole = [part[..., :count] for part, count in zip(parts, counts, strict=True)]
    whole[group.rank] = own
    return torch.cat(whole, dim=-1)
