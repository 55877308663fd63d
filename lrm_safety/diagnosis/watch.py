"""The diagnosis of a run while it trains: each finding said once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from .evidence import Evidence, Finding
from .rules import diagnose

PROGRESS = ("train/loss", "sft/loss")
"""One of them is in every record of training, and in no record of an evaluation."""


class Watch:
    """Keeps what was recorded and says what is new about it; a warning that becomes a failure is said again."""

    def __init__(self, min_records: int = 10, about: Evidence | None = None) -> None:
        """`about` is what is known of the run besides its records: its reward and its judges."""
        self._min_records = min_records
        self._about = about or Evidence()
        self._series: dict[str, list[tuple[int, float]]] = {}
        self._said: set[tuple[str, str, str]] = set()

    def remember(self, update: int, metrics: Mapping[str, float]) -> None:
        """Take a record that was judged before, as a resume finds it."""
        for name, value in metrics.items():
            self._series.setdefault(name, []).append((update, float(value)))

    def said(self, rule: str, subject: str, level: str) -> None:
        """Take note of a finding that was said before: its first figure's name is its subject."""
        # What has failed is not announced as a warning when it gets better.
        self._said |= {(rule, subject, level), (rule, subject, "warn")}

    def fresh(self, update: int, metrics: Mapping[str, float]) -> list[Finding]:
        """Findings after this record that were not said before; none before `min_records` records of training."""
        self.remember(update, metrics)
        if max(len(self._series.get(name, ())) for name in PROGRESS) < self._min_records:
            return []
        findings = []
        for finding in diagnose(replace(self._about, training=self._series)):
            subject = finding.evidence[0].name
            if (finding.rule, subject, finding.level) not in self._said:
                self.said(finding.rule, subject, finding.level)
                findings.append(finding)
        return findings
