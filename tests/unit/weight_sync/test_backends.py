"""Which backend `auto` stands for."""

from __future__ import annotations

import pytest

from lrm_safety.settings import Settings
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
    settings = Settings()
    settings.cluster.colocate = [["policy", "reference"], ["rollout", "reward"]]
    assert not is_colocated(settings)
    settings.cluster.colocate = [["policy", "reference", "rollout"]]
    assert is_colocated(settings)
