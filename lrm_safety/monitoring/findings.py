"""findings.jsonl: what the diagnosis found while the run trains, each finding once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrm_safety.diagnosis import Evidence, Finding, Watch

from .metrics_file import MetricsFile


class Findings:
    """Runs the rules of the diagnosis over a run's history and writes what is new.

    A resume goes on where its checkpoint stands: `history` (the kept lines of metrics.jsonl) is remembered, findings of
    updates that were kept are not said again, those of dropped updates are dropped with them. `about` is what is known of the
    run besides its records.
    """

    def __init__(
        self,
        path: Path,
        min_records: int,
        keep_until: int | None,
        history: Iterable[Mapping[str, Any]],
        about: Evidence | None = None,
    ) -> None:
        self._min_records = min_records
        self._about = about
        self._file = MetricsFile(path, keep_until)
        self._begin(history)

    def fresh(self, update: int, metrics: Mapping[str, float]) -> list[Finding]:
        """What is new after this record; it is on disk when this returns."""
        found = self._watch.fresh(update, metrics)
        for finding in found:
            self._file.append({"update": update, **asdict(finding)})
        return found

    def rewind(self, keep_until: int | None, history: Iterable[Mapping[str, Any]]) -> None:
        """Forget what was found after `keep_until` (None: all); `history` is what metrics.jsonl still holds."""
        self._file.rewind(keep_until)
        self._begin(history)

    def close(self) -> None:
        """Close the file; more than once is fine."""
        self._file.close()

    def _begin(self, history: Iterable[Mapping[str, Any]]) -> None:
        self._watch = Watch(self._min_records, self._about)
        for line in history:
            # Numbers that were not finite are null in the file.
            values = {name: value for name, value in line.items() if "/" in name and value is not None}
            self._watch.remember(line["update"], values)
        for line in self._file.lines():
            self._watch.said(line["rule"], line["evidence"][0]["name"], line["level"])
