"""Hand a command of ours to a running Ray cluster as a job, follow its log, find and stop it.

A folder travels as the job's working directory (upload.py). A checkout brings its code and configuration along; from any other
folder, which may hold configuration of the user's, the lrm_safety runs that is installed on the cluster. The cluster's image
has to hold the dependencies (docker/).
"""

from __future__ import annotations

import asyncio
import http.client
import logging
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .credentials import TOKEN_VARIABLES, check_ray_token, ray_token_fault
from .environment import COMMIT_VARIABLE, commit
from .errors import ClusterError, ConfigError, first_line
from .interruption import STOP_WAIT_VARIABLE
from .secret_text import FILE_VARIABLE, holds_secret, holds_secret_override, is_secret
from .settings.loader import FOLDERS_VARIABLE
from .upload import patterns

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
ADDRESS_VARIABLE = "RAY_API_SERVER_ADDRESS"
STOP_WAIT_SECONDS = 1800
"""How long a job of ours has to save once it is told to stop; Ray's own 3 s are over before an iteration has ended."""
CONNECT_TIMEOUT_SECONDS = 10.0
UNAVAILABLE = (502, 503, 504)
"""What a proxy or an ingress says while the dashboard behind it does not answer."""
AGENT_TIMEOUT_SECONDS = 60.0
QUIET_SECONDS = 5.0
"""How long a cluster that has just started is waited for without a word."""
NO_AGENT = "No available agent"
"""What Ray's job server answers, after ten seconds of its own, while its node's agent is not up."""
FINAL_STATUS_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.5
STOPPED_EXIT_CODE = 143
"""128 + SIGTERM, which the job got: Ray does not keep the exit code of a job that was stopped."""
NOT_FOUND_EXIT_CODE = 127
NUM_SHOWN = 4
"""Of jobs, where one is not found."""
NAME_KEY = "job_name"
"""Ray's own key in a job's metadata, shown by its dashboard."""


@dataclass(frozen=True)
class Job:
    """What is submitted: a shell line, the folder it runs in, and the variables it gets besides the cluster's own."""

    entrypoint: str
    working_dir: Path
    environment: Mapping[str, str]
    name: str | None = None
    """What people call it; several jobs may share one."""
    num_cpus: float | None = None
    """CPUs that Ray reserves for the command itself, besides those of its workers; None: as the cluster does by default."""
    num_gpus: float | None = None
    """GPUs that Ray reserves for, and shows to, the command itself: `evaluate` and `analyze` run their models there."""
    excludes: Sequence[str] = field(default=())
    """Patterns of what stays behind of `working_dir`, besides its .gitignore and .rayignore."""

    def runtime_env(self) -> dict[str, Any]:
        variables = {STOP_WAIT_VARIABLE: str(STOP_WAIT_SECONDS), **self.environment}
        return {"working_dir": str(self.working_dir), "excludes": list(self.excludes), "env_vars": variables}

    def __repr__(self) -> str:
        """Names of the variables only: their values may be secrets, and a repr ends in logs and tracebacks."""
        return f"Job({self.entrypoint!r}, working_dir={str(self.working_dir)!r}, variables={sorted(self.environment)})"


def plan_job(
    command: str,
    overrides: Sequence[str],
    environment: Mapping[str, str],
    working_dir: Path,
    passed: Sequence[str] = (),
    secrets_file: str | None = None,
    *,
    name: str | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
) -> Job:
    """Put together `lrm-safety COMMAND OVERRIDES` as a job of the folder `working_dir`.

    Args:
        command: a subcommand, such as `train`.
        overrides: Hydra overrides; each is quoted for the shell, so lists and spaces arrive whole.
        environment: the submitter's variables, of which LRM_SAFETY_CONF alone travels unasked.
        passed: variables that go with the job, NAME (of `environment`) or NAME=VALUE.
        secrets_file: path on the nodes of a file with the secrets of the job.
        name, num_cpus, num_gpus: see `Job`.

    Raises:
        ConfigError: there is no such folder; a folder of configuration would not arrive; a variable is not set; or the name, a
            variable or an override looks like a secret, which Ray would show.
    """
    if not working_dir.is_dir():
        raise ConfigError(f"--working-dir {working_dir}: no such folder")
    folder = working_dir.resolve()
    if name is not None and (not name.strip() or not name.isprintable() or holds_secret(name)):
        raise ConfigError("--name: must be words that everybody may read, on one line")
    variables: dict[str, str] = {} if secrets_file is None else {FILE_VARIABLE: secrets_file}
    if named := [one for one in environment.get(FOLDERS_VARIABLE, "").split(os.pathsep) if one]:
        variables[FOLDERS_VARIABLE] = os.pathsep.join(_on_the_nodes(one, folder, FOLDERS_VARIABLE) for one in named)
    for item in passed:
        variable, given, value = item.partition("=")
        if not given and variable not in environment:
            raise ConfigError(f"--env {variable}: is not set here; give --env {variable}=VALUE")
        variables[variable] = value if given else environment[variable]
        if is_secret(variable, variables[variable]):
            raise ConfigError(
                f"--env {variable}: looks like a secret, and Ray shows a job's variables in its dashboard and its logs; put it "
                "into a file on the nodes (--secrets PATH)"
            )
    for item in overrides:
        if holds_secret_override(item):
            raise ConfigError(
                f"{item.partition('=')[0]}: looks like a user name, a password or a key, and Ray shows a job's command line; "
                "put it into a file on the nodes (--secrets PATH)"
            )
    words = list(overrides)
    for i, word in enumerate(words[1:], start=1):
        if words[i - 1] == "--config-dir":
            words[i] = _on_the_nodes(word, folder, "--config-dir")
    if sends_this_code(folder) and (sent := commit()["commit"]) is not None:
        variables[COMMIT_VARIABLE] = sent  # the repository itself stays behind
    return Job(
        shlex.join(["lrm-safety", command, *words]), folder, variables, name, num_cpus, num_gpus, patterns(folder)
    )


def sends_this_code(folder: Path) -> bool:
    """Whether a job of the folder runs the lrm_safety that runs here."""
    return (folder / "lrm_safety").resolve() == Path(__file__).resolve().parent


def name_for(command: str, overrides: Sequence[str]) -> str | None:
    """What a job is called that nobody named: by its run folder, as the points of a sweep are, or else by its command and
    experiment; None where that may not be shown."""
    given = {key: value for key, _, value in (item.partition("=") for item in overrides)}
    name = given.get("run.directory", "").strip("'\"") or " ".join(filter(None, (command, given.get("experiment"))))
    return name if name.isprintable() and not holds_secret(name) else None


def _on_the_nodes(named: str, working_dir: Path, key: str) -> str:
    """What a folder of configuration is called in the job, which runs in a copy of `working_dir`. An absolute path elsewhere
    stays: it may be on storage that the nodes see."""
    path = Path(named)
    if path.resolve().is_relative_to(working_dir):
        return str(path.resolve().relative_to(working_dir))
    if not path.is_absolute():
        raise ConfigError(f"{key}: {named} lies outside {working_dir}, which is sent, and would be absent in the job")
    return named


def connect(address: str | None) -> JobSubmissionClient:
    """Open the job server of a cluster; None takes RAY_API_SERVER_ADDRESS, then this machine's.

    Raises:
        ConfigError: `address` is not an http(s) address, or RAY_AUTH_TOKEN_PATH names no file with a token.
        ClusterError: nothing listens there, it is silent, is something else, or refuses us (token authentication).
    """
    check_ray_token(os.environ)
    address = address or os.environ.get(ADDRESS_VARIABLE) or DEFAULT_ADDRESS
    _look_for_http(address)

    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    # Of ignore files, folders left out, packages, closed connections; two of these set a level of their own.
    for chatty in ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        if fault := ray_token_fault(os.environ):
            raise ConfigError(fault) from None
        held = any(os.environ.get(name) for name in TOKEN_VARIABLES)
        raise ClusterError(
            f"the Ray cluster at {address} wants its token{', and not the one that is set here' * held}: set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's, which `ray get-auth-token` "
            "prints on its head"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(
            f"what answers at {address} is not a Ray job server ({first_line(error)}); jobs go to the dashboard, port 8265 unless "
            "`ray start --dashboard-port` said otherwise"
        ) from None


def _look_for_http(address: str) -> None:
    """Raise where no HTTP server answers in ten seconds: Ray's own client waits without a limit for one that is silent."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:  # a port that is no number
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--address must look like http://HOST:8265 (Ray dashboard), not {address!r}")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, port, timeout=CONNECT_TIMEOUT_SECONDS)
    try:
        connection.connect()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}): start one with `ray start --head`, forward the dashboard's "
            "port, or name another with --address"
        ) from None
    try:
        connection.request("GET", "/api/version")
        status = connection.getresponse().status
    except TimeoutError:
        raise ClusterError(
            f"no answer from {address} within {CONNECT_TIMEOUT_SECONDS:g} s, though the port is open: the head may be busy; "
            "try again, or look at its load (`ray status` there)"
        ) from None
    except (OSError, http.client.HTTPException):
        raise ClusterError(
            f"what answers at {address} is not a Ray dashboard, whose port is 8265 unless `ray start --dashboard-port` says "
            "another; 6379 is that of the cluster's nodes and 10001 that of Ray's client"
        ) from None
    finally:
        connection.close()
    if status in UNAVAILABLE:
        raise ClusterError(
            f"{address} answers with HTTP status {status}: what stands before the dashboard cannot reach it; the head may be busy "
            "or just starting, try again"
        )


def submit(client: JobSubmissionClient, job: Job) -> str:
    """Upload the working directory, start the job and return its submission id.

    A cluster that has just started may not have its job agent yet; this waits `AGENT_TIMEOUT_SECONDS` for it.

    Raises:
        ClusterError: the cluster refused the job, most often because the working directory is over Ray's limit.
    """
    began, said = time.monotonic(), False
    while True:
        try:
            return client.submit_job(
                entrypoint=job.entrypoint,
                runtime_env=job.runtime_env(),
                metadata={NAME_KEY: job.name} if job.name else None,
                entrypoint_num_cpus=job.num_cpus,
                entrypoint_num_gpus=job.num_gpus,
            )
        except (RuntimeError, ValueError, ConnectionError) as error:
            refusal = first_line(error)
        if NO_AGENT not in refusal:
            raise ClusterError(
                f"the cluster did not take the job: {refusal} (a large file under {job.working_dir} belongs "
                "into .rayignore)"
            )
        if time.monotonic() > began + AGENT_TIMEOUT_SECONDS:
            raise ClusterError(
                f"the cluster has no job agent after {AGENT_TIMEOUT_SECONDS:g} s: another Ray on its head may hold the "
                "agent's port, 52365; start the head anew with `ray start --dashboard-agent-listen-port=52366`"
            )
        if not said and time.monotonic() > began + QUIET_SECONDS:
            said = True
            print(f"waiting for the cluster's job agent, at most {AGENT_TIMEOUT_SECONDS:g} s ...", flush=True)
        time.sleep(POLL_SECONDS)


def follow(client: JobSubmissionClient, submission_id: str, address: str | None) -> int:
    """Print the job's log as it grows; return the exit code of its entrypoint (143 if somebody stopped it).

    `address` is what was given for the cluster's, which the commands that are shown name again.

    Raises:
        ClusterError: the connection broke; the job itself goes on.
    """
    try:
        asyncio.run(_print_log(client, submission_id))
        return _final_exit_code(client, submission_id, address)
    except BrokenPipeError:
        raise  # whoever reads our output has closed it
    except (RuntimeError, OSError) as error:
        raise ClusterError(
            f"lost the log of {submission_id} ({first_line(error)}); the job goes on: "
            f"{jobs_command('logs --follow', submission_id, address)}"
        ) from None


async def _print_log(client: JobSubmissionClient, submission_id: str) -> None:
    async for lines in client.tail_job_logs(submission_id):
        sys.stdout.write(lines)
        sys.stdout.flush()


def _final_exit_code(client: JobSubmissionClient, submission_id: str, address: str | None) -> int:
    from ray.job_submission import JobStatus

    deadline = time.monotonic() + FINAL_STATUS_TIMEOUT_SECONDS
    while not (info := client.get_job_info(submission_id)).status.is_terminal():
        if time.monotonic() > deadline:  # the log ends before the status turns, but not by this much
            raise ClusterError(
                f"job {submission_id} is {info.status} though its log has ended: "
                f"{jobs_command('status', submission_id, address)}"
            )
        time.sleep(POLL_SECONDS)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        print(f"job {submission_id} was stopped", file=sys.stderr)
        return STOPPED_EXIT_CODE
    code = info.driver_exit_code or 1
    hint = "; is lrm-safety on the PATH of the cluster's nodes?" if code == NOT_FOUND_EXIT_CODE else ""
    print(f"job {submission_id} failed with exit code {code}{hint}", file=sys.stderr)
    return code


def jobs_command(verb: str, job: str, address: str | None) -> str:
    """What is typed to look at a job or to stop it; `address` as it was given, None where it was found without."""
    return shlex.join(["lrm-safety", "jobs", *verb.split(), *(["--address", address] if address else []), job])


def jobs_of(client: JobSubmissionClient) -> list[JobDetails]:
    """The jobs that were submitted to the cluster since it started, the newest last."""
    # What a driver is that somebody started by hand has no submission id.
    return sorted((job for job in client.list_jobs() if job.submission_id), key=lambda job: job.start_time or 0)


def name_of(job: JobDetails) -> str:
    """What `--name` called it; empty for a job without a name."""
    name = (job.metadata or {}).get(NAME_KEY, "")
    return "" if name == job.submission_id else name


def find_job(client: JobSubmissionClient, called: str) -> JobDetails:
    """The job of this submission id or name, or else the one whose name alone ends with it from one of its / on, or whose id does
    after its prefix. Of several jobs of one name that which runs, or else the newest, which is said.

    Raises:
        ClusterError: there is none, or there are several that are not the same one again.
    """
    jobs = jobs_of(client)
    found = (
        [job for job in jobs if job.submission_id == called]
        or [job for job in jobs if called and name_of(job) == called]
        or [job for job in jobs if name_of(job).endswith(f"/{called}")]
        or [job for job in jobs if str(job.submission_id).endswith(f"_{called}")]
    )
    if not found:
        names = dict.fromkeys(name_of(job).rpartition("/")[2] or str(job.submission_id) for job in reversed(jobs))
        known = ", ".join([*names][:NUM_SHOWN])
        told = f"the newest are {known}; `lrm-safety jobs` lists all" if known else "it had none yet"
        raise ClusterError(f"the cluster knows no job {called} ({told})")
    several = dict.fromkeys(name_of(job) or str(job.submission_id) for job in found)
    if len(several) > 1:
        raise ClusterError(f"{called}: several jobs end like this; give more of one: {', '.join(several)}")
    living = [job for job in found if not job.status.is_terminal()]
    if len(living) > 1:
        raise ClusterError(f"{called}: several jobs of this name run; give an id of {_ids(living)}")
    chosen = (living or found)[-1]
    if len(found) > 1:
        which = "the one that runs" if living else "the newest"
        print(f"{len(found)} jobs have this name; {which} is {chosen.submission_id}", file=sys.stderr)
    return chosen


def _ids(jobs: Sequence[JobDetails]) -> str:
    return ", ".join(str(job.submission_id) for job in jobs)


def stop_wait_seconds(job: JobDetails) -> int | None:
    """How long Ray waits for this job after SIGTERM, by the job's own variables; None where these do not say, and what its node
    had at `ray start` counts, which no other machine knows, or else Ray's `RAYS_STOP_WAIT_SECONDS`."""
    told = (job.runtime_env or {}).get("env_vars", {}).get(STOP_WAIT_VARIABLE, "")
    return int(told) if told.isdecimal() else None


def stop(client: JobSubmissionClient, job: JobDetails) -> None:
    """Ask Ray to stop a job: SIGTERM, and SIGKILL where the job has not ended in time (`stop_wait_seconds`).

    Raises:
        ClusterError: it is over already.
    """
    if job.status.is_terminal() or not client.stop_job(str(job.submission_id)):
        raise ClusterError(f"job {job.submission_id} is over already ({job.status})")
