"""Run the steps of a study one after the other, each in a process of its own; what is done is not done again.

steps.json says which steps are done, and by which configuration.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from ...errors import ConfigError, WorkerError
from ...files import read_json, write_json
from ...interruption import TRY_AGAIN, DeadlineReached, Interruption, StopRequested
from ...settings.study import StudySettings
from .steps import Step

RECORD, LOCK = "steps.json", ".lock"


class StepRecord:
    """What is done in a folder: step name -> fingerprint of the whole configuration it was done with."""

    def __init__(self, directory: Path) -> None:
        """Raises ConfigError for a record that cannot be read."""
        self._path = directory / RECORD
        mend = "delete it to do every step again"
        self.done: dict[str, str] = read_json(self._path, ConfigError, mend) if self._path.exists() else {}

    def match(self, fingerprints: Mapping[str, str]) -> None:
        """Raise ConfigError for a step that was done by another configuration than now."""
        for name, fingerprint in fingerprints.items():
            if self.done.get(name, fingerprint) != fingerprint:
                raise ConfigError(
                    f"run.directory={self._path.parent}: step `{name}` was made by other settings, or by an earlier version; "
                    "choose another run.name, or delete the folder"
                )

    def add(self, name: str, fingerprint: str) -> None:
        """Remember a step as done, whole or not at all."""
        self.done[name] = fingerprint
        write_json(self._path, self.done, indent=1)


@contextmanager
def inherited_lock(directory: Path) -> Iterator[int]:
    """A lock on the folder besides its owner's record; gives its file descriptor.

    Steps inherit it: a step that outlives a killed study keeps the folder, so that nothing else writes into it. Raises
    ConfigError where such a step is left.
    """
    with (directory / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"run.directory={directory}: a step of a killed study is still running there; wait or stop it"
            ) from error
        yield file.fileno()


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
