"""Hand a command of ours to a running Ray cluster as a job, follow its log, and return its exit code.

The whole checkout travels as the job's working directory, less what `.gitignore` and `.rayignore` name, so the cluster
runs the code and the configuration that lie here. The cluster's image has to hold the dependencies (docker/).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from .credentials import FILE_VARIABLE, holds_secret, is_secret
from .environment import COMMIT_VARIABLE, commit
from .errors import ClusterError, ConfigError, first_line

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

DEFAULT_ADDRESS = "http://127.0.0.1:8265"
NOT_PASSED_ON = ("WANDB_API_KEY", "HF_TOKEN")
"""Secrets that a submitter often has, and that travel in a file of the nodes alone (credentials.py)."""
STOP_WAIT_VARIABLE, STOP_WAIT_SECONDS = "RAY_JOB_STOP_WAIT_TIME_S", "1800"
"""How long `ray job stop` waits before it kills; Ray's own 3 s are over before an iteration has ended and is saved."""
CONNECT_TIMEOUT_SECONDS = 10.0
AGENT_TIMEOUT_SECONDS = 60.0
NO_AGENT = "No available agent"
"""What Ray's job server answers, after ten seconds of its own, while its node's agent is not up."""
FINAL_STATUS_TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.5
STOPPED_EXIT_CODE = 130
NOT_FOUND_EXIT_CODE = 127


@dataclass(frozen=True)
class Job:
    """What is submitted: a shell line, the folder it runs in, and the variables it gets besides the cluster's own."""

    entrypoint: str
    working_dir: Path
    environment: Mapping[str, str]
    num_cpus: float | None = None
    """CPUs that Ray reserves for the command itself, besides those of its workers; None: as the cluster does by default."""
    num_gpus: float | None = None
    """GPUs that Ray reserves for, and shows to, the command itself: `evaluate` and `analyze` run their models there."""

    def runtime_env(self) -> dict[str, Any]:
        variables = {STOP_WAIT_VARIABLE: STOP_WAIT_SECONDS, **self.environment}
        if (sent := commit()["commit"]) is not None:
            variables[COMMIT_VARIABLE] = sent  # the repository itself stays behind
        return {"working_dir": str(self.working_dir), "env_vars": variables}

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
) -> Job:
    """Put together `lrm-safety COMMAND OVERRIDES` as a job of the checkout `working_dir`.

    Args:
        command: a subcommand, such as `train`.
        overrides: Hydra overrides; each is quoted for the shell, so lists and spaces arrive whole.
        environment: the submitter's variables.
        passed: variables that go with the job, NAME (of `environment`) or NAME=VALUE.
        secrets_file: path on the nodes of a file with the secrets of the job.

    Raises:
        ConfigError: `working_dir` is not a checkout, so the job would arrive without code or configuration; a variable is not
            set; or a variable or an override looks like a secret, which Ray would show.
    """
    for needed in ("lrm_safety", "conf"):
        if not (working_dir / needed).is_dir():
            raise ConfigError(
                f"{working_dir} holds no {needed}/: submit from a checkout, or name one with --working-dir"
            )
    variables: dict[str, str] = {} if secrets_file is None else {FILE_VARIABLE: secrets_file}
    for item in passed:
        name, given, value = item.partition("=")
        if not given and name not in environment:
            raise ConfigError(f"--env {name}: is not set here; give --env {name}=VALUE")
        variables[name] = value if given else environment[name]
        if is_secret(name, variables[name]):
            raise ConfigError(
                f"--env {name}: looks like a secret, and Ray shows a job's variables in its dashboard and its logs; put it into "
                "a file on the nodes (--secrets PATH)"
            )
    for item in overrides:
        if holds_secret(item):
            raise ConfigError(
                f"{item.partition('=')[0]}: holds a user name, a password or a key, and Ray shows a job's command line; "
                "put it into a file on the nodes (--secrets PATH)"
            )
    return Job(shlex.join(["lrm-safety", command, *overrides]), working_dir.resolve(), variables)


def connect(address: str) -> JobSubmissionClient:
    """Open the job server of a cluster.

    Raises:
        ConfigError: `address` is not an http(s) address.
        ClusterError: nothing listens there, or it refuses us (token authentication).
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(f"--address must look like http://HOST:8265 (Ray dashboard), not {address!r}")
    try:  # Ray's own client waits without a limit where packets are dropped
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname, port), CONNECT_TIMEOUT_SECONDS).close()
    except OSError as error:
        raise ClusterError(
            f"no Ray cluster answers at {address} ({error}): start one with `ray start --head`, forward the dashboard's "
            "port, or name another with --address"
        ) from None

    from ray.exceptions import AuthenticationError
    from ray.job_submission import JobSubmissionClient

    logging.getLogger("ray").setLevel(logging.WARNING)  # a line for every ignore file it reads
    try:
        return JobSubmissionClient(address)
    except AuthenticationError:
        raise ClusterError(
            f"the Ray cluster at {address} wants its token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN (or "
            "RAY_AUTH_TOKEN_PATH) to the cluster's, which `ray get-auth-token` prints on its head"
        ) from None
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ClusterError(f"what answers at {address} is not a Ray job server: {first_line(error)}") from None


def submit(client: JobSubmissionClient, job: Job) -> str:
    """Upload the working directory, start the job and return its submission id.

    A cluster that has just started may not have its job agent yet; this waits `AGENT_TIMEOUT_SECONDS` for it.

    Raises:
        ClusterError: the cluster refused the job, most often because the working directory is over Ray's limit.
    """
    deadline = time.monotonic() + AGENT_TIMEOUT_SECONDS
    while True:
        try:
            return client.submit_job(
                entrypoint=job.entrypoint,
                runtime_env=job.runtime_env(),
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
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the cluster has no job agent after {AGENT_TIMEOUT_SECONDS:g} s: another Ray on its head may hold the "
                "agent's port; end that one with `ray stop`, or start with `ray start --dashboard-agent-listen-port`"
            )
        time.sleep(POLL_SECONDS)


def follow(client: JobSubmissionClient, submission_id: str) -> int:
    """Print the job's log as it grows; return the exit code of its entrypoint (130 if somebody stopped it).

    Raises:
        ClusterError: the connection broke; the job itself goes on.
    """
    try:
        asyncio.run(_print_log(client, submission_id))
        return _final_exit_code(client, submission_id)
    except (RuntimeError, OSError) as error:
        raise ClusterError(
            f"lost the log of {submission_id} ({first_line(error)}); the job goes on: ray job logs -f {submission_id}"
        ) from None


async def _print_log(client: JobSubmissionClient, submission_id: str) -> None:
    async for lines in client.tail_job_logs(submission_id):
        sys.stdout.write(lines)
        sys.stdout.flush()


def _final_exit_code(client: JobSubmissionClient, submission_id: str) -> int:
    from ray.job_submission import JobStatus

    deadline = time.monotonic() + FINAL_STATUS_TIMEOUT_SECONDS
    while not (info := client.get_job_info(submission_id)).status.is_terminal():
        if time.monotonic() > deadline:  # the log ends before the status turns, but not by this much
            raise ClusterError(
                f"job {submission_id} is {info.status} though its log has ended: ray job status {submission_id}"
            )
        time.sleep(POLL_SECONDS)
    if info.status == JobStatus.SUCCEEDED:
        return 0
    if info.status == JobStatus.STOPPED:
        return STOPPED_EXIT_CODE
    code = info.driver_exit_code or 1
    hint = "; is lrm-safety on the PATH of the cluster's nodes?" if code == NOT_FOUND_EXIT_CODE else ""
    print(f"job {submission_id} failed with exit code {code}{hint}", file=sys.stderr)
    return code


def run_job(
    command: str,
    overrides: Sequence[str],
    *,
    address: str | None,
    working_dir: Path,
    wait: bool,
    passed: Sequence[str] = (),
    secrets_file: str | None = None,
    num_cpus: float | None = None,
    num_gpus: float | None = None,
) -> int:
    """Submit and, if `wait`, follow to the end. Interrupting the wait leaves the job running.

    Args:
        address: the dashboard; None takes RAY_API_SERVER_ADDRESS, then this machine's.
        passed, secrets_file: see `plan_job`.
        num_cpus, num_gpus: see `Job`.

    Returns:
        The job's exit code; 0 without `wait`; 130 if interrupted.
    """
    job = replace(
        plan_job(command, overrides, os.environ, working_dir, passed, secrets_file),
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    if secrets_file is None and (held := [name for name in NOT_PASSED_ON if os.environ.get(name)]):
        print(
            f"{' and '.join(held)} set here and not passed on, since Ray shows a job's variables: the nodes need their own, or "
            "--secrets PATH of a file on them",
            file=sys.stderr,
        )
    target = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT_ADDRESS
    client = connect(target)
    submission_id = submit(client, job)
    print(f"submitted {submission_id}: {job.entrypoint}", flush=True)
    if not wait:
        print(f"follow it: ray job logs -f --address {target} {submission_id}")
        return 0
    try:
        return follow(client, submission_id)
    except KeyboardInterrupt:
        print(f"\nthe job goes on; stop it: ray job stop --address {target} {submission_id}", file=sys.stderr)
        return STOPPED_EXIT_CODE
