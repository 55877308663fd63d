"""Run the steps of a study, each in a process of its own and after those that it needs; what is done is not done again.

steps.json says which steps are done, and by which configuration.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
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
                    "choose another run.name or run.directory, or delete the folder"
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


class StepProcess:
    """The command of a step in a process of its own, its output at the end of `log`.

    `lock` is a file descriptor that it inherits.
    """

    def __init__(self, step: Step, log: Path, lock: int) -> None:
        self.step, self._log = step, log
        self._begin = log.stat().st_size if log.exists() else 0
        self._began = time.monotonic()
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lrm_safety", *step.arguments],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                pass_fds=(lock,),
                # Out of the terminal's group: Ctrl-C reaches it once, from here.
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self._began

    @property
    def done(self) -> bool:
        """Whether it ended well and its product is there."""
        return self.process.poll() == 0 and self.step.produces.exists()

    def outcome(self, limit: float) -> str | None:
        """None while it runs, "" once it is done, else why it failed, in a line; it is ended after `limit` seconds.

        Raises DeadlineReached where the step left at its own (checkpoint.stop_after_minutes).
        """
        status = self.process.poll()
        if status is None:
            if self.seconds < limit:
                return None
            _end([self])
            return "" if self.done else f"it took over step_timeout_seconds={limit:g}"
        if status == TRY_AGAIN:
            raise DeadlineReached(f"the deadline of step `{self.step.name}`")
        if status:
            return _last_error(self._log, self._begin) or f"exit status {status}"
        return "" if self.done else f"it made no {self.step.produces.name}"


def _end(steps: Sequence[StepProcess]) -> None:
    """Ask steps that still run to save and end; kill the group of one that does not, or when a second signal comes."""
    processes = [step.process for step in steps if step.process.poll() is None]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except (subprocess.TimeoutExpired, StopRequested):
            deadline = 0.0
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
    """Every step in a process of its own, so that Ray, vLLM and DeepSpeed begin clean; up to `concurrency` of them at once,
    each after those that it needs.

    A step that is recorded as done and whose product is there is skipped. Raises WorkerError with the step's own error line
    when it fails for the last time, StopRequested after a signal; what else runs is asked to save and to end first.
    """
    logs = Path(settings.run.directory) / "logs"
    logs.mkdir(exist_ok=True)
    heads = {step.name: f"[{number}/{len(steps)}] {step.name}" for number, step in enumerate(steps, start=1)}
    waiting, running = list[Step](), list[StepProcess]()
    for step in steps:
        if step.name in record.done and step.produces.exists():
            console.print(f"{heads[step.name]}: done before", markup=False, highlight=False)
        else:
            waiting.append(step)
    failures: Counter[str] = Counter()
    durations: dict[str, list[float]] = {}
    interruption = Interruption()

    def start(step: Step) -> None:
        running.append(StepProcess(step, _log(logs, step), lock))

    with interruption.handled():
        try:
            while waiting or running:
                interruption.check()
                for step in _ready(waiting, [one.step for one in running])[: settings.concurrency - len(running)]:
                    left = _minutes_left(waiting, durations, settings.concurrency)
                    console.print(f"{heads[step.name]}{left}", markup=False, highlight=False)
                    waiting.remove(step)
                    start(step)
                with suppress(subprocess.TimeoutExpired):
                    running[0].process.wait(POLL_SECONDS)
                for one in list(running):
                    if (cause := one.outcome(settings.step_timeout_seconds)) is None:
                        continue
                    running.remove(one)
                    name = one.step.name
                    if not cause:
                        durations.setdefault(one.step.kind, []).append(one.seconds)
                        record.add(name, fingerprints[name])
                        continue
                    failures[name] += 1
                    if failures[name] > settings.retries:
                        raise WorkerError(f"study: step `{name}` failed ({cause}); its log is {_log(logs, one.step)}")
                    start(one.step)
        finally:
            _end(running)
            for one in running:  # beside the one that failed or left, or while it was asked to end
                if one.done:
                    record.add(one.step.name, fingerprints[one.step.name])


def _log(logs: Path, step: Step) -> Path:
    return logs / f"{step.name.replace(', ', '-').replace(' ', '-')}.log"


def _ready(waiting: Sequence[Step], running: Sequence[Step]) -> list[Step]:
    """The steps that can begin, in order: nothing that they need is still to be done."""
    ahead = {step.name for step in (*waiting, *running)}
    return [step for step in waiting if ahead.isdisjoint(step.needs)]


def _minutes_left(steps: Sequence[Step], durations: Mapping[str, list[float]], concurrency: int) -> str:
    """What steps of each kind took, once every kind that is left has been seen."""
    if any(step.kind not in durations for step in steps):
        return ""
    seconds = sum(sum(durations[step.kind]) / len(durations[step.kind]) for step in steps)
    return f", about {seconds / concurrency / 60:.0f} min left"
