"""The dashboard that is shipped, read as Grafana and Prometheus read it, against the registry."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from lrm_safety.monitoring.grafana import gauge_name, member
from lrm_safety.monitoring.registry import METRICS, find

EXPRESSION = re.compile(r'ray_(lrm_safety_[a-z0-9_]+)\{run=~"\$run"\}')


@pytest.fixture(scope="module")
def page(repository_root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((repository_root / "launchers/grafana/dashboard.json").read_text())
    return loaded


@pytest.fixture(scope="module")
def panels(page: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows, and panels inside rows that are closed."""
    return [one for panel in page["panels"] for one in (panel, *panel.get("panels", ()))]


def test_every_metric_is_drawn_and_nothing_else_is_asked_for(panels: list[dict[str, Any]]) -> None:
    asked = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    assert all(EXPRESSION.fullmatch(expression) for expression in asked)
    names = {expression.removeprefix("ray_").partition("{")[0] for expression in asked}
    declared = ["lrm_safety_" + re.sub("[^a-z0-9]+", "_", one.name).strip("_") for one in METRICS]
    assert len(set(declared)) == len(METRICS), "two metrics would share one gauge"
    assert names == set(declared)


def test_panels_have_numbers_of_their_own_and_lie_side_by_side(
    page: dict[str, Any], panels: list[dict[str, Any]]
) -> None:
    numbers = [panel["id"] for panel in panels]
    assert len(set(numbers)) == len(numbers)
    covered: set[tuple[int, int]] = set()
    for panel in page["panels"]:
        at = panel["gridPos"]
        squares = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in squares) < 24 and not squares & covered, panel["title"]
        covered |= squares


def test_runs_and_the_data_source_are_chosen_on_the_page(page: dict[str, Any], panels: list[dict[str, Any]]) -> None:
    variables = {one["name"]: one for one in page["templating"]["list"]}
    assert variables["source"]["type"] == "datasource" and variables["run"]["multi"]
    assert re.fullmatch(r"label_values\(ray_lrm_safety_train_update, run\)", variables["run"]["query"])
    assert {one["datasource"]["uid"] for one in panels if one["type"] == "timeseries"} == {"${source}"}


@pytest.mark.parametrize(
    ("name", "gauge", "label"),
    [
        ("train/loss", "lrm_safety_train_loss", ""),
        ("reward/score/skywork/answer", "lrm_safety_reward_score", "skywork/answer"),
        ("memory/policy_0_rss_peak_gib", "lrm_safety_memory_rss_peak_gib", "policy_0"),
        ("evaluation/attaq/rate/no_trace", "lrm_safety_evaluation", "attaq/rate/no_trace"),
    ],
)
def test_names_and_labels(name: str, gauge: str, label: str) -> None:
    metric = find(name)
    assert (gauge_name(metric), member(metric, name)) == (gauge, label)
