"""One step of a study in a process of its own, which ends with the study."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from ...interruption import TRY_AGAIN, DeadlineReached, Interruption, StopRequested
from .steps import Step

GRACE_SECONDS = 300.0
"""After a signal, how long a step may take to save what it has."""
POLL_SECONDS = 0.5


def run_step(step: Step, log: Path, seconds: float, interruption: Interruption, lock: int) -> str | None:
    """Run the step's command, its output at the end of `log`; None once it is done, else why it failed, in a line.

    `lock` is a file descriptor that the step inherits. Raises StopRequested after a signal, which is handed on to the step
    first: it saves what it has. Raises DeadlineReached where the step left at its own (checkpoint.stop_after_minutes).
    """
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lrm_safety", *step.arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            pass_fds=(lock,),
            # Out of the terminal's group: Ctrl-C reaches it once, from here.
            start_new_session=True,
        )
        deadline = time.monotonic() + seconds
        try:
            while time.monotonic() < deadline:
                interruption.check()
                try:
                    status = process.wait(POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
                if status == TRY_AGAIN:
                    raise DeadlineReached(f"the deadline of step `{step.name}`")
                if status:
                    return _last_error(log, begin) or f"exit status {status}"
                return None if step.produces.exists() else f"it made no {step.produces.name}"
            return f"it took over step_timeout_seconds={seconds:g}"
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process that still runs to save and end; kill its group if it does not, or if a second signal comes."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(GRACE_SECONDS)
    except (subprocess.TimeoutExpired, StopRequested):
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _last_error(log: Path, begin: int) -> str | None:
    """The last error line of what was written after `begin` bytes."""
    with log.open("rb") as file:
        file.seek(begin)
        lines = file.read().decode(errors="replace").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    return errors[-1].removeprefix("error: ") if errors else None
