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
from .steps import Step, steps_of

GRACE_SECONDS = 300.0
"""After Ctrl-C, how long a step may take to save what it has."""


def run_steps(settings: StudySettings, console: Console) -> None:
    """Every step in a process of its own, so that Ray, vLLM and DeepSpeed begin clean.

    A step whose product is there is skipped, if it was made by the same arguments. Raises ConfigError for a folder made by
    other ones, WorkerError with the step's own error line when it fails, StopRequested after a signal.
    """
    steps = steps_of(settings)
    record = Path(settings.run.directory) / "steps.json"
    done: dict[str, list[str]] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    for step in steps:
        if step.name in done and done[step.name] != list(step.arguments):
            raise ConfigError(
                f"run.directory={settings.run.directory}: step `{step.name}` was made by other settings; choose another "
                "run.name, or delete the folder"
            )
    durations: list[float] = []
    for number, step in enumerate(steps, start=1):
        if step.name in done and step.produces.exists():
            console.print(f"[{number}/{len(steps)}] {step.name}: done before", highlight=False)
            continue
        left = (
            f", about {sum(durations) / len(durations) * (len(steps) - number + 1) / 60:.0f} min left"
            if durations
            else ""
        )
        console.print(f"[{number}/{len(steps)}] {step.name}{left}", markup=False, highlight=False)
        began = time.monotonic()
        _run(step, settings)
        durations.append(time.monotonic() - began)
        done[step.name] = list(step.arguments)
        record.write_text(json.dumps(done, indent=1), encoding="utf-8")


def _run(step: Step, settings: StudySettings) -> None:
    log = Path(settings.run.directory) / "logs" / f"{step.name.replace(', ', '-').replace(' ', '-')}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    for attempt in range(settings.retries + 1):
        status = _once(step, log, settings.step_timeout_seconds)
        if status == 0 and step.produces.exists():
            return
        if attempt == settings.retries:
            raise WorkerError(f"study: step `{step.name}` failed ({_last_error(log, status)}); its log is {log}")


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
