"""Every record of a run, and what waits meanwhile, as gauges on the page that Ray's agent of this node serves to Prometheus."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ray.util.metrics import Gauge

from ..monitoring.grafana import MEMBER, RUN, gauge_name, member
from ..monitoring.registry import find


class PrometheusView:
    """The gauges of one run, labelled with its name; Ray has been joined.

    A gauge keeps its value until the next record that holds it, and goes with the process.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self._gauges: dict[str, Gauge] = {}

    def record(self, metrics: Mapping[str, float]) -> None:
        """Set the gauge of every metric; one that is no finite number keeps what it was.

        A name that monitoring/registry.py does not declare is an AssertionError.
        """
        for name, value in metrics.items():
            metric = find(name)
            if metric.name not in self._gauges:
                self._gauges[metric.name] = Gauge(gauge_name(metric), metric.description, (RUN, MEMBER))
            if math.isfinite(value):
                self._gauges[metric.name].set(float(value), {RUN: self._run, MEMBER: member(metric, name)})
