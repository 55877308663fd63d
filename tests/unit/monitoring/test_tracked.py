"""W&B's run of a command that measures: figures, their table, the same run when it goes on, an alert when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_wandb_view import clean_environment, of_kind, read  # noqa: F401

from lrm_safety.errors import JudgeError
from lrm_safety.monitoring.tracked import figure_rows, log_results, tracked
from lrm_safety.settings.system import TrackerSettings

FIGURE = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
RESULTS = {
    "evaluation": {"attaq": {"safety/rules/full": FIGURE}},
    "reflection": {"cells": [{"model": "rl", "num_tokens": 7, "temperature": 0.6, "figures": {"entropy": FIGURE}}]},
}


def test_figures_are_found_wherever_they_stand() -> None:
    assert list(figure_rows(RESULTS)) == [
        {"figure": "evaluation/attaq/safety/rules/full", **FIGURE},
        {"figure": "reflection/cells/rl/temperature=0.6/figures/entropy", **FIGURE},
    ]


@pytest.mark.usefixtures("clean_environment")
def test_figures_of_a_command_in_an_offline_run(tmp_path: Path) -> None:
    tracking = TrackerSettings(wandb="offline", tags=["t"])
    samples = [{"prompt": "p", "answer": "a"}]
    for _ in range(2):
        log_results(tmp_path, "a name", tracking, "evaluate", {"seed": 3}, RESULTS, {"evaluation/attaq": 0.5}, samples)
    (first, records), (second, _) = read(tmp_path)
    assert first == second, "the same command in the same folder goes on with its run"
    run = of_kind(records, "run")[0]
    assert (run.display_name, run.job_type, list(run.tags)) == ("a name", "evaluate", ["t"])
    summary = {
        item.key or ".".join(item.nested_key): json.loads(item.value_json)
        for record in of_kind(records, "summary")
        for item in record.update
    }
    assert summary["evaluation/attaq"] == summary["evaluation/attaq/safety/rules/full"] == 0.5
    tables = [json.loads(path.read_text()) for path in tmp_path.glob("wandb/*/files/media/table/*.json")]
    assert ["figure", "value", "low", "high", "n"] in [table["columns"] for table in tables]
    assert ["prompt", "answer"] in [table["columns"] for table in tables]


@pytest.mark.usefixtures("clean_environment")
def test_a_failure_is_an_alert(tmp_path: Path) -> None:
    with pytest.raises(JudgeError), tracked(tmp_path, "n", TrackerSettings(), "reward", {}):
        raise JudgeError("no verdict came")
    ((_, records),) = read(tmp_path)
    (alert,) = of_kind(records, "alert")
    assert (alert.title, alert.text, alert.level) == ("n failed", "no verdict came", "ERROR")
    assert [record.exit_code for record in of_kind(records, "exit")] == [1]


def test_disabled_writes_nothing(tmp_path: Path) -> None:
    log_results(tmp_path, "n", TrackerSettings(wandb="disabled"), "evaluate", {}, RESULTS)
    assert not list(tmp_path.iterdir())
