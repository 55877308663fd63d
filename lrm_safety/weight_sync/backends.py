"""What workers and engines agree on without vLLM: the weight-transfer backend, and that an engine ends with its worker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Protocol

from ..settings import ClusterSettings, RolloutSettings


class SyncSettings(Protocol):
    """The settings that decide how weights travel."""

    @property
    def rollout(self) -> RolloutSettings: ...
    @property
    def cluster(self) -> ClusterSettings: ...


def is_colocated(cluster: ClusterSettings) -> bool:
    """Whether policy and rollout workers share their devices and take turns on them."""
    return any({"policy", "rollout"} <= set(names) for names in cluster.colocate)


def transfer_backend(settings: SyncSettings) -> str:
    """`shm`, `nccl` or `ipc`: what `rollout.weight_transfer` names, or what its `auto` stands for on this cluster.

    A trainer rank and an engine on one GPU cannot be two members of one NCCL communicator, hence `ipc` when they share.
    """
    if settings.rollout.weight_transfer != "auto":
        return settings.rollout.weight_transfer
    if settings.cluster.device == "cpu":
        return "shm"
    return "ipc" if is_colocated(settings.cluster) else "nccl"


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
