"""The process of one ZeRO-3 rank, on the CPU (gloo) or on CUDA (nccl): its group, its random number generators, its memory."""

from __future__ import annotations

import os
import random
import resource
import socket
from datetime import timedelta
from pathlib import Path

import numpy as np
import psutil
import torch

from .. import credentials
from ..errors import ClusterError
from ..settings import ClusterSettings
from ..settings.system import INTERFACE_VARIABLES
from .sequence_parallel import SequenceGroup

GIB = 1024**3
LOOPBACK = "127.0.0.1"


def prepare_process(settings: ClusterSettings, seed: int) -> torch.device:
    """Seed every generator, bound the threads, and return this process's device (one visible GPU per process)."""
    credentials.load()
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if settings.device == "cpu":
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        return torch.device("cpu")
    torch.cuda.set_device(0)
    return torch.device("cuda", 0)


def join(settings: ClusterSettings, address: str, port: int, rank: int, world_size: int) -> None:
    """Join the process group; every rank calls. For the meeting and for each later collective it waits as
    long as the longer of `cluster.start_timeout_seconds` and `cluster.call_timeout_seconds`.

    Raises ClusterError where this node lacks `cluster.network_interface`.
    """
    os.environ.update(
        DS_ACCELERATOR=settings.device,
        MASTER_ADDR=address,
        MASTER_PORT=str(port),
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        # Each process sees one device of its own, which therefore has number 0 in it.
        LOCAL_RANK="0",
        LOCAL_SIZE="1",
    )
    backend = "nccl" if settings.device == "cuda" else "gloo"
    timeout = _timeout(settings)
    if settings.network_interface:
        address_of(settings.network_interface)
    if address == LOOPBACK:
        # Whatever `cluster.network_interface` says, which is about several nodes.
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    else:
        # Left alone, gloo asks what the host's name stands for, which on many machines is loopback.
        for variable in INTERFACE_VARIABLES:
            os.environ.setdefault(variable, interface_towards(address, port))
    store = meeting_store(address, port, rank, world_size, timeout)
    # Before DeepSpeed does it, which would bind the group to a device: torch then splits NCCL's communicator for every
    # later group, and a second communicator of the process, the weight transfer's, has been seen to hang beside that.
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=timeout)
    import deepspeed

    # This extension would be compiled on first use and serves only inference kernels that are not used here.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(dist_backend=backend, timeout=timeout, verbose=False)


def sequence_group(settings: ClusterSettings, size: int) -> SequenceGroup | None:
    """The `size` neighbouring ranks, this one among them, that read rows together; None where each reads its own. Every rank
    calls, after `join`."""
    if size == 1:
        return None
    ranks, _ = torch.distributed.new_subgroups(group_size=size, timeout=_timeout(settings))
    return SequenceGroup(ranks, torch.distributed.get_rank() % size, size)


def _timeout(settings: ClusterSettings) -> timedelta:
    return timedelta(seconds=max(settings.start_timeout_seconds, settings.call_timeout_seconds))


def interface_towards(address: str, port: int) -> str:
    """The interface of this machine from which packets to `address` leave: on the machine of that address, its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.connect((address, port))
        mine = datagrams.getsockname()[0]
    return next(name for name, all_of in psutil.net_if_addrs().items() if mine in [one.address for one in all_of])


def address_of(interface: str) -> str:
    """This machine's IPv4 address on an interface. Raises ClusterError where it has none."""
    interfaces = psutil.net_if_addrs()
    for one in interfaces.get(interface, []):
        if one.family == socket.AF_INET:
            return str(one.address)
    raise ClusterError(
        f"cluster.network_interface={interface}: node {socket.gethostname()} has no such interface with an IPv4 address, but "
        f"{', '.join(sorted(interfaces))}"
    )


def meeting_store(
    address: str, port: int, rank: int, world_size: int, timeout: timedelta
) -> torch.distributed.TCPStore:
    """The store that the ranks meet at, served by rank 0 on `address` alone.

    Torch's own rendezvous serves it on every interface, where whoever reaches the machine can read and write its keys.
    """
    if rank:
        return torch.distributed.TCPStore(address, port, world_size, False, timeout)
    listener = socket.create_server((address, port))
    return torch.distributed.TCPStore(address, port, world_size, True, timeout, master_listen_fd=listener.detach())


def release_cached_memory() -> None:
    """Give back what torch's allocator keeps on the GPU: whoever shares it cannot use it otherwise."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def all_reduce_sum(value: float, device: torch.device) -> float:
    """Sum of one number over all ranks; every rank calls."""
    total = torch.tensor([value], dtype=torch.float64, device=device)
    torch.distributed.all_reduce(total)
    return float(total.item())


def memory_usage() -> dict[str, float]:
    """`rss_gib` and `rss_peak_gib` of this process, and on CUDA `cuda_peak_gib`."""
    with open("/proc/self/statm", encoding="ascii") as stream:
        resident_pages = int(stream.read().split()[1])
    resident = resident_pages * resource.getpagesize()
    # The kernel brings its record of the peak up to date a little late.
    peak = max(resident, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    usage = {"rss_gib": resident / GIB, "rss_peak_gib": peak / GIB}
    if torch.cuda.is_available():
        usage["cuda_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    return usage


def save_generators(file: Path) -> None:
    """Write the states of torch (CPU, CUDA), numpy and Python as tensors and numbers, readable with weights_only."""
    numpy_state = np.random.get_state(legacy=False)
    states = {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy_key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
        "numpy_position": int(numpy_state["state"]["pos"]),
        "numpy_gauss": (int(numpy_state["has_gauss"]), float(numpy_state["gauss"])),
        "python": random.getstate(),
    }
    torch.save(states, file)


def load_generators(file: Path) -> None:
    """Set the generators to what `save_generators` wrote."""
    states = torch.load(file, weights_only=True)
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    key = states["numpy_key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, states["numpy_position"], *states["numpy_gauss"]))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
