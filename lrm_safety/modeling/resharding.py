"""ZeRO-3 state that some number of ranks wrote, cut anew for another number of them.

DeepSpeed cuts each parameter by itself: of n elements rank k of N holds those from k * ceil(n / N) on, ceil(n / N) of them, the
last ones padded. A rank stores its parts one after the other in flat tensors: float32 master weights, and AdamW's two moments.
Elements keep their order, so a rank of the new number copies what it holds out of the files of those that wrote it. These are
mapped into memory: of other ranks' parts only the pages that are copied are read.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import DataError

Sizes = Sequence[Mapping[str, int]]
"""Elements of each parameter by name, in the order of storage: one mapping for each flat tensor of a rank."""


@dataclass(frozen=True)
class Slice:
    """Elements that one rank wrote and another one reads."""

    source: int
    """The rank that wrote them."""
    start: int
    """The first one in that rank's part."""
    target: int
    """Its place in the part of the rank that reads."""
    length: int


def slices(numel: int, written_by: int, rank: int, world_size: int) -> list[Slice]:
    """Where rank `rank` of `world_size` finds its part of a parameter that `written_by` ranks have cut, in order."""
    theirs, mine = part_size(numel, written_by), part_size(numel, world_size)
    begin, end = rank * mine, min((rank + 1) * mine, numel)
    found = []
    for source in range(begin // theirs, written_by):
        first, last = max(begin, source * theirs), min(end, (source + 1) * theirs)
        if first < last:
            found.append(Slice(source, first - source * theirs, first - begin, last - first))
    return found


def part_size(numel: int, world_size: int) -> int:
    """Elements of one rank's part of a parameter, padding included."""
    return math.ceil(numel / world_size)


def sources(sizes: Sizes, written_by: int, rank: int, world_size: int) -> list[int]:
    """The ranks whose state a rank reads."""
    if written_by == world_size:
        return [rank]
    numels = {numel for group in sizes for numel in group.values()}
    return sorted({one.source for numel in numels for one in slices(numel, written_by, rank, world_size)}) or [0]


def recut(
    stored: Mapping[int, Sequence[Tensor]], before: Sizes, after: Sizes, written_by: int, rank: int, world_size: int
) -> list[Tensor]:
    """The flat tensors of rank `rank` of `world_size`, zeros where they are padded.

    Args:
        stored: the flat tensors of each rank that is read.
        before: what these hold.
        after: what the new ones are to hold; the flat tensors may be cut elsewhere, since DeepSpeed bounds their size.
    """
    places: dict[str, tuple[int, int]] = {}
    for number, group in enumerate(before):
        offset = 0
        for name, numel in group.items():
            places[name] = number, offset
            offset += part_size(numel, written_by)
    dtype = next(iter(stored.values()))[0].dtype
    flats = []
    for group in after:
        flat = torch.zeros(sum(part_size(numel, world_size) for numel in group.values()), dtype=dtype)
        offset = 0
        for name, numel in group.items():
            number, place = places[name]
            for one in slices(numel, written_by, rank, world_size):
                part = stored[one.source][number]
                flat[offset + one.target :][: one.length] = part[place + one.start :][: one.length]
            offset += part_size(numel, world_size)
        flats.append(flat)
    return flats


def trained_sizes(engine: Any) -> list[dict[str, int]]:
    """What the flat tensors of a DeepSpeed engine hold."""
    names = engine.param_names
    return [{names[parameter]: parameter.ds_numel for parameter in group} for group in engine.optimizer.fp16_groups]


def load_from_other_ranks(engine: Any, folder: Path, written_by: int) -> None:
    """Set weights, optimiser and counters of a DeepSpeed engine to what `written_by` ranks saved into `folder`; every rank calls.

    Call within `zero.weights_only`. Raises DataError where the state is of another model or of another number of ranks.
    """
    rank, world_size, after = engine.global_rank, engine.world_size, trained_sizes(engine)
    read = sources(after, written_by, rank, world_size)
    common = _mapped(folder, read[0], "model_states")
    before = [{name: math.prod(shape) for name, shape in group.items()} for group in common["param_shapes"]]
    if _all(before) != _all(after):
        raise DataError(f"{folder} holds the state of another model")
    states = {source: _mapped(folder, source, "optim_states")["optimizer_state_dict"] for source in read}
    first = states[read[0]]
    if first["partition_count"] != written_by:
        raise DataError(
            f"{folder} holds {written_by} of the {first['partition_count']} parts that its state was cut into"
        )

    def flats(stored: Mapping[int, Sequence[Tensor]]) -> list[Tensor]:
        return recut(stored, before, after, written_by, rank, world_size)

    optimizer = first["optimizer_state_dict"]
    masters = {source: state["fp32_flat_groups"] for source, state in states.items()}
    moments: dict[str, list[Any]] = {}
    for name, value in optimizer["state"][0].items():
        if torch.is_tensor(value) and value.shape == masters[read[0]][0].shape:
            held = {
                source: [state["optimizer_state_dict"]["state"][number][name] for number in range(len(before))]
                for source, state in states.items()
            }
            moments[name] = flats(held)
        else:  # the number of steps, which is one for all
            moments[name] = [value.clone() if torch.is_tensor(value) else value for _ in after]
    of_group = [engine.optimizer.sub_group_to_group_id[number] for number in range(len(after))]
    state = {
        **first,
        "partition_count": world_size,
        "fp32_flat_groups": flats(masters),
        "optimizer_state_dict": {
            "state": {
                number: {name: values[number] for name, values in moments.items()} for number in range(len(after))
            },
            "param_groups": [
                {**group, "params": [number for number, of in enumerate(of_group) if of == index]}
                for index, group in enumerate(optimizer["param_groups"])
            ],
        },
    }
    # What engine.load_checkpoint does around it, which refuses another number of ranks.
    engine.optimizer.checkpoint_event_prologue()
    buffers = {name: common["module"][name] for name in common["buffer_names"]}
    engine.module.load_state_dict(buffers, strict=False)
    engine.optimizer.load_state_dict({rank: state})
    engine.optimizer.checkpoint_event_epilogue()
    for counter in ("global_steps", "global_samples", "skipped_steps"):
        setattr(engine, counter, common[counter])


def _mapped(folder: Path, rank: int, kind: str) -> dict[str, Any]:
    """One file of a rank, its tensors mapped into memory."""
    files = list(folder.glob(f"*zero_pp_rank_{rank}_mp_rank_*_{kind}.pt"))
    if len(files) != 1:
        raise DataError(f"{folder} has {len(files)} files *zero_pp_rank_{rank}_*_{kind}.pt instead of one")
    content: dict[str, Any] = torch.load(files[0], map_location="cpu", mmap=True, weights_only=True)
    return content


def _all(sizes: Sizes) -> dict[str, int]:
    return {name: numel for group in sizes for name, numel in group.items()}
