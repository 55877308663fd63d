from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from lrm_safety.monitoring.metrics_file import MetricsFile
from lrm_safety.monitoring.metrics_page import metrics_page
from lrm_safety.monitoring.progress import PHASES
from lrm_safety.monitoring.registry import GROUPS, METRICS, find


def test_names_are_unique_and_every_group_is_described() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    assert {metric.group for metric in METRICS} == set(GROUPS)


def test_every_phase_has_its_metric() -> None:
    for name in (*PHASES, "startup", "iteration", "controller"):
        assert find(f"time/{name}_seconds").unit == "seconds"


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("kl/k1", "kl/k1"),
        ("reward/score/skywork/full", "reward/score/*"),
        ("evaluation/safety", "evaluation/*"),
        ("memory/policy_0_rss_gib", "memory/*_rss_gib"),
        ("memory/rollout_1_cuda_peak_gib", "memory/*_cuda_peak_gib"),
        ("memory/policy_0_rss_peak_gib", "memory/*_rss_peak_gib"),
    ],
)
def test_find(name: str, declared: str) -> None:
    assert find(name).name == declared


@pytest.mark.parametrize("name", ["kl/k4", "reward/score", "memory/policy_0_gib", "loss", "reward/score/*"])
def test_an_undeclared_name_is_our_mistake(name: str) -> None:
    with pytest.raises(AssertionError, match="not declared"):
        find(name)


def test_ranges_are_closed_and_exclude_what_is_not_a_number() -> None:
    ratio = find("train/ratio_mean")
    assert [ratio.healthy(x) for x in (0.89, 0.9, 1.1, 1.11)] == [False, True, True, False]
    assert not find("train/loss").healthy(math.nan)
    assert not find("train/loss").healthy(-math.inf)
    assert find("train/loss").healthy(-1e30)


def test_the_page_has_one_row_of_four_cells_per_metric() -> None:
    rows = [line for line in metrics_page().splitlines() if line.startswith("| `")]
    assert len(rows) == len(METRICS)
    assert all(line.replace(r"\|", "").count("|") == 5 for line in rows)


def test_the_lines_of_pandas_on_the_page_give_one_row_an_update(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Updates 0 and 2 were evaluated; a figure that was no number is null in its line."""
    monkeypatch.chdir(tmp_path)
    file = MetricsFile(tmp_path / "outputs" / "miniature" / "metrics.jsonl", None)
    file.append({"update": 0, "iteration": 0, "time": 1.0, "evaluation/safety": 0.25})
    file.append({"update": 2, "iteration": 1, "time": 2.0, "train/loss": 0.5, "kl/k1": math.nan})
    file.append({"update": 2, "iteration": 1, "time": 3.0, "evaluation/safety": 0.75})
    file.append({"update": 4, "iteration": 2, "time": 4.0, "train/loss": -0.5, "kl/k1": 0.125})
    file.close()
    (snippet,) = re.findall(r"```python\n(.*?)```", metrics_page(), re.DOTALL)
    assert len([line for line in snippet.splitlines() if line]) <= 3
    found: dict[str, Any] = {}
    exec(snippet, found)
    metrics = found["metrics"]
    assert metrics.index.tolist() == [0, 2, 4]
    assert metrics["evaluation/safety"].dropna().to_dict() == {0: 0.25, 2: 0.75}
    assert metrics["train/loss"].dropna().to_dict() == {2: 0.5, 4: -0.5}
    assert metrics["kl/k1"].dropna().to_dict() == {4: 0.125}
    assert metrics["iteration"].tolist() == [0, 1, 2]
