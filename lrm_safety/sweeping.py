"""The points of a sweep side by side: as many at once as there is room for, failed ones again, finished ones not once more.

Where they run, as processes of this machine or as jobs of a Ray cluster, is a `Place`; hydra_plugins/ makes Hydra's launchers
of both.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import yaml

from .errors import ClusterError, ConfigError, DataError
from .files import read_json, read_json_lines
from .interruption import Interruption, StopRequested
from .launching import Job, find_job, jobs_of, name_of, submit
from .results import Evaluation
from .run_folder import ENVIRONMENT

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

POLL_SECONDS = 1.0
SAY_SECONDS = 60.0
"""How often something is said while nothing changes."""
SIZE_SECONDS = 30.0
STOP_SECONDS = 1800.0
"""How long a point that was asked to stop may take to save."""
OF_A_PLACE = {"tracking", "run"}
"""Groups of a configuration that say how a run is called and where it goes, not what it does."""
State = Literal["waiting", "running", "done", "done before", "failed", "stopped", "left running"]
OnInterrupt = Literal["ask", "leave", "stop"]


@dataclass
class Point:
    """One run of a sweep."""

    name: str
    """The overrides that tell it from the others."""
    words: tuple[str, ...]
    """What is typed after `lrm-safety` for it alone."""
    folder: Path
    state: State = "waiting"
    starts: int = 0
    why: str = ""
    """How it failed, in one line."""


class Place(Protocol):
    """Where points run."""

    concurrency: int
    """Points at once."""
    leaves: bool
    """Whether running points are left alone after an interrupt that nobody can be asked about."""

    def start(self, point: Point) -> str:
        """Start a point; returns what people are told of it."""

    def status(self, point: Point) -> int | None:
        """The exit status of a started point; None while it runs."""

    def why(self, point: Point) -> str:
        """The last error that a failed point told."""

    def stop(self, points: Sequence[Point]) -> None:
        """Let points save and end, and wait for them."""


def run_points(
    points: Sequence[Point],
    place: Place,
    *,
    retries: int,
    on_interrupt: OnInterrupt = "ask",
    say: Callable[[str], None] = lambda line: print(line, flush=True),
) -> None:
    """Bring every waiting point to an end, which its `state` then says.

    A point that fails is started again, after those that wait, up to `retries` times; it goes on from its checkpoint. Raises
    StopRequested after a signal, with the running points stopped or left running, as the user says.
    """
    waiting = deque(point for point in points if point.state == "waiting")
    running: list[Point] = []
    interruption, said = Interruption(), time.monotonic()
    with interruption.handled():
        try:
            while waiting or running:
                interruption.check()
                while waiting and len(running) < place.concurrency:
                    point = waiting.popleft()
                    point.state, point.starts = "running", point.starts + 1
                    running.append(point)
                    say(f"{_count(points)} {point.name}: {place.start(point)}")
                for point in [one for one in running if place.status(one) is not None]:
                    running.remove(point)
                    _ended(point, place, retries)
                    if point.state == "waiting":
                        waiting.append(point)
                    say(f"{_count(points)} {point.name}: {_told(point)}")
                    said = time.monotonic()
                if running and time.monotonic() - said >= SAY_SECONDS:
                    said = time.monotonic()
                    say(f"{_count(points)} running: {', '.join(one.name for one in running)}; {len(waiting)} wait")
                if running:
                    time.sleep(POLL_SECONDS)
        except StopRequested:
            if running and _stops(running, place, on_interrupt, say):
                say(f"stopping {len(running)}, which save first ...")
                place.stop(running)
                _all(running, "stopped")
            else:
                _all(running, "left running")
            raise


def _all(points: Sequence[Point], state: State) -> None:
    for point in points:
        point.state = state


def _count(points: Sequence[Point]) -> str:
    ended = sum(point.state in ("done", "done before", "failed") for point in points)
    return f"[{ended}/{len(points)}]"


def _ended(point: Point, place: Place, retries: int) -> None:
    status = place.status(point)
    if status == 0:
        point.state, point.why = "done", ""
        return
    point.why = f"exit status {status}{': ' * bool(why := place.why(point))}{why}"
    point.state = "waiting" if point.starts <= retries else "failed"


def _told(point: Point) -> str:
    if point.state == "waiting":
        return f"{point.why}; will be started again"
    return "done" if point.state == "done" else f"failed with {point.why}"


def _stops(running: Sequence[Point], place: Place, on_interrupt: OnInterrupt, say: Callable[[str], None]) -> bool:
    """Whether the running points are to be stopped. Who cannot be asked is not: then it is as the place is made."""
    if on_interrupt != "ask":
        return on_interrupt == "stop"
    if not sys.stdin.isatty():
        return not place.leaves
    say(f"{len(running)} points run: l leaves them running, s stops them (they save first)")
    try:
        return input("l or s? ").strip().lower().startswith("s")
    except (EOFError, StopRequested):  # Ctrl-D, or Ctrl-C once more
        return not place.leaves


def finished(folder: Path, resolved: Mapping[str, Any]) -> bool:
    """Whether the last start of a run folder came to its end, with the configuration that it would have now."""
    try:
        last = read_json(folder / ENVIRONMENT)["starts"][-1]
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return last["exit_status"] == 0 and _what(config) == _what(resolved)
    except (OSError, DataError, LookupError, TypeError, AttributeError, yaml.YAMLError):
        return False


def _what(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in OF_A_PLACE}


def objective_of(folder: Path, metric: str | None) -> float | None:
    """The last value of a metric of a run folder, or of an evaluation's figure; None where none is asked for.

    Raises ConfigError where the run has no such metric.
    """
    if metric is None:
        return None
    if (folder / "metrics.jsonl").is_file():
        for _, _, line in reversed(list(read_json_lines(folder / "metrics.jsonl"))):
            if isinstance(line.get(metric), (int, float)):
                return float(line[metric])
    elif (folder / Evaluation.FILE).is_file():
        benchmarks = Evaluation.read(folder).benchmarks
        found = benchmarks.get(metric.removeprefix("evaluation/"))
        if found is not None and found.headline is not None and found.headline.value is not None:
            return float(found.headline.value)
    raise ConfigError(
        f"run.objective={metric}: the run in {folder} has no value of it; choose a metric of docs/metrics.md"
    )


class LocalProcesses:
    """Points as processes of this machine; what each prints goes into a file of its own."""

    leaves = False

    def __init__(self, concurrency: int, logs: Path, devices: Sequence[str] = (), devices_each: int = 0) -> None:
        """`devices` are the GPUs of this machine, of which every point sees `devices_each` of its own."""
        self.concurrency = concurrency
        self._logs = logs
        self._shares = [",".join(devices[i * devices_each : (i + 1) * devices_each]) for i in range(concurrency)]
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}

    def start(self, point: Point) -> str:
        taken = {slot for process, slot in self._processes.values() if process.poll() is None}
        slot = next(one for one in range(self.concurrency) if one not in taken)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self._shares[slot]:
            environment["CUDA_VISIBLE_DEVICES"] = self._shares[slot]
        log = self._log(point)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "lrm_safety", *point.words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,  # Ctrl-C is the sweep's, which asks what is to be done
            )
        self._processes[point.name] = (process, slot)
        return f"started, its output is in {log}"

    def status(self, point: Point) -> int | None:
        return self._processes[point.name][0].poll()

    def why(self, point: Point) -> str:
        return last_error(self._log(point).read_text(encoding="utf-8", errors="replace"))

    def stop(self, points: Sequence[Point]) -> None:
        processes = [self._processes[point.name][0] for point in points if point.name in self._processes]
        _ask_to_end(processes)
        deadline = time.monotonic() + STOP_SECONDS
        try:
            for process in processes:
                process.wait(max(0.0, deadline - time.monotonic()))
        except StopRequested:
            _ask_to_end(processes)  # a second time, after which they do not save
            raise

    def _log(self, point: Point) -> Path:
        return self._logs / f"{re.sub(r'[^A-Za-z0-9._=,-]+', '_', point.name)}.log"


def _ask_to_end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)


class ClusterJobs:
    """Points as jobs of a Ray cluster. One that runs there already, of a sweep that was left, is not started once more."""

    leaves = True

    def __init__(self, client: JobSubmissionClient, concurrency: int, jobs: Mapping[str, Job]) -> None:
        """`jobs`: what is submitted, by the names of the points; each has a name that the same point has next time."""
        self._client, self.concurrency, self._jobs = client, concurrency, jobs
        self._ids: dict[str, str] = {}

    def start(self, point: Point) -> str:
        job = self._jobs[point.name]
        living = [one for one in jobs_of(self._client) if name_of(one) == job.name and not one.status.is_terminal()]
        if living:
            self._ids[point.name] = str(living[-1].submission_id)
            return f"runs already, as job {self._ids[point.name]}"
        self._ids[point.name] = submit(self._client, job)
        return f"submitted as job {self._ids[point.name]}"

    def status(self, point: Point) -> int | None:
        from ray.job_submission import JobStatus

        job = self._info(point)
        if not job.status.is_terminal():
            return None
        return 0 if job.status == JobStatus.SUCCEEDED else job.driver_exit_code or 1

    def why(self, point: Point) -> str:
        return last_error(self._client.get_job_logs(self._ids[point.name]))

    def stop(self, points: Sequence[Point]) -> None:
        jobs = [self._ids[point.name] for point in points if point.name in self._ids]
        for job in jobs:
            self._client.stop_job(job)
        deadline = time.monotonic() + STOP_SECONDS
        while time.monotonic() < deadline and any(not find_job(self._client, job).status.is_terminal() for job in jobs):
            time.sleep(POLL_SECONDS)

    def _info(self, point: Point) -> JobDetails:
        return self._client.get_job_info(self._ids[point.name])


def last_error(log: str) -> str:
    """The last line of a log that tells an error, or else its last line."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"(error: |[A-Za-z_.]*(Error|Exception)\b)", line)]
    return (errors or lines or [""])[-1]


def room(total: Mapping[str, float], needs: Mapping[str, float], what: str) -> int:
    """How many points fit side by side; raises ClusterError where not one does."""
    fits = min((int(total.get(kind, 0.0) / each + 1e-6) for kind, each in needs.items() if each > 0), default=0)
    if fits < 1:
        asked = ", ".join(f"{each:g} {kind}" for kind, each in needs.items())
        has = ", ".join(f"{value:g} {kind}" for kind, value in total.items())
        raise ClusterError(f"{what} needs {asked}, and the cluster has {has}; choose a smaller cluster=OPTION")
    return fits


def cluster_resources(client: JobSubmissionClient) -> dict[str, float]:
    """CPUs and GPUs of a cluster, by its dashboard, which knows none in the first seconds after its start.

    Raises ClusterError where it tells nothing within `SIZE_SECONDS`.
    """
    deadline = time.monotonic() + SIZE_SECONDS
    while True:
        try:
            status = client._do_request("GET", "/api/cluster_status").json()["data"]["clusterStatus"]
            usage = status["loadMetricsReport"]["usage"]
            if found := {kind: float(usage[kind][1]) for kind in ("CPU", "GPU") if kind in usage}:
                return found
        except (ValueError, LookupError, TypeError):
            pass  # nothing was reported yet, or a Ray that reports otherwise
        if time.monotonic() > deadline:
            raise ClusterError(
                "hydra.launcher.concurrency: the cluster does not say how large it is; give how many points run at once"
            )
        time.sleep(POLL_SECONDS)
