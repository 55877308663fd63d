"""Which of vLLM's weight-transfer backends a run uses."""

from __future__ import annotations

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
