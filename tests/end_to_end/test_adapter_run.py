"""RL with LoRA whose weight syncs bring adapters alone, beside the same run with merged weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Command, metric_lines

pytestmark = pytest.mark.timeout(1200)
LORA = (
    *(one for one in TINY if not one.startswith("trainer.lr=")),
    "trainer=zero3_lora",
    "trainer.lr=1e-3",
    "schedule.max_updates=6",
)


def test_adapters_alone_train_as_merged_weights_do(command: Callable[..., Command], tmp_path: Path) -> None:
    """The first iteration samples the same, since B is zero; later ones to rounding, in which a token of some response may flip."""
    outputs = []
    for sync in ("adapters", "merged"):
        started = command("train", *LORA, f"trainer.lora.sync={sync}", f"run.directory={tmp_path}/{sync}")
        assert started.wait() == 0, started.output
        outputs.append(" ".join(started.output.split()))
    assert "LoRA adapters alone" in outputs[0] and "LoRA adapters alone" not in outputs[1]
    one, two = metric_lines(tmp_path / "adapters"), metric_lines(tmp_path / "merged")
    assert [line["update"] for line in one] == [line["update"] for line in two] == [2, 4, 6]
    assert [line["sync/version"] for line in one] == [2, 3, 4]
    assert all(line["sync/probe_max_abs"] < 1e-4 for line in (*one, *two))
    for name in ("reward/raw_mean", "response/length_mean", "train/gradient_norm"):
        assert one[0][name] == pytest.approx(two[0][name], rel=1e-4)
    for a, b in zip(one, two, strict=True):
        assert a["response/length_mean"] == pytest.approx(b["response/length_mean"], rel=0.1)
