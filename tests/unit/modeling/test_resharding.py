"""Which elements of a sharded state go where when the number of ranks changes. Real ranks: integration/test_policy_worker.py."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from lrm_safety.modeling.resharding import Slice, recut, slices, sources


def cut(groups: list[dict[str, Tensor]], world_size: int) -> dict[int, list[Tensor]]:
    """The flat tensors of every rank, as DeepSpeed cuts them; what pads a part is not a number, since nobody may read it."""
    ranks: dict[int, list[Tensor]] = {}
    for rank in range(world_size):
        ranks[rank] = []
        for group in groups:
            parts = []
            for value in group.values():
                length = math.ceil(len(value) / world_size)
                padded = torch.nn.functional.pad(value, (0, length * world_size - len(value)), value=math.nan)
                parts.append(padded[rank * length : (rank + 1) * length])
            ranks[rank].append(torch.cat(parts))
    return ranks


def test_slices_worked_out_by_hand() -> None:
    """Ten elements: two ranks hold 0-4 and 5-9, three hold 0-3, 4-7 and 8-9, four 0-2, 3-5, 6-8 and 9."""
    assert slices(10, 2, 1, 3) == [Slice(0, 4, 0, 1), Slice(1, 0, 1, 3)]
    assert slices(10, 3, 1, 2) == [Slice(1, 1, 0, 3), Slice(2, 0, 3, 2)]
    assert slices(10, 4, 0, 1) == [Slice(0, 0, 0, 3), Slice(1, 0, 3, 3), Slice(2, 0, 6, 3), Slice(3, 0, 9, 1)]
    assert slices(1, 2, 1, 3) == [], "a rank whose part is all padding reads nothing"


def test_a_rank_reads_the_ranks_that_hold_its_part() -> None:
    sizes = [{"a": 1000}, {"b": 10}]
    assert [sources(sizes, 4, rank, 2) for rank in range(2)] == [[0, 1], [1, 2, 3]]
    assert [sources(sizes, 4, rank, 4) for rank in range(4)] == [[0], [1], [2], [3]]
    assert [sources([{"a": 1000}], 2, rank, 4) for rank in range(4)] == [[0], [0], [1], [1]]


def test_a_chain_of_numbers_of_ranks_loses_nothing() -> None:
    """Sizes that pad and sizes smaller than the number of ranks; flat tensors that are cut elsewhere for every number."""
    generator = torch.Generator().manual_seed(1)
    values = {f"p{size}": torch.randn(size, generator=generator) for size in (1, 2, 5, 12, 97, 1000)}
    names = list(values)
    chain = [(2, (3,)), (1, ()), (3, (2, 4)), (7, (1,)), (2, (3,))]

    def grouped(bounds: tuple[int, ...]) -> list[dict[str, Tensor]]:
        edges = (0, *bounds, len(names))
        return [{n: values[n] for n in names[a:b]} for a, b in itertools.pairwise(edges)]

    def sizes(groups: list[dict[str, Tensor]]) -> list[dict[str, int]]:
        return [{name: len(value) for name, value in group.items()} for group in groups]

    held = cut(grouped(chain[0][1]), chain[0][0])
    for (ranks, bounds), (others, other_bounds) in itertools.pairwise(chain):
        before, after = sizes(grouped(bounds)), sizes(grouped(other_bounds))
        expected = cut(grouped(other_bounds), others)
        read = {rank: sources(after, ranks, rank, others) for rank in range(others)}
        held = {
            rank: recut({one: held[one] for one in read[rank]}, before, after, ranks, rank, others)
            for rank in range(others)
        }
        for rank, flats in expected.items():
            for flat, ours in zip(flats, held[rank], strict=True):
                assert torch.equal(torch.nan_to_num(flat, 0.0), ours), "padding is zero, the rest to the bit"
