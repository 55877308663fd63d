"""Run the steps of a study one after the other; what is done is not done again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from ..errors import ConfigError, WorkerError
from ..interruption import StopRequested
from ..settings.study import StudySettings
from .steps import Step

RECORD = "steps.json"
GRACE_SECONDS = 300.0
"""After Ctrl-C, how long a step may take to save what it has."""


def finished_steps(steps: list[Step], directory: Path) -> dict[str, list[str]]:
    """Steps that were done in this folder, with their arguments; raises ConfigError if they were other ones than now."""
    record = directory / RECORD
    done: dict[str, list[str]] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for step in steps:
        if step.name in done and done[step.name] != list(step.arguments):
            raise ConfigError(
                f"run.directory={directory}: step `{step.name}` was made by other settings; choose another run.name, or "
                "delete the folder"
            )
    return done


def run_steps(steps: list[Step], done: dict[str, list[str]], settings: StudySettings, console: Console) -> None:
    """Every step in a process of its own, so that Ray, vLLM and DeepSpeed begin clean.

    A step that is `done` and whose product is there is skipped. Raises WorkerError with the step's own error line when it
    fails, StopRequested after a signal.
    """
    record = Path(settings.run.directory) / RECORD
    durations: dict[str, list[float]] = {}
    for number, step in enumerate(steps, start=1):
        if step.name in done and step.produces.exists():
            console.print(f"[{number}/{len(steps)}] {step.name}: done before", markup=False, highlight=False)
            continue
        left = _minutes_left(steps[number - 1 :], durations)
        console.print(f"[{number}/{len(steps)}] {step.name}{left}", markup=False, highlight=False)
        began = time.monotonic()
        _run(step, settings)
        durations.setdefault(step.kind, []).append(time.monotonic() - began)
        done = done | {step.name: list(step.arguments)}
        record.write_text(json.dumps(done, indent=1), encoding="utf-8")


def _minutes_left(steps: list[Step], durations: dict[str, list[float]]) -> str:
    """What steps of each kind took, once every kind that is left has been seen."""
    if any(step.kind not in durations for step in steps):
        return ""
    seconds = sum(sum(durations[step.kind]) / len(durations[step.kind]) for step in steps)
    return f", about {seconds / 60:.0f} min left"


def _run(step: Step, settings: StudySettings) -> None:
    log = Path(settings.run.directory) / "logs" / f"{step.name.replace(', ', '-').replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(settings.retries + 1):
        status = _once(step, log, settings.step_timeout_seconds)
        if status == 0 and step.produces.exists():
            return
        if attempt == settings.retries:
            cause = _last_error(log, status) if status else f"it made no {step.produces.name}"
            raise WorkerError(f"study: step `{step.name}` failed ({cause}); its log is {log}")


def _once(step: Step, log: Path, seconds: float) -> int:
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lrm_safety", *step.arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            _end(process, signal.SIGTERM)
            raise WorkerError(f"study: step `{step.name}` took over step_timeout_seconds={seconds:g}") from None
        except KeyboardInterrupt:
            _end(process, None)  # the terminal has sent it Ctrl-C as well
            raise StopRequested(signal.SIGINT) from None
        except BaseException:
            _end(process, signal.SIGTERM)
            raise


def _end(process: subprocess.Popen[bytes], number: signal.Signals | None) -> None:
    if number is not None:
        process.send_signal(number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE_SECONDS)
        return
    process.kill()
    process.wait()


def _last_error(log: Path, status: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else f"exit status {status}"
