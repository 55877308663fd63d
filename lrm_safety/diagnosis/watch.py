"""The diagnosis of a run while it trains: each finding said once, for the console and for W&B alerts."""

from __future__ import annotations

from collections.abc import Mapping

from .evidence import Evidence, Finding
from .rules import TRAINING_RULES, diagnose


class Watch:
    """Keeps what was recorded and says what is new about it; a warning that becomes a failure is said again."""

    def __init__(self, min_records: int = 10) -> None:
        self._min_records = min_records
        self._series: dict[str, list[tuple[int, float]]] = {}
        self._said: set[tuple[str, str]] = set()

    def fresh(self, update: int, metrics: Mapping[str, float]) -> list[Finding]:
        """Findings after this record that were not said before; none before `min_records` records of training."""
        for name, value in metrics.items():
            points = self._series.setdefault(name, [])
            while points and points[-1][0] >= update:  # a restart does updates again
                points.pop()
            points.append((update, float(value)))
        if len(self._series.get("train/loss", ())) < self._min_records:
            return []
        findings = []
        for finding in diagnose(Evidence(training=self._series, training_source="this run"), TRAINING_RULES):
            if (finding.rule, finding.level) not in self._said:
                self._said.add((finding.rule, finding.level))
                findings.append(finding)
        return findings
