"""The metrics as Prometheus knows them, and Grafana's dashboard of them: launchers/grafana/dashboard.json, generated.

The page that Ray's agent of the controller's node serves is filled by workers/prometheus.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .registry import METRICS, Metric, by_group

PREFIX = "ray_"
"""What Ray puts before the name of every metric that is not its own."""
RUN, MEMBER = "run", "member"
"""Labels: the run's name, and what stands for the `*` of a family's name."""
WIDTH, HEIGHT, COLUMNS = 8, 7, 24
"""Of a panel and of the page, in Grafana's grid."""
UNITS = {"seconds": "s", "fraction": "percentunit", "GiB": "gbytes", "tokens/s": "short"}
"""Grafana's names of ours; all others are plain numbers."""


def gauge_name(metric: Metric) -> str:
    """`lrm_safety_reward_score` of `reward/score/*`: letters, digits and underscores alone, as Prometheus wants it."""
    return "lrm_safety_" + re.sub(r"[^a-zA-Z0-9]+", "_", metric.name).strip("_")


def member(metric: Metric, name: str) -> str:
    """What stands in `name` for the `*` of the metric's; empty where it has none."""
    found = re.fullmatch(re.escape(metric.name).replace(r"\*", "(.*)"), name)
    return found[1] if found and metric.is_pattern else ""


@dataclass(frozen=True)
class Panel:
    """One picture: a title and the metrics in it."""

    title: str
    metrics: tuple[str, ...]
    stacked: bool = False


OVERVIEW = (
    Panel(
        "throughput", tuple(f"speed/{phase}tokens_per_second" for phase in ("", "generate_", "logprobs_", "update_"))
    ),
    Panel("share of the time at work", tuple(one.name for one in METRICS if one.name.startswith("speed/busy_"))),
    Panel(
        "seconds of an iteration, by phase",
        tuple(one.name for one in METRICS if one.group == "time" and one.name != "time/iteration_seconds"),
        stacked=True,
    ),
    Panel("what the run had to survive", ("run/restarts", "run/worker_replacements")),
    Panel("waiting", ("queue/*",)),
    Panel("evaluation", ("evaluation/*",)),
    Panel("reward", ("reward/raw_mean", "reward/shaped_mean")),
    Panel("KL to the reference", ("kl/k1", "kl/k3")),
    Panel("entropy", ("entropy/all", "entropy/trace", "entropy/answer", "entropy/reflection")),
    Panel("response length", ("response/length_mean", "response/length_max")),
)
"""What is looked at first; the other metrics stand below it, a closed row for each section of docs/metrics.md."""


def dashboard() -> str:
    """The dashboard as JSON, for Grafana's import; the data source and the runs are chosen on the page."""
    panels = list(_placed(_rows()))
    label = {"type": "prometheus", "uid": "${source}"}
    variables = [
        {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
        {
            "name": RUN,
            "label": "run",
            "type": "query",
            "datasource": label,
            "query": f"label_values({PREFIX}lrm_safety_train_update, {RUN})",
            "multi": True,
            "includeAll": True,
            "current": {"text": "All", "value": "$__all"},
            "refresh": 2,
        },
    ]
    page = {
        "title": "lrm_safety",
        "uid": "lrm-safety",
        "tags": ["ray", "rlhf"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": variables},
        "panels": panels,
    }
    return json.dumps(page, indent=1) + "\n"


def _rows() -> Iterator[tuple[str, list[Panel]]]:
    """Title and panels of each row; of the first one the row is open."""
    yield "overview", list(OVERVIEW)
    for group, _, metrics in by_group():
        yield group, [Panel(metric.name, (metric.name,)) for metric in metrics]


def _placed(rows: Iterator[tuple[str, list[Panel]]]) -> Iterator[dict[str, Any]]:
    """Every row and panel with its number and place on the page. The panels of a closed row stand inside it."""
    top, number = 0, 0
    for position, (title, panels) in enumerate(rows):
        number += 1
        row = {"type": "row", "title": title, "collapsed": position > 0, "id": number, "panels": []}
        row["gridPos"] = {"x": 0, "y": top, "w": COLUMNS, "h": 1}
        drawn = []
        for place, panel in enumerate(panels):
            number += 1
            across, down = place % (COLUMNS // WIDTH), place // (COLUMNS // WIDTH)
            at = {"x": across * WIDTH, "y": top + 1 + down * HEIGHT, "w": WIDTH, "h": HEIGHT}
            drawn.append(_drawn(panel, number, at))
        if position:
            yield row | {"panels": drawn}
            top += 1
        else:
            yield row
            yield from drawn
            top += 1 + HEIGHT * -(-len(panels) // (COLUMNS // WIDTH))


def _drawn(panel: Panel, number: int, at: dict[str, int]) -> dict[str, Any]:
    metrics = [next(one for one in METRICS if one.name == name) for name in panel.metrics]
    unit = UNITS.get(metrics[0].unit, "short")
    stacking = {"mode": "normal" if panel.stacked else "none"}
    custom = {"stacking": stacking, "fillOpacity": 40 if panel.stacked else 0, "showPoints": "auto"}
    return {
        "type": "timeseries",
        "title": panel.title,
        "description": " ".join(f"{one.name}: {one.description}" for one in metrics),
        "id": number,
        "gridPos": at,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "fieldConfig": {"defaults": {"unit": unit, "custom": custom}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + position),
                "expr": f'{PREFIX}{gauge_name(one)}{{{RUN}=~"$run"}}',
                "legendFormat": " ".join(
                    filter(
                        None, ("{{run}}", one.name if len(metrics) > 1 else "", "{{member}}" if one.is_pattern else "")
                    )
                ),
            }
            for position, one in enumerate(metrics)
        ],
    }
