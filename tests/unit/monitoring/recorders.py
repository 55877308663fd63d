"""A recorder as `lrm-safety train` opens it, and a console that remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lrm_safety.monitoring.recorder import Recorder, evidence_of
from lrm_safety.settings import Settings


def recorder_of(folder: Path, settings: Settings, state: Mapping[str, Any] | None = None, **options: Any) -> Recorder:
    """`state` is that of a checkpoint."""
    return Recorder(
        folder,
        settings.run.name,
        settings.tracking,
        settings.schedule,
        asdict(settings),
        evidence=evidence_of(settings.reward, settings.evaluation),
        resume_state=state,
        **options,
    )


class RememberingConsole:
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.recorded: list[tuple[int, dict[str, float]]] = []
        self.closed = 0

    def phase(self, name: str | None) -> None: ...

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        self.recorded.append((update, dict(metrics)))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def close(self) -> None:
        self.closed += 1
