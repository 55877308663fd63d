"""Which backend `auto` stands for."""

from __future__ import annotations

import pytest

from lrm_safety.settings import ClusterSettings, Settings
from lrm_safety.weight_sync.backends import is_colocated, transfer_backend


@pytest.mark.parametrize(
    ("device", "colocate", "stated", "expected"),
    [
        ("cpu", [], "auto", "shm"),
        ("cpu", [["policy", "rollout"]], "auto", "shm"),
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


def test_colocated_means_one_set_holds_both() -> None:
    assert not is_colocated(ClusterSettings(colocate=[["policy", "reference"], ["rollout", "reward"]]))
    assert is_colocated(ClusterSettings(colocate=[["policy", "reference", "rollout"]]))
