from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from lrm_safety.errors import DataError
from lrm_safety.lab.reports.folders import read_series
from lrm_safety.monitoring.metrics_file import MetricsFile


def write(path: Path, *lines: object, end: str = "\n") -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + end)
    return path


def test_every_metric_by_update(tmp_path: Path) -> None:
    path = write(
        tmp_path / "metrics.jsonl",
        {"update": 0, "time": "now", "evaluation/safety": 0.25},
        {"update": 2, "train/loss": -1.5, "train/lr": 1},
        {"update": 2, "evaluation/safety": 0.75},
        {"update": 4, "train/loss": None},
    )
    assert read_series(path) == {
        "evaluation/safety": [(0, 0.25), (2, 0.75)],
        "train/loss": [(2, -1.5)],
        "train/lr": [(2, 1.0)],
    }


@pytest.mark.parametrize("torn", ['{"update": 3, "a/b": 1', "{", '{"update": 3, "a/b": 1}}'])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: str) -> None:
    path = write(tmp_path / "metrics.jsonl", {"update": 1, "a/b": 5.0}, torn, end="")
    assert read_series(path) == {"a/b": [(1, 5.0)]}


def test_a_torn_line_further_up_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", {"update": 1, "a/b": 5.0}, '{"update": 2, "a/', {"update": 3, "a/b": 6.0})
    with pytest.raises(DataError, match=r"metrics\.jsonl, line 2"):
        read_series(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        read_series(tmp_path / "absent.jsonl")
    assert read_series(write(tmp_path / "empty.jsonl", end="")) == {}


def test_what_the_recorder_wrote_comes_back(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", None)
    for update, loss in enumerate([0.5, math.nan, math.inf, 0.1 + 0.2]):
        file.append({"update": update, "train/loss": loss, "train/update": update})
    file.close()
    series = read_series(tmp_path / "metrics.jsonl")
    assert series["train/loss"] == [(0, 0.5), (3, 0.1 + 0.2)], "values that were not finite are left out"
    assert series["train/update"] == [(0, 0.0), (1, 1.0), (2, 2.0), (3, 3.0)]
