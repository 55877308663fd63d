"""Cut sequences into micro-batches, under a token budget or of a fixed count; the same number of them on every rank."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Plan = list[list[list[int]]]
"""[rank][micro-batch] -> positions of the sequences in it."""


def plan_micro_batches(lengths: Sequence[int], num_ranks: int, budget_tokens: int, *, packing: bool) -> Plan:
    """Distribute sequences over ranks, then over micro-batches of at most `budget_tokens`.

    A micro-batch costs the sum of its lengths when sequences are packed into one row, and its longest length times
    its count when they are padded. A sequence longer than the budget makes a micro-batch of its own. Every rank gets
    the same number of micro-batches, because ZeRO-3 gathers parameters collectively: the missing ones are empty lists.
    The largest micro-batch of a rank comes first, so that running out of memory shows at once.

    Deterministic. Ranks differ by at most the longest length in tokens (greedy, longest sequence first).

    Args:
        lengths: tokens of each sequence (prompt and response), all positive.
        num_ranks: data-parallel ranks.
        budget_tokens: tokens of one forward/backward.
        packing: whether the model reads packed rows.
    """
    if num_ranks < 1 or budget_tokens < 1:
        raise ValueError(f"num_ranks and budget_tokens must be positive, got {num_ranks} and {budget_tokens}")
    if any(length < 1 for length in lengths):
        raise ValueError("every length must be positive")
    cut = _first_fit if packing else _next_fit
    plan = [cut(positions, lengths, budget_tokens) for positions in _balance(lengths, num_ranks)]
    num_micro_batches = max(len(micro_batches) for micro_batches in plan)
    for micro_batches in plan:
        micro_batches += [[] for _ in range(num_micro_batches - len(micro_batches))]
    return plan


def plan_counted(num_sequences: int, num_ranks: int, per_micro_batch: int) -> Plan:
    """Distribute sequences as they come: dealt out to the ranks, then cut into micro-batches of `per_micro_batch`.

    Whoever wants random micro-batches shuffles before. The last micro-batch of a rank holds fewer where the count does not
    divide, and a rank with too few micro-batches gets empty ones.
    """
    if num_ranks < 1 or per_micro_batch < 1:
        raise ValueError(f"num_ranks and per_micro_batch must be positive, got {num_ranks} and {per_micro_batch}")
    shares = [list(range(rank, num_sequences, num_ranks)) for rank in range(num_ranks)]
    longest = max(map(len, shares))
    return [
        [share[start : start + per_micro_batch] for start in range(0, longest, per_micro_batch)] for share in shares
    ]


def _balance(lengths: Sequence[int], num_ranks: int) -> list[list[int]]:
    """Positions of each rank, longest first; each sequence goes to the rank with the fewest tokens so far."""
    ranks: list[list[int]] = [[] for _ in range(num_ranks)]
    fewest = [(0, 0, rank) for rank in range(num_ranks)]  # (tokens, sequences, rank): a heap, as it stands
    for position in sorted(range(len(lengths)), key=lambda p: (-lengths[p], p)):
        tokens, count, rank = fewest[0]
        ranks[rank].append(position)
        heapq.heapreplace(fewest, (tokens + lengths[position], count + 1, rank))
    return ranks


def _first_fit(positions: list[int], lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """First-fit decreasing bin packing: at most 11/9 of the fewest possible micro-batches, plus one."""
    micro_batches: list[list[int]] = []
    free: list[int] = []
    for position in positions:
        for index, room in enumerate(free):
            if lengths[position] <= room:
                micro_batches[index].append(position)
                free[index] -= lengths[position]
                break
        else:
            micro_batches.append([position])
            free.append(budget_tokens - lengths[position])
    return micro_batches


def _next_fit(positions: list[int], lengths: Sequence[int], budget_tokens: int) -> list[list[int]]:
    """Neighbours in length share a micro-batch, which keeps the padding small; `positions` come longest first."""
    micro_batches: list[list[int]] = []
    for position in positions:
        if micro_batches and lengths[micro_batches[-1][0]] * (len(micro_batches[-1]) + 1) <= budget_tokens:
            micro_batches[-1].append(position)
        else:
            micro_batches.append([position])
    return micro_batches
