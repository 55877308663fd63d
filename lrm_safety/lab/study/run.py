"""Run the steps of a study one after the other; what is done is not done again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from ...errors import WorkerError
from ...interruption import Interruption
from ...settings.study import StudySettings
from .process import run_step
from .record import StepRecord
from .steps import Step


def run_steps(
    steps: list[Step],
    fingerprints: Mapping[str, str],
    record: StepRecord,
    settings: StudySettings,
    console: Console,
    lock: int,
) -> None:
    """Every step in a process of its own, so that Ray, vLLM and DeepSpeed begin clean.

    A step that is recorded as done and whose product is there is skipped. Raises WorkerError with the step's own error line
    when it fails for the last time, StopRequested after a signal.
    """
    logs = Path(settings.run.directory) / "logs"
    logs.mkdir(exist_ok=True)
    durations: dict[str, list[float]] = {}
    interruption = Interruption()
    with interruption.handled():
        for number, step in enumerate(steps, start=1):
            head = f"[{number}/{len(steps)}] {step.name}"
            if step.name in record.done and step.produces.exists():
                console.print(f"{head}: done before", markup=False, highlight=False)
                continue
            console.print(f"{head}{_minutes_left(steps[number - 1 :], durations)}", markup=False, highlight=False)
            began = time.monotonic()
            log = logs / f"{step.name.replace(', ', '-').replace(' ', '-')}.log"
            for attempt in range(settings.retries + 1):
                cause = run_step(step, log, settings.step_timeout_seconds, interruption, lock)
                if cause is None:
                    break
                if attempt == settings.retries:
                    raise WorkerError(f"study: step `{step.name}` failed ({cause}); its log is {log}")
            durations.setdefault(step.kind, []).append(time.monotonic() - began)
            record.add(step.name, fingerprints[step.name])


def _minutes_left(steps: list[Step], durations: Mapping[str, list[float]]) -> str:
    """What steps of each kind took, once every kind that is left has been seen."""
    if any(step.kind not in durations for step in steps):
        return ""
    seconds = sum(sum(durations[step.kind]) / len(durations[step.kind]) for step in steps)
    return f", about {seconds / 60:.0f} min left"
