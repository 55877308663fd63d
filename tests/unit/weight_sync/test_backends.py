"""Which backend `auto` stands for."""

from __future__ import annotations

import pytest

from lrm_safety.errors import ClusterError
from lrm_safety.settings import ClusterSettings, Settings
from lrm_safety.weight_sync.backends import is_colocated, transfer_backend


@pytest.mark.parametrize(
    ("device", "colocate", "stated", "expected"),
    [
        ("cpu", [], "auto", "shm"),
        ("cpu", [["policy", "rollout"]], "auto", "shm"),
        ("cpu", [], "object_store", "object_store"),
        ("cuda", [], "auto", "nccl"),
        ("cuda", [["reference", "reward"]], "auto", "nccl"),
        ("cuda", [["reward"], ["rollout", "reference", "policy"]], "auto", "ipc"),
        ("cuda", [["policy", "rollout"]], "nccl", "nccl"),
    ],
)
def test_choice(device: str, colocate: list[list[str]], stated: str, expected: str) -> None:
    settings = Settings()
    settings.cluster.device, settings.cluster.colocate = device, colocate
    settings.rollout.weight_transfer = stated
    assert transfer_backend(settings) == expected


def test_several_nodes_share_no_memory() -> None:
    settings = Settings()
    settings.cluster.device = "cpu"
    assert transfer_backend(settings, num_nodes=2) == "object_store"
    settings.rollout.weight_transfer = "shm"
    assert transfer_backend(settings, num_nodes=1) == "shm"
    with pytest.raises(ClusterError, match=r"weight_transfer=shm: .* 2 nodes, which share no memory; use auto"):
        transfer_backend(settings, num_nodes=2)
    settings.cluster.device, settings.rollout.weight_transfer = "cuda", "auto"
    assert transfer_backend(settings, num_nodes=2) == "nccl"


def test_colocated_means_one_set_holds_both() -> None:
    assert not is_colocated(ClusterSettings(colocate=[["policy", "reference"], ["rollout", "reward"]]))
    assert is_colocated(ClusterSettings(colocate=[["policy", "reference", "rollout"]]))
