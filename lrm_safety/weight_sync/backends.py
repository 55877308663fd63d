"""What workers and engines agree on without vLLM: the weight-transfer backend, and that an engine ends with its worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Literal, Protocol

from ..errors import ClusterError
from ..settings import ClusterSettings, RolloutSettings

Backend = Literal["shm", "object_store", "nccl", "ipc"]


class SyncSettings(Protocol):
    """The settings that decide how weights travel."""

    @property
    def rollout(self) -> RolloutSettings: ...
    @property
    def cluster(self) -> ClusterSettings: ...


def is_colocated(cluster: ClusterSettings) -> bool:
    """Whether policy and rollout workers share their devices and take turns on them."""
    return any({"policy", "rollout"} <= set(names) for names in cluster.colocate)


def transfer_backend(settings: SyncSettings, num_nodes: int = 1) -> Backend:
    """`shm`, `object_store`, `nccl` or `ipc`: what `rollout.weight_transfer` names, or what its `auto` stands for.

    A trainer rank and an engine on one GPU cannot be two members of one NCCL communicator, hence `ipc` when they share.

    Args:
        num_nodes: how many nodes trainer ranks, engines and controller are on. The groups of a run count them and replace
            `auto` by the answer, so that a worker need not know.

    Raises:
        ClusterError: `shm` on several nodes, which share no memory.
    """
    named = settings.rollout.weight_transfer
    if named == "shm" and num_nodes > 1:
        raise ClusterError(
            f"rollout.weight_transfer=shm: policy, rollout and controller are on {num_nodes} nodes, which share no memory; "
            "use auto or object_store"
        )
    if named != "auto":
        return named
    if settings.cluster.device == "cpu":
        return "shm" if num_nodes == 1 else "object_store"
    return "ipc" if is_colocated(settings.cluster) else "nccl"


HOST_TENSORS = "host_tensors"
"""What vLLM calls the engine's end of `shm` and `object_store` (weight_sync/engine.py)."""


def engine_backend(settings: SyncSettings) -> str:
    """The backend's name in vLLM."""
    backend = transfer_backend(settings)
    return backend if backend in ("nccl", "ipc") else HOST_TENSORS


ENDS_WITH_WORKER = "LRM_SAFETY_ENGINE_ENDS_WITH_WORKER"
"""Environment variable of rollout workers whose engine has processes of its own; other users of vLLM do not set it."""


def end_with_parent() -> None:
    """Kill this process when the one that started it is gone, however that ended.

    vLLM's model workers watch their engine core, but the core watches nobody: an actor is killed without a word.
    """
    parent = multiprocessing.parent_process()
    if parent is None or ENDS_WITH_WORKER not in os.environ:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
