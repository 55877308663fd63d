"""What leaves and comes back is what left; where it waits is set aside once."""

import torch
from torch import Tensor, nn

from lrm_safety.modeling.host_memory import HostBuffers

CPU = torch.device("cpu")


def learner() -> tuple[nn.Parameter, torch.optim.AdamW]:
    master = nn.Parameter(torch.linspace(-1, 1, 6))
    return master, torch.optim.AdamW([master], lr=0.1)


def step(master: nn.Parameter, optimizer: torch.optim.AdamW) -> None:
    master.grad = master.data.clone().sin()
    optimizer.step()


def tensors(master: nn.Parameter, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    return {"master": master} | dict(optimizer.state[master])


def test_an_optimiser_goes_on_as_if_it_had_stayed() -> None:
    stays, comes_back = learner(), learner()
    host = HostBuffers(pinned=False)
    waited_at = set()
    for _ in range(3):
        for one in (stays, comes_back):
            step(*one)
        host.move_out(tensors(*comes_back))
        waited_at.add(tuple(value.data_ptr() for value in tensors(*comes_back).values()))
        host.move_back(tensors(*comes_back), CPU)
    assert len(waited_at) == 1 and len(next(iter(waited_at))) == 4  # master, step, two moments
    for there, here in zip(tensors(*stays).values(), tensors(*comes_back).values(), strict=True):
        assert torch.equal(there, here)


def test_what_was_put_in_its_place_comes_back() -> None:
    """A checkpoint that is loaded meanwhile brings tensors of its own, which may have another shape."""
    master, optimizer = learner()
    step(master, optimizer)
    host = HostBuffers(pinned=False)
    host.move_out(tensors(master, optimizer))
    master.data = torch.arange(4.0)
    optimizer.state[master] = {"exp_avg": torch.ones(4)}
    host.move_back(tensors(master, optimizer), CPU)
    assert master.tolist() == [0, 1, 2, 3]
    host.move_out(tensors(master, optimizer))
    assert master.tolist() == [0, 1, 2, 3] and optimizer.state[master]["exp_avg"].tolist() == [1, 1, 1, 1]
