"""`lrm-safety submit` and `lrm-safety jobs`: commands of ours as jobs of a running Ray cluster."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console

from ..errors import ClusterError, ConfigError, nearest
from ..interruption import RAYS_STOP_WAIT_SECONDS, STOP_WAIT_VARIABLE
from ..launching import (
    POLL_SECONDS,
    STOP_WAIT_SECONDS,
    Job,
    connect,
    find_job,
    follow,
    jobs_command,
    jobs_of,
    name_for,
    name_of,
    plan_job,
    sends_this_code,
    stop,
    stop_wait_seconds,
)
from ..launching import submit as submit_job
from ..run_folder import refuse_relative
from ..secret_text import without_secrets
from ..sweeping import last_error
from ..terminal import print_table
from ..upload import DEFAULT_LIMIT_MIB, RAY_LIMIT_MIB, look_at
from ..usage import COMMANDS, help_of
from .sweep import refuse_too_large

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

NOT_PASSED_ON = ("WANDB_API_KEY", "HF_TOKEN")
"""Secrets that a submitter often has, and that travel in a file of the nodes alone (credentials.py)."""
INTERRUPTED_EXIT_CODE = 130
LOG_OF_A_FAILURE = ", last available logs"
"""What Ray puts between its own words about a failed job and the end of its log, in its job_supervisor.py."""
MAY_BE_INSTALLED = "or package.module:NAME of your own"
"""What is said of a name that no package here has given to anything (registry.py)."""
OF_A_POINT = ("tracking.name", "tracking.group", "tracking.tags")
"""Keys that a sweep gives every point for W&B; what tells the points apart stands in their other words."""
SHOWING = ("--cfg", "-c", "--info", "-i", "--help", "-h", "--hydra-help")
"""Flags with which a command shows something and runs nothing."""
STOP_GRACE_SECONDS = 60.0
"""After Ray's own limit, for its SIGKILL and its bookkeeping."""


class _Parser(argparse.ArgumentParser):
    """Arguments of one command; what is wrong with them is one line."""

    def __init__(self, command: str, *, of_a_job: bool = False) -> None:
        super().__init__(command, add_help=False, allow_abbrev=False)
        self.add_argument("--address")
        if of_a_job:
            self.add_argument("job")

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{self.prog}: {message}; `lrm-safety {self.prog.split()[0]} --help` lists what it knows")


def submit(arguments: Sequence[str]) -> int:
    """Send the working folder, start a command of ours as a job and, unless --no-wait is given, follow it to its end.

    Interrupting the wait leaves the job running. Returns the job's exit code: 143 where it was stopped, 130 where the wait was
    interrupted; 0 with --no-wait. Raises ConfigError before anything is sent, ClusterError for what the cluster refuses.
    """
    given = _submit_options(arguments)
    job = plan_job(
        given.command,
        given.overrides,
        os.environ,
        given.working_dir,
        given.env,
        given.secrets,
        name=name_for(given.command, given.overrides) if given.name is None else given.name,
        num_cpus=given.entrypoint_num_cpus,
        num_gpus=given.entrypoint_num_gpus,
    )
    composed = _refuse_early(given.command, given.overrides, job)
    upload = look_at(job.working_dir, given.max_upload)
    if given.secrets is None and (held := _secrets_here(given.overrides)):
        print(
            f"{' and '.join(held)} set here and not passed on, since Ray shows a job's variables: the nodes need their own, or "
            "--secrets PATH of a file on them",
            file=sys.stderr,
        )
    client = connect(given.address)
    refuse_too_large(client, given.command, composed, job)
    print(upload, flush=True)
    submission_id = submit_job(client, job)
    print(f"submitted {submission_id}: {job.entrypoint}", flush=True)
    if not given.wait:
        print(f"follow it: {jobs_command('logs --follow', submission_id, given.address)}")
        return 0
    return _follow(client, submission_id, given.address)


def _submit_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = _Parser("submit")
    parser.add_argument("--working-dir", type=Path, default=Path())
    parser.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--name")
    parser.add_argument("--env", action="append", default=[])
    parser.add_argument("--secrets")
    parser.add_argument("--max-upload", type=int, default=DEFAULT_LIMIT_MIB)
    parser.add_argument("--entrypoint-num-cpus", type=float)
    parser.add_argument("--entrypoint-num-gpus", type=float)
    parser.add_argument("words", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    words = given.words[1:] if given.words[:1] == ["--"] else given.words
    if not words:
        parser.error("give a command after the options, such as `-- train experiment=miniature`")
    given.command, given.overrides = words[0], words[1:]
    known = {name.split()[0] for name in COMMANDS} | {"help"}
    if given.command not in known:
        near = nearest(given.command, known)
        raise ConfigError(
            f"submit: {given.command} is no command of ours" + (f"; did you mean {near}?" if near else "")
        )
    flags = [word.partition("=")[0] for word in given.overrides]
    if shows := next((flag for flag in flags if flag in SHOWING), None):
        here = shlex.join(["lrm-safety", given.command, *map(without_secrets, given.overrides)])
        raise ConfigError(f"submit: {shows} only shows something, for which no job is needed; without submit: `{here}`")
    own = {option for action in parser._actions for option in action.option_strings}
    taken = "" if given.command == "help" else help_of(given.command)
    if misplaced := next((flag for flag in flags if flag in own and flag not in taken), None):
        raise ConfigError(
            f"submit: {misplaced} is an option of submit, which stands before the command: "
            f"`lrm-safety submit {misplaced} ... -- {given.command} ...`"
        )
    if not 0 < given.max_upload <= RAY_LIMIT_MIB:
        raise ConfigError(f"--max-upload {given.max_upload}: must be 1 to {RAY_LIMIT_MIB} MiB, the most that Ray takes")
    return given


def _refuse_early(command: str, overrides: Sequence[str], job: Job) -> list[Any]:
    """The settings of a job's runs, none where they cannot be composed here.

    Raise ConfigError for what the job would refuse as soon as it has composed its configuration, where this machine can tell: the
    command reads one, and the folder that is sent is the one whose packages are found here. What only the nodes know, their
    variables, packages and folders of configuration, is left to them; so are files of models and data.
    """
    words = [command, *overrides]
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else command
    found, arguments = COMMANDS.get(name), words[len(name.split()) :]
    other_code = (job.working_dir / "lrm_safety").exists() and not sends_this_code(job.working_dir)
    composed: list[Any] = []
    if found is None or not found.configured or other_code or job.working_dir != Path.cwd():
        return composed
    assert found.root is not None
    from ..settings.compose import HYDRA_ERRORS, ROOTS
    from .launch import compositions, parse

    root = ROOTS[found.root]
    given = parse(arguments, root)
    if _composes_elsewhere(given, job):
        return composed
    hydra = root.hydra(given.overrides, given.folders)
    try:
        composed = compositions(root, given, hydra)[2]
    except HYDRA_ERRORS as error:
        raise ConfigError(root.mistakes(hydra, given.overrides).explain(error)) from error
    except ConfigError as error:
        if not _of_the_nodes(error):
            raise
    # Where it is not given, LRM_SAFETY_RUNS of the nodes decides; so do other variables in what is.
    directory = dict(item.partition("=")[::2] for item in given.overrides).get("run.directory", "$").strip("'\"")
    if "$" not in directory:
        refuse_relative(Path(directory))
    return composed


def _composes_elsewhere(given: argparse.Namespace, job: Job) -> bool:
    """Whether a folder of groups of the user's own is not here, or another one is the job's alone."""
    from ..settings.compose import parsed
    from ..settings.loader import FOLDERS_VARIABLE
    from .launch import own_groups

    values: list[Any] = [item.value() for item in parsed(own_groups(given))]
    named = [str(one) for value in values for one in value]
    folders = [Path(one.removeprefix("file://")) for one in named if not one.startswith("pkg://")]
    here, there = (
        {Path(one).absolute() for one in variables.get(FOLDERS_VARIABLE, "").split(os.pathsep) if one}
        for variables in (os.environ, job.environment)
    )
    return here != there or not all(one.is_dir() for one in (*here, *folders))


def _of_the_nodes(error: ConfigError) -> bool:
    """Whether the nodes may have what is absent here: a variable, a package, or a name that an installed package gives."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    told = ("Environment variable", MAY_BE_INSTALLED)
    return any(isinstance(one, ImportError) or any(words in str(one) for words in told) for one in causes)


def _secrets_here(overrides: Sequence[str]) -> list[str]:
    """Names of the secrets that are set here and that the job may want."""
    named = [item.partition("=")[2] for item in overrides if item.partition("=")[0].endswith("api_key_env")]
    return [name for name in dict.fromkeys((*NOT_PASSED_ON, *named)) if os.environ.get(name)]


def jobs(arguments: Sequence[str]) -> int:
    """Run `jobs [list | status JOB | logs JOB | stop JOB]`; returns the exit status, that of the job for `logs --follow`.

    Raises ConfigError for other arguments, ClusterError for an unknown job and for one that is over where it is to be stopped.
    """
    parts = {"list": _list, "status": _status, "logs": _logs, "stop": _stop}
    first, *rest = arguments or ["list"]
    if first.startswith("-"):
        first, rest = "list", list(arguments)
    if first not in parts:
        raise ConfigError(f"jobs: knows {', '.join(parts)}, not {first}")
    return parts[first](rest)


def _list(arguments: Sequence[str]) -> int:
    parser = _Parser("jobs list")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(arguments)
    found = [_facts(job) for job in jobs_of(connect(given.address))]
    if given.json:
        print(json.dumps(found, indent=2))
    elif not found:
        print("the cluster had no job yet")
    else:
        head = ["id", "name", "status", "started", "took", "command", "why"]
        rows = [[str(one.get(column) or "") for column in head] for one in map(_in_a_list, found)]
        print_table(Console(), "jobs of the cluster, the newest last", head, rows, left=len(head))
    return 0


def _status(arguments: Sequence[str]) -> int:
    parser = _Parser("jobs status", of_a_job=True)
    given = parser.parse_args(arguments)
    for name, value in _facts(find_job(connect(given.address), given.job)).items():
        if value not in (None, ""):
            print(f"{name:<10} {value}")
    return 0


def _logs(arguments: Sequence[str]) -> int:
    parser = _Parser("jobs logs", of_a_job=True)
    parser.add_argument("--follow", "-f", action="store_true")
    given = parser.parse_args(arguments)
    client = connect(given.address)
    submission_id = str(find_job(client, given.job).submission_id)
    if given.follow:
        return _follow(client, submission_id, given.address)
    sys.stdout.write(client.get_job_logs(submission_id))
    return 0


def _stop(arguments: Sequence[str]) -> int:
    parser = _Parser("jobs stop", of_a_job=True)
    parser.add_argument("--wait", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args(arguments)
    client = connect(given.address)
    job = find_job(client, given.job)
    stop(client, job)
    seconds, began = stop_wait_seconds(job), time.monotonic()
    limit = (
        f"{seconds} s ({STOP_WAIT_VARIABLE} of the job)"
        if seconds is not None
        else f"what the nodes had as {STOP_WAIT_VARIABLE} at `ray start`, {RAYS_STOP_WAIT_SECONDS} s where they had none, since "
        "the job has none of its own"
    )
    print(
        f"{job.submission_id} was sent SIGTERM: a run that has begun to train saves a checkpoint and ends, any other ends; Ray "
        f"kills it after {limit}",
        flush=True,
    )
    if not given.wait:
        return 0
    while not client.get_job_status(str(job.submission_id)).is_terminal():
        if (waited := time.monotonic() - began) > (seconds or STOP_WAIT_SECONDS) + STOP_GRACE_SECONDS:
            raise ClusterError(f"job {job.submission_id} has not ended {waited:.0f} s after it was stopped")
        time.sleep(POLL_SECONDS)
    print(f"it ended after {time.monotonic() - began:.0f} s")
    return 0


def _follow(client: JobSubmissionClient, submission_id: str, address: str | None) -> int:
    """The exit code of the job; 130 after Ctrl-C, which leaves it running."""
    try:
        return follow(client, submission_id, address)
    except KeyboardInterrupt:
        follow_it, stop_it = (jobs_command(verb, submission_id, address) for verb in ("logs --follow", "stop"))
        print(f"\nthe job goes on; follow it: {follow_it}; stop it: {stop_it}", file=sys.stderr)
        return INTERRUPTED_EXIT_CODE


def _facts(job: JobDetails) -> dict[str, str | int | None]:
    """What is shown of a job, by the names under which it is shown. Its variables are not."""
    started = None if job.start_time is None else datetime.fromtimestamp(job.start_time / 1000, UTC)
    ended = datetime.fromtimestamp(job.end_time / 1000, UTC) if job.end_time else datetime.now(UTC)
    return {
        "id": job.submission_id,
        "name": name_of(job),
        "status": job.status.value,
        "exit code": job.driver_exit_code,
        "started": f"{started:%Y-%m-%d %H:%M:%S} UTC" if started else None,
        "took": str(ended - started).partition(".")[0] if started else None,
        "command": job.entrypoint,
        "message": _message(job.message or ""),
    }


def _message(said: str) -> str:
    """What Ray says of a job, in one line: of one that failed, the error out of the end of its log, which Ray adds."""
    first, has_log, log = said.partition(LOG_OF_A_FAILURE)
    told = last_error(log.partition("\n")[2]) if has_log else ""
    return told or next(iter(first.splitlines()), "")


def _in_a_list(facts: Mapping[str, str | int | None]) -> dict[str, str | int | None]:
    """The same without what tells no job from another: the program, how a sweep calls a point in the tracker, and a run's folder
    that is the job's name; a cause for what failed alone."""
    called = {f"run.directory={facts['name']}", "lrm-safety"}
    try:
        words = shlex.split(str(facts["command"]))
    except ValueError:  # a shell line of somebody else's
        words = [str(facts["command"])]
    told = [word for word in words if word not in called and word.partition("=")[0] not in OF_A_POINT]
    failed = facts["status"] == "FAILED"
    return {
        **facts,
        "command": shlex.join(told) if len(told) < len(words) else facts["command"],
        "why": facts["message"] if failed else "",
    }
