from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from recorders import RememberingConsole, recorder_of

from lrm_safety.errors import DataError
from lrm_safety.monitoring.metrics_file import MetricsFile
from lrm_safety.monitoring.rollout_files import RolloutRow
from lrm_safety.settings import Settings


def lines(folder: Path, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    text = (folder / name).read_text(encoding="utf-8")
    assert not text or text.endswith("\n")
    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def updates(folder: Path, name: str = "metrics.jsonl") -> list[int]:
    return [line["update"] for line in lines(folder, name)]


def test_a_record_is_on_disk_at_once(tmp_path: Path, settings: Settings) -> None:
    recorder = recorder_of(tmp_path, settings)
    recorder.record(0, {"evaluation/safety": 0.25})
    recorder.record(2, {"train/iteration": 1, "kl/k1": np.float32(0.5), "sync/version": np.int64(3)})
    recorder.record(2, {"evaluation/safety": 0.5})
    first, second, third = lines(tmp_path)
    assert (first["update"], first["iteration"], first["evaluation/safety"]) == (0, 0, 0.25)
    assert second == {
        "update": 2,
        "iteration": 1,
        "time": second["time"],
        "train/iteration": 1,
        "kl/k1": 0.5,
        "sync/version": 3,
        "train/update": 2,
    }
    assert third["iteration"] == 1
    assert first["time"] <= second["time"]
    recorder.close()


def test_numbers_that_are_not_finite_are_null_and_named(tmp_path: Path, settings: Settings) -> None:
    with recorder_of(tmp_path, settings) as recorder:
        recorder.record(1, {"train/loss": math.nan, "kl/k1": -math.inf, "train/lr": 1e-6})
    (line,) = lines(tmp_path)
    assert line["train/loss"] is None and line["kl/k1"] is None and line["train/lr"] == 1e-6
    assert line["nonfinite"] == ["train/loss", "kl/k1"]


def test_an_undeclared_metric_is_refused_and_nothing_is_written(tmp_path: Path, settings: Settings) -> None:
    with recorder_of(tmp_path, settings) as recorder, pytest.raises(AssertionError, match="kl/k9"):
        recorder.record(1, {"train/loss": 1.0, "kl/k9": 0.0})
    assert lines(tmp_path) == []


def test_resume_drops_what_is_done_again_and_keeps_it_aside(tmp_path: Path, settings: Settings) -> None:
    with recorder_of(tmp_path, settings) as recorder:
        for update in range(6):
            recorder.record(update, {"train/iteration": update // 2})
    with recorder_of(tmp_path, settings, state={"tracker_id": "abc"}, resume_update=3) as recorder:
        assert updates(tmp_path) == [0, 1, 2, 3]
        recorder.record(4, {"train/loss": 1.0})
        assert recorder.state() == {"tracker_id": "abc"}
    assert updates(tmp_path) == [0, 1, 2, 3, 4]
    assert lines(tmp_path)[-1]["iteration"] == 1
    assert updates(tmp_path, "metrics.dropped.jsonl") == [4, 5]


def test_a_fresh_run_starts_an_empty_file_and_rewind_works_within_a_process(tmp_path: Path, settings: Settings) -> None:
    with recorder_of(tmp_path, settings) as recorder:
        recorder.record(0, {})
        recorder.record(1, {})
    with recorder_of(tmp_path, settings) as recorder:
        assert lines(tmp_path) == []
        for update in (0, 1, 2):
            recorder.record(update, {})
        recorder.rewind(1)
        recorder.record(2, {"train/lr": 5.0})
        assert updates(tmp_path) == [0, 1, 2]
        recorder.rewind(None)
        assert lines(tmp_path) == []
    assert updates(tmp_path, "metrics.dropped.jsonl") == [0, 1, 2, 0, 1, 2]


@hypothesis_settings(deadline=None)  # fsync takes as long as the disk wants
@given(cut=st.integers(min_value=0, max_value=3 * 24))
def test_a_record_torn_anywhere_is_dropped_and_the_next_one_is_whole(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    file = MetricsFile(path, None)
    for update in range(3):
        file.append({"update": update, "x": 1.5})
    file.close()
    whole = path.read_bytes()
    kept = whole[: len(whole) - cut]
    path.write_bytes(kept)  # each line is 24 bytes: the next test
    file = MetricsFile(path, 99)
    # A line is whole with or without its newline.
    assert updates(path.parent) == [n for n in range(3) if len(kept) >= 24 * (n + 1) - 1]
    file.append({"update": 9})
    file.close()
    assert updates(path.parent)[-1] == 9


def test_the_line_length_that_the_test_above_counts_on(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", None)
    file.append({"update": 0, "x": 1.5})
    file.close()
    assert len((tmp_path / "metrics.jsonl").read_bytes()) == len('{"update": 0, "x": 1.5}\n')


def test_damage_in_the_middle_is_not_hidden(tmp_path: Path, settings: Settings) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"update": 0}\n{"upd\n{"update": 2}\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"metrics.jsonl, line 2"):
        recorder_of(tmp_path, settings, resume_update=5)
    assert (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").count("\n") == 3


def test_alarms_reach_the_console_once(tmp_path: Path, settings: Settings) -> None:
    console = RememberingConsole()
    with recorder_of(tmp_path, settings, console=console) as recorder:
        for update in range(3):
            recorder.record(update, {"train/gradient_norm": 50.0})
    assert len(console.notes) == 1
    assert "train/gradient_norm = 50" in console.notes[0]
    assert console.recorded[-1] == (2, {"train/gradient_norm": 50.0, "train/update": 2})
    assert console.closed == 1


def test_views_are_closed_when_training_raises(tmp_path: Path, settings: Settings) -> None:
    console = RememberingConsole()
    with pytest.raises(ZeroDivisionError), recorder_of(tmp_path, settings, console=console) as recorder:
        recorder.record(1 // 0, {})
    assert console.closed == 1


def test_rollouts_reach_a_file_only_when_text_is_wanted(
    tmp_path: Path, settings: Settings, make_row: Callable[..., RolloutRow]
) -> None:
    rows = [make_row(i, float(i)) for i in range(20)]
    with recorder_of(tmp_path, settings) as recorder:
        recorder.rollout_table(3, rows)
    assert not (tmp_path / "rollouts").exists()
    settings.tracking.log_text = True
    settings.tracking.table_rows = 2
    with recorder_of(tmp_path, settings) as recorder:
        recorder.rollout_table(3, rows)
    shown = lines(tmp_path / "rollouts", "update-000003.jsonl")
    assert [row["request_id"] for row in shown] == [0, 19]
    assert shown[0]["answer"] == "SECRET-ANSWER"
