"""Metrics outside their healthy range, said in one line each and not over and over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .registry import Metric, find


@dataclass(frozen=True)
class Alarm:
    """One metric that left its healthy range."""

    name: str
    value: float
    text: str
    """One line for people."""


class Alarms:
    """Checks records against the registry; one metric is reported at most once per `quiet_updates` updates."""

    def __init__(self, quiet_updates: int = 20) -> None:
        self._quiet_updates = quiet_updates
        self._reported: dict[str, int] = {}

    def fresh(self, update: int, metrics: Mapping[str, float]) -> list[Alarm]:
        """The alarms of a record that were not reported within the last `quiet_updates` updates."""
        alarms = []
        for alarm in unhealthy(metrics):
            last = self._reported.get(alarm.name)
            if last is None or not 0 <= update - last < self._quiet_updates:
                self._reported[alarm.name] = update
                alarms.append(alarm)
        return alarms


def unhealthy(metrics: Mapping[str, float]) -> list[Alarm]:
    """All metrics outside their healthy range, in the order given; NaN and infinities are always outside."""
    found = ((find(name), name, value) for name, value in metrics.items())
    return [
        Alarm(name, value, f"{name} = {value:.4g} {metric.unit}, healthy {healthy_range(metric)}: {metric.description}")
        for metric, name, value in found
        if not metric.healthy(value)
    ]


def healthy_range(metric: Metric) -> str:
    """The range in words, for alarms and for the docs page."""
    if metric.low is None and metric.high is None:
        return "any"
    if metric.low is None:
        return f"at most {metric.high:g}"
    if metric.high is None:
        return f"at least {metric.low:g}"
    return f"{metric.low:g}" if metric.low == metric.high else f"{metric.low:g} to {metric.high:g}"
