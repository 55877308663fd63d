"""Prints docs/metrics.md from the registry."""

from __future__ import annotations

from pathlib import Path

from .alarms import healthy_range
from .registry import Metric, by_group

_INTRODUCTION = """# Metrics

<!-- Written from lrm_safety/monitoring/registry.py by `python -m lrm_safety.monitoring.document docs/metrics.md` -->

Every run writes `metrics.jsonl` in its folder: one JSON object a line with `update`, `iteration`, `time` (seconds since
the epoch) and the metrics below. A number that is not finite is `null`, and `nonfinite` lists its name. W&B and the
console are views of the same records. `*` stands for names that the configuration gives, such as a
reward model or a worker.

Outside its healthy range a metric raises an alarm: one line on the console and a W&B alert. It is a reason to look; it
never stops the run."""


def markdown() -> str:
    """The page as text."""
    parts = [_INTRODUCTION]
    for group, description, metrics in by_group():
        rows = ["| name | unit | healthy | meaning |", "|---|---|---|---|", *map(_row, metrics)]
        parts.append("\n".join([f"## {group}", "", description, "", *rows]))
    return "\n\n".join(parts) + "\n"


def _row(metric: Metric) -> str:
    description = metric.description.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.unit} | {healthy_range(metric)} | {description} |"


def write(path: Path) -> None:
    """Write the page to `path`."""
    path.write_text(markdown(), encoding="utf-8")


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[1]))
