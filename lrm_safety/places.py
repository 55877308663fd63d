"""Where the points of a sweep run: as processes of this machine or as jobs of a Ray cluster, and how many fit there at once."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import ClusterError, ConfigError, first_line
from .interruption import StopRequested
from .launching import STOPPED_EXIT_CODE, Job, jobs_command, jobs_of, name_of, submit
from .sweep_files import OF_A_PLACE
from .sweeping import POLL_SECONDS, Point

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

SIZE_SECONDS = 30.0
STOP_SECONDS = 1800.0
"""How long a point that was asked to stop may take to save."""


class LocalProcesses:
    """Points as processes of this machine; what each prints goes into a file of its own."""

    leaves = False

    def __init__(self, concurrency: int, logs: Path, devices: Sequence[str] = (), devices_each: int = 0) -> None:
        """`devices` are the GPUs of this machine, of which every point sees `devices_each` of its own."""
        self.concurrency = concurrency
        self._logs = logs
        self._shares = [",".join(devices[i * devices_each : (i + 1) * devices_each]) for i in range(concurrency)]
        self._processes: dict[str, tuple[subprocess.Popen[bytes], int]] = {}
        self._begins: dict[str, int] = {}
        """Bytes that earlier starts had left in a point's log."""

    def start(self, point: Point) -> str:
        taken = {slot for process, slot in self._processes.values() if process.poll() is None}
        slot = next(one for one in range(self.concurrency) if one not in taken)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self._shares[slot]:
            environment["CUDA_VISIBLE_DEVICES"] = self._shares[slot]
        log = self._log(point)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self._begins[point.name] = file.seek(0, os.SEEK_END)
            process = subprocess.Popen(
                [sys.executable, "-m", "lrm_safety", *point.words],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=environment,
                start_new_session=True,  # Ctrl-C is the sweep's, which asks what is to be done
            )
        self._processes[point.name] = (process, slot)
        point.starts += 1
        return f"started, its output is in {log}"

    def status(self, point: Point) -> int | None:
        return self._processes[point.name][0].poll()

    def log(self, point: Point) -> str:
        with self._log(point).open("rb") as file:
            file.seek(self._begins.get(point.name, 0))
            return file.read().decode(errors="replace")

    def how_to_follow(self, point: Point) -> str:
        return shlex.join(["tail", "-f", str(self._log(point))])

    def how_to_stop(self, point: Point) -> str:
        return f"kill {self._processes[point.name][0].pid}"

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


NO_JOB = "does not exist"
"""What Ray's job server says of a job that it does not know, as after a restart of its head."""


class ClusterJobs:
    """Points as jobs of a Ray cluster. One that runs there already, of a sweep that was left, is not started once more."""

    leaves = True

    def __init__(
        self, client: JobSubmissionClient, concurrency: int, jobs: Mapping[str, Job], address: str | None = None
    ) -> None:
        """`jobs`: what is submitted, by the names of the points; each has a name that the same point has next time. `address`
        is that of the cluster as it was given, for the commands that are shown."""
        self._client, self.concurrency, self._jobs, self._address = client, concurrency, jobs, address
        self._ids: dict[str, str] = {}

    def start(self, point: Point) -> str:
        job = self._jobs[point.name]
        living = [one for one in jobs_of(self._client) if name_of(one) == job.name and not one.status.is_terminal()]
        if living:
            self._ids[point.name] = str(living[-1].submission_id)
            if _settings(living[-1].entrypoint) != _settings(job.entrypoint):
                raise ConfigError(
                    f"{point.name}: job {self._ids[point.name]} writes into {point.folder} already, with other settings; wait for "
                    f"it, or stop it ({self.how_to_stop(point)})"
                )
            point.began = (living[-1].start_time or 1000 * point.began) / 1000
            return f"runs already, as job {self._ids[point.name]}"
        self._ids[point.name] = submit(self._client, job)
        point.starts += 1
        return f"submitted as job {self._ids[point.name]}, called {self._called(str(job.name))}"

    def _called(self, name: str) -> str:
        """The least of a job's name from one of its / on that no other job of the sweep ends with."""
        parts, others = name.split("/"), [str(one.name) for one in self._jobs.values() if one.name != name]
        ends = ("/".join(parts[i:]) for i in range(len(parts) - 1, 0, -1))
        return next((end for end in ends if not any(other.endswith(f"/{end}") for other in others)), name)

    def status(self, point: Point) -> int | None:
        from ray.job_submission import JobStatus

        try:
            job = self._client.get_job_info(self._ids[point.name])
        except RuntimeError as error:
            if NO_JOB in str(error):
                return 1
            raise
        if not job.status.is_terminal():
            return None
        if job.status == JobStatus.STOPPED:
            return STOPPED_EXIT_CODE
        return 0 if job.status == JobStatus.SUCCEEDED else job.driver_exit_code or 1

    def log(self, point: Point) -> str:
        try:
            return str(self._client.get_job_logs(self._ids[point.name]))
        except RuntimeError as error:  # a job that was lost together with its node or its head
            raise OSError(f"job {self._ids[point.name]}: {first_line(error)}") from error

    def how_to_follow(self, point: Point) -> str:
        return jobs_command("logs --follow", self._ids[point.name], self._address)

    def how_to_stop(self, point: Point) -> str:
        return jobs_command("stop", self._ids[point.name], self._address)

    def stop(self, points: Sequence[Point]) -> None:
        """Raises ClusterError where jobs may run on."""
        living = [point for point in points if point.name in self._ids]
        refusals = list(filter(None, map(self._refusal, living)))
        deadline = time.monotonic() + STOP_SECONDS
        while not refusals and time.monotonic() < deadline and any(map(self._runs, living)):
            time.sleep(POLL_SECONDS)
        if refusals:
            raise ClusterError(
                f"these may run on: {', '.join(refusals)}; stop each with {jobs_command('stop', 'ID', self._address)}"
            )

    def _refusal(self, point: Point) -> str:
        """Ask for a job's stop; returns why it was refused."""
        try:
            self._client.stop_job(self._ids[point.name])
        except (OSError, RuntimeError) as error:
            if NO_JOB not in str(error):
                return f"job {self._ids[point.name]} ({first_line(error)})"
        return ""

    def _runs(self, point: Point) -> bool:
        try:
            return self.status(point) is None
        except (OSError, RuntimeError):
            return True


def _settings(entrypoint: str) -> list[str]:
    """The words of a job's command that say what it does."""
    return [word for word in shlex.split(entrypoint) if word.lstrip("+~").partition(".")[0] not in OF_A_PLACE]


def room(
    total: Mapping[str, float],
    needs: Mapping[str, float],
    what: str,
    besides: str = "",
    own: Mapping[str, str] | None = None,
    *,
    workers: bool = True,
) -> int:
    """How many points fit side by side into what a cluster has `besides` something; raises ClusterError where not one does, with
    what helps against what is lacking. `own`: by resource the options by which the command itself reserves some of it;
    `workers`: whether it starts workers, which reserve the rest."""
    fits = min((int(total.get(kind, 0.0) / each + 1e-6) for kind, each in needs.items() if each > 0), default=0)
    if fits < 1:
        asked = ", ".join(f"{each:g} {kind}" for kind, each in needs.items())
        has = ", ".join(f"{total.get(kind, 0.0):g} {kind}" for kind in {**total, **needs})
        lacking = [kind for kind, each in needs.items() if total.get(kind, 0.0) < each * (1 - 1e-6)]
        raise ClusterError(
            f"{what} needs {asked}, and the cluster has {has}{f' besides {besides}' * bool(besides)}; "
            f"{smaller(lacking, total, own or {}, workers=workers)}"
        )
    return fits


def smaller(
    lacking: Sequence[str],
    total: Mapping[str, float],
    own: Mapping[str, str] | None = None,
    *,
    workers: bool = True,
    place: str = "cluster",
) -> str:
    """What helps where these resources of a `place` are lacking, of which it has `total`; `own` and `workers` as `room` takes
    them."""
    options = [option for kind, option in (own or {}).items() if kind in lacking]
    if not workers:
        return f"lower {' and '.join(options)}" if options else f"name a cluster with more {' and '.join(lacking)}"
    if "GPU" in lacking and total.get("GPU", 0.0) <= 0:  # fewer workers do not help
        return (
            f"there is no GPU: use a {place} that has some, or a layout for CPUs (cluster=laptop_cpu rollout=vllm_cpu)"
        )
    each = {"CPU": "cpus_per_worker", "GPU": "gpus_per_worker"}
    keys = [f"cluster.GROUP.{each.get(kind, f'resources.{kind}')}" for kind in lacking]
    keys += ["rollout.tensor_parallel_size"] * ("GPU" in lacking)
    return f"choose a smaller cluster=OPTION, or lower {' or '.join(['cluster.GROUP.num_workers', *keys, *options])}"


def is_whole(client: JobSubmissionClient, expected_nodes: int) -> bool:
    """Whether no node of a cluster is lost, which may return, and as many as are expected have joined, by its dashboard; False
    where that does not say."""
    try:
        nodes = client._do_request("GET", "/nodes?view=summary").json()["data"]["summary"]
        states = [node["raylet"]["state"] for node in nodes]
    except (OSError, RuntimeError, ValueError, LookupError, TypeError):
        return False
    return set(states) == {"ALIVE"} and len(states) >= expected_nodes


def cluster_resources(
    client: JobSubmissionClient, custom: Iterable[str] = (), seconds: float = SIZE_SECONDS
) -> dict[str, float]:
    """CPUs, GPUs and these custom resources of a cluster, by its dashboard, which knows none in the first seconds after its start.

    Raises ClusterError where it tells nothing within these seconds.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            status = client._do_request("GET", "/api/cluster_status").json()["data"]["clusterStatus"]
            usage = status["loadMetricsReport"]["usage"]
            if "CPU" in usage or "GPU" in usage:
                shown = {kind: _as_shown(kind) for kind in ("CPU", "GPU", *custom)}
                return {kind: float(usage[name][1]) for kind, name in shown.items() if name in usage}
        except (ValueError, LookupError, TypeError):
            pass  # nothing was reported yet, or a Ray that reports otherwise
        if time.monotonic() > deadline:
            raise ClusterError(
                "hydra.launcher.concurrency: the cluster does not say how large it is; give how many points run at once"
            )
        time.sleep(POLL_SECONDS)


def _as_shown(resource: str) -> str:
    """What Ray's dashboard calls a resource: it writes every key of its answers in camel case."""
    first, *others = resource.split("_")
    return first + "".join(word.title() for word in others)
