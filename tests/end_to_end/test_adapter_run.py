"""RL with LoRA whose weight syncs bring adapters alone, beside the same run with merged weights, and resumed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from running import TINY, Command, assert_same_run, metric_lines, rollout_hashes

pytestmark = pytest.mark.timeout(1200)
LORA = (*TINY, "trainer=zero3_lora", "trainer.lr=1e-3", "schedule.max_updates=6")


def finished(started: Command) -> Command:
    assert started.wait() == 0, started.output
    return started


def test_adapters_alone_train_as_merged_weights_do(command: Callable[..., Command], tmp_path: Path) -> None:
    """The first iteration is the same to the last bit, since B is zero; later ones to rounding, in which a token may flip."""
    alone = finished(command("train", *LORA, f"run.directory={tmp_path}/alone"))
    finished(command("train", *LORA, "trainer.lora.sync=merged", f"run.directory={tmp_path}/merged"))
    assert "of a sync LoRA adapters alone" in alone.stdout
    one, two = metric_lines(tmp_path / "alone"), metric_lines(tmp_path / "merged")
    assert [line["update"] for line in one] == [line["update"] for line in two] == [2, 4, 6]
    assert [line["sync/version"] for line in one] == [2, 3, 4]
    assert all(line["sync/probe_max_abs"] < 1e-4 for line in (*one, *two))
    hashes = [rollout_hashes(tmp_path / name) for name in ("alone", "merged")]
    first, *later = sorted(hashes[0])
    assert hashes[0][first] == hashes[1][first]
    for name in later:
        assert sum(a == b for a, b in zip(hashes[0][name], hashes[1][name], strict=True)) >= 14, "of 16"
    for a, b in zip(one, two, strict=True):
        assert a["train/loss"] == pytest.approx(b["train/loss"], abs=0.02)
        assert a["reward/raw_mean"] == pytest.approx(b["reward/raw_mean"], abs=0.1)

    started = command("train", *LORA, "schedule.stop_after_updates=2", f"run.directory={tmp_path}/resumed")
    started.wait()
    finished(command("train", *LORA, f"run.directory={tmp_path}/resumed"))
    assert_same_run(tmp_path / "resumed", tmp_path / "alone")
