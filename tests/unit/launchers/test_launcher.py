from __future__ import annotations

import inspect
import json
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from lrm_safety import launching
from lrm_safety.commands import jobs as commands
from lrm_safety.errors import ClusterError, ConfigError
from lrm_safety.launching import Job, connect, find_job, name_for, plan_job, submit


def test_overrides_reach_the_job_as_they_were_given(repository_root: Path) -> None:
    overrides = ["experiment=miniature", "tracking.tags=[a, b]", "run.name=it's $HOME", "seed=1,2"]
    job = plan_job("train", overrides, {}, repository_root)
    assert shlex.split(job.entrypoint) == ["lrm-safety", "train", *overrides]
    sent = job.runtime_env()
    assert sent["working_dir"] == str(repository_root) and sent.keys() == {"working_dir", "excludes", "env_vars"}
    # Ray gives a job 3 seconds to save unless told otherwise.
    assert int(sent["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"]) >= 600
    assert sent["env_vars"].keys() <= {"RAY_JOB_STOP_WAIT_TIME_S", "LRM_SAFETY_COMMIT"}


def test_the_commit_travels_with_the_code_and_not_with_another_folder(repository_root: Path, tmp_path: Path) -> None:
    """What runs from another folder is the lrm_safety of the cluster, whose commit nobody here knows."""
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=repository_root, capture_output=True, text=True
    ).stdout.strip()
    assert plan_job("train", [], {}, repository_root).environment == ({"LRM_SAFETY_COMMIT": head} if head else {})
    assert plan_job("train", [], {}, tmp_path).environment == {}


def test_folders_of_configuration_are_called_as_the_job_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/conf").mkdir(parents=True)
    given = {"LRM_SAFETY_CONF": f"{tmp_path}/mine/conf:/shared/conf"}
    job = plan_job("train", ["--config-dir", "mine/conf", "model=x"], given, tmp_path / "mine")
    assert job.environment["LRM_SAFETY_CONF"] == "conf:/shared/conf"
    assert shlex.split(job.entrypoint) == ["lrm-safety", "train", "--config-dir", "conf", "model=x"]
    with pytest.raises(ConfigError, match=r"--config-dir: conf lies outside .*mine, which is sent"):
        plan_job("train", ["--config-dir", "conf"], {}, tmp_path / "mine")
    with pytest.raises(ConfigError, match=r"LRM_SAFETY_CONF: \.\./conf lies outside"):
        plan_job("train", [], {"LRM_SAFETY_CONF": "../conf"}, tmp_path / "mine")


def test_only_named_variables_travel_and_of_secrets_the_file_alone(repository_root: Path) -> None:
    environment = {"WANDB_API_KEY": "k-123", "HF_HOME": "/hf", "HOME": "/home/x"}
    job = plan_job("train", [], environment, repository_root, ["HF_HOME", "WANDB_MODE=offline"], "/me/secrets")
    variables = job.runtime_env()["env_vars"]
    assert {name: variables[name] for name in variables.keys() - {"RAY_JOB_STOP_WAIT_TIME_S", "LRM_SAFETY_COMMIT"}} == {
        "HF_HOME": "/hf",
        "WANDB_MODE": "offline",
        "LRM_SAFETY_SECRETS": "/me/secrets",
    }
    assert "k-123" not in repr(job) + repr(job.runtime_env()) + job.entrypoint
    assert "/hf" not in repr(job) and "HF_HOME" in repr(job)


@pytest.mark.parametrize(
    ("overrides", "passed", "message"),
    [
        ([], ["WANDB_API_KEY"], "--env WANDB_API_KEY: looks like a secret"),
        ([], ["OPENAI_API_KEY=k-123"], "--env OPENAI_API_KEY: looks like a secret"),
        ([], ["PROXY=http://me:k-123@host"], "--env PROXY: looks like a secret"),
        ([], ["HF_HOME"], "--env HF_HOME: is not set here"),
        (["data.hub_id=https://me:k-123@host/x"], [], "data.hub_id: looks like a user name, a password or a key"),
        (["run.name=hf_abcdefghijklmnopqrst"], [], "run.name: looks like"),
        (["+reward.models.x.args.api_key=k-123"], [], "reward.models.x.args.api_key: looks like"),
        (["run.name=${oc.env:WANDB_API_KEY}"], [], "run.name: looks like"),
    ],
)
def test_secrets_are_refused_where_ray_would_show_them(
    repository_root: Path, overrides: list[str], passed: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        plan_job("train", overrides, {"WANDB_API_KEY": "k-123"}, repository_root, passed)
    assert "k-123" not in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "override",
    [
        "evaluation.judges.mine.api_key_env=JUDGE_KEY",
        "recipe.max_tokens=8",
        "run.directory=${oc.env:HOME}/x",
        "a.token=null",
    ],
)
def test_overrides_that_hold_no_secret_travel(tmp_path: Path, override: str) -> None:
    assert override in shlex.split(plan_job("train", [override], {}, tmp_path).entrypoint)


def test_a_folder_that_is_absent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--working-dir .*no such folder"):
        plan_job("train", [], {}, tmp_path / "absent")


@pytest.mark.parametrize("name", ["", " ", "two\nlines", "hf_abcdefghijklmnopqrst"])
def test_a_name_that_cannot_be_shown_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="--name"):
        plan_job("train", [], {}, tmp_path, name=name)


@pytest.mark.parametrize("address", ["head:8265", "ray://head:10001", "http://", "http://head:port"])
def test_an_address_that_is_no_dashboard_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="--address"):
        connect(address)


def test_a_token_file_that_is_absent_is_named_before_the_cluster_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "ray-token"))
    with pytest.raises(ConfigError, match=rf"^RAY_AUTH_TOKEN_PATH={tmp_path}/ray-token: no such file") as refused:
        connect("http://127.0.0.1:9")
    assert "\n" not in str(refused.value)


def test_no_cluster_is_one_line(repository_root: Path) -> None:
    with socket.socket() as held:  # bound but not listening: whoever connects is refused
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ClusterError, match="no Ray cluster answers"):
            connect(address)
        command = [sys.executable, "launchers/ray_job.py", "--address", address, "train", "experiment=miniature"]
        ended = subprocess.run(command, cwd=repository_root, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert ended.stdout == "" and len(ended.stderr.splitlines()) == 1
    assert ended.stderr.startswith("error: no Ray cluster answers at")


@pytest.mark.parametrize("answer", [b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", b""], ids=["gRPC", "nothing"])
def test_a_port_of_something_else_is_one_line(answer: bytes) -> None:
    """The GCS answers with frames of HTTP/2, of which HTTP/1 can read nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.sendall(answer)
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ClusterError, match="is not a Ray dashboard, whose port is 8265") as refused:
            connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert "\n" not in str(refused.value)


def test_a_head_that_is_silent_is_not_called_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching, "CONNECT_TIMEOUT_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,  # the kernel accepts, and nobody ever answers
        pytest.raises(ClusterError, match=r"no answer from \S+ within 0\.2 s.* the head may be busy") as refused,
    ):
        connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
    assert "is not a Ray" not in str(refused.value) and "\n" not in str(refused.value)


def test_a_proxy_before_a_head_that_is_away_is_not_called_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(ClusterError, match=r"answers with HTTP status 503: .* may be busy"):
            connect(f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join()


class Server:
    """A job server that gives these answers in turn, the last one for ever."""

    def __init__(self, *answers: str | Exception) -> None:
        self.answers = list(answers)
        self.request: dict[str, Any] = {}

    def submit_job(self, **request: Any) -> str:
        self.request = request
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


NO_AGENT_YET = RuntimeError(
    "Request failed with status code 500: No available agent to submit job, please try again later.."
)


def test_a_cluster_that_has_just_started_gets_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(launching, "POLL_SECONDS", 0.001)
    job = Job("lrm-safety train", tmp_path, {})
    assert submit(cast(Any, Server(NO_AGENT_YET, NO_AGENT_YET, "raysubmit_1")), job) == "raysubmit_1"
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(launching, "QUIET_SECONDS", 0.0)
    assert submit(cast(Any, Server(NO_AGENT_YET, NO_AGENT_YET, "raysubmit_1")), job) == "raysubmit_1"
    assert capsys.readouterr().out == "waiting for the cluster's job agent, at most 60 s ...\n", "once"

    monkeypatch.setattr(launching, "AGENT_TIMEOUT_SECONDS", 0.01)
    with pytest.raises(ClusterError, match=r"no job agent after 0.01 s.*52365.*listen-port=52366"):
        submit(cast(Any, Server(NO_AGENT_YET)), job)


def test_a_refused_job_names_the_mend_at_once(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match=r"package is too large.*rayignore"):
        submit(cast(Any, Server(ValueError("package is too large\nmore"), "taken")), Job("x", tmp_path, {}))


def test_a_command_gets_the_gpus_that_its_own_process_needs(tmp_path: Path) -> None:
    """An evaluation runs its engine in the job's own process, which sees no GPU unless it reserves one."""
    server = Server("raysubmit_1")
    submit(cast(Any, server), Job("lrm-safety evaluate", tmp_path, {}, "mine", num_gpus=1.0))
    # The names of Ray's JobSubmissionClient.submit_job.
    assert server.request["metadata"] == {"job_name": "mine"}
    assert server.request["entrypoint_num_gpus"] == 1.0 and server.request["entrypoint_num_cpus"] is None
    assert set(server.request) <= set(inspect.signature(JobSubmissionClient.submit_job).parameters)


def test_every_command_that_is_shown_names_the_cluster_it_was_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without it the command that is copied asks this machine's own cluster."""
    client, at = Cluster("raysubmit_1"), "http://head:8265"
    monkeypatch.setattr(commands, "connect", lambda address: client)
    client.log = KeyboardInterrupt()
    assert commands.jobs(["logs", "--follow", "--address", at, "raysubmit_1"]) == 130
    assert capsys.readouterr().err == (
        f"\nthe job goes on; follow it: lrm-safety jobs logs --follow --address {at} raysubmit_1; "
        f"stop it: lrm-safety jobs stop --address {at} raysubmit_1\n"
    )
    client.log = OSError("broken")
    with pytest.raises(ClusterError, match=rf"goes on: lrm-safety jobs logs --follow --address {at} raysubmit_1$"):
        commands.jobs(["logs", "--follow", "--address", at, "raysubmit_1"])
    monkeypatch.setattr(launching, "FINAL_STATUS_TIMEOUT_SECONDS", -1.0)
    client.log = None
    with pytest.raises(ClusterError, match=rf"has ended: lrm-safety jobs status --address {at} raysubmit_1$"):
        commands.jobs(["logs", "--follow", "--address", at, "raysubmit_1"])
    with pytest.raises(ClusterError, match=r"has ended: lrm-safety jobs status raysubmit_1$"):
        commands.jobs(["logs", "--follow", "raysubmit_1"])


@pytest.mark.parametrize(
    ("variables", "told", "patience"),
    [
        ({"RAY_JOB_STOP_WAIT_TIME_S": "90"}, "Ray kills it after 90 s (RAY_JOB_STOP_WAIT_TIME_S of the job)\n", 150),
        # Ray's own limit is then that of a process on a node, whose variables nobody asks for.
        ({}, "what the nodes had as RAY_JOB_STOP_WAIT_TIME_S at `ray start`, 3 s where they had none", 1860),
    ],
)
def test_how_long_a_stopped_job_may_take_is_said_as_far_as_it_is_known(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    told: str,
    patience: int,
) -> None:
    client, seconds = Cluster("raysubmit_1"), iter(range(0, 10_000, 10))
    client.jobs[0].runtime_env = {"env_vars": variables}
    monkeypatch.setattr(commands, "connect", lambda address: client)
    monkeypatch.setattr(commands.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(commands.time, "monotonic", lambda: next(seconds))
    with pytest.raises(ClusterError, match=rf"has not ended {patience + 10} s after it was stopped"):
        commands.jobs(["stop", "raysubmit_1"])
    assert told in capsys.readouterr().out


def test_a_job_is_found_by_what_people_type(capsys: pytest.CaptureFixture[str]) -> None:
    over = JobStatus.FAILED
    client: Any = Cluster()
    client.jobs = [
        job("raysubmit_a1", "/runs/one/seed-1__lr-0.1", 1, over),
        job("raysubmit_b2", "/runs/one/seed-1__lr-0.1", 2, over),
        job("raysubmit_c3", "/runs/one/seed-2__lr-0.1", 3, over),
        job("raysubmit_d4", "/runs/two/seed-2__lr-0.1", 4),
        job("raysubmit_e5", "", 5, over),
    ]
    for called, expected in {
        "raysubmit_a1": "raysubmit_a1",
        "a1": "raysubmit_a1",
        "e5": "raysubmit_e5",
        "two/seed-2__lr-0.1": "raysubmit_d4",
        "/runs/one/seed-2__lr-0.1": "raysubmit_c3",
    }.items():
        assert find_job(client, called).submission_id == expected
        assert capsys.readouterr().err == ""
    assert find_job(client, "seed-1__lr-0.1").submission_id == "raysubmit_b2"
    assert capsys.readouterr().err == "2 jobs have this name; the newest is raysubmit_b2\n"
    client.jobs[0].status = JobStatus.RUNNING
    assert find_job(client, "seed-1__lr-0.1").submission_id == "raysubmit_a1"
    assert capsys.readouterr().err == "2 jobs have this name; the one that runs is raysubmit_a1\n"
    with pytest.raises(
        ClusterError, match=r"seed-2__lr-0.1: several .*: /runs/one/seed-2__lr-0.1, /runs/two/seed-2__lr-0.1$"
    ):
        find_job(client, "seed-2__lr-0.1")
    client.jobs[1].status = JobStatus.RUNNING
    with pytest.raises(ClusterError, match=r"several jobs of this name run; give an id of raysubmit_a1, raysubmit_b2$"):
        find_job(client, "seed-1__lr-0.1")
    for called in ("seed-3", "o/seed-2__lr-0.1", "1", ""):  # nobody stops a job by a part of a word
        with pytest.raises(ClusterError, match=f"the cluster knows no job {called}"):
            find_job(client, called)


def test_a_job_that_is_not_found_is_told_from_few_of_the_newest() -> None:
    client: Any = Cluster()
    client.jobs = []
    with pytest.raises(ClusterError, match=r"^the cluster knows no job mine \(it had none yet\)$"):
        find_job(client, "mine")
    names = ["/runs/old", "/runs/one", "/runs/two/seed=1", "/runs/two/seed=1", "", "/runs/three"]
    client.jobs = [job(f"raysubmit_{place}", name, place) for place, name in enumerate(names)]
    told = r"\(the newest are three, raysubmit_4, seed=1, one; `lrm-safety jobs` lists all\)$"
    with pytest.raises(ClusterError, match=told):
        find_job(client, "mine")


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["experiment=miniature", "run.directory=/runs/mine", "seed=1"], "/runs/mine"),
        (["run.directory=/runs/a", "run.directory='/runs/b=1'"], "/runs/b=1"),
        (["seed=1", "experiment=miniature"], "train miniature"),
        (["seed=1"], "train"),
        (["experiment=two\nlines"], None),
    ],
)
def test_a_job_that_nobody_named_has_a_name(overrides: list[str], name: str | None) -> None:
    assert name_for("train", overrides) == name


def test_a_list_shows_what_tells_jobs_apart_and_why_they_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client: Any = Cluster()
    client.jobs = [
        job("raysubmit_a1", "/runs/small/seed-1", 1_796_000_000_000, JobStatus.FAILED),
        job("raysubmit_b2", "", 1_796_000_060_000),
    ]
    words = ["experiment=miniature", "seed=1", "run.directory=/runs/small/seed-1"]
    words += ["tracking.name=x seed=1", "tracking.group=x", "tracking.tags=[seed=1]"]
    client.jobs[0].entrypoint = shlex.join(["lrm-safety", "train", *words])
    client.jobs[0].message = (  # as in Ray's job_supervisor.py
        "Job entrypoint command failed with exit code 1, last available logs (truncated to 20,000 chars):\n"
        "start groups ...\nerror: data.path=/x: no such file\nat the end\n"
    )
    client.jobs[0].driver_exit_code, client.jobs[0].end_time = 1, 1_796_000_030_000
    client.jobs[1].entrypoint, client.jobs[1].message = "echo 'it", "Job is currently running."
    monkeypatch.setattr(commands, "connect", lambda address: client)
    assert commands.jobs(["list", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["command"] == client.jobs[0].entrypoint and first["message"] == "error: data.path=/x: no such file"
    assert (first["status"], first["started"], first["took"]) == ("FAILED", "2026-11-30 00:53:20 UTC", "0:00:30")
    assert second["message"] == "Job is currently running."
    monkeypatch.setenv("COLUMNS", "200")
    assert commands.jobs(["list"]) == 0
    printed = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line for line in printed if "raysubmit" in line}
    shown = "train experiment=miniature seed=1 error: data.path=/x: no such file"
    assert rows["raysubmit_a1"].split("0:00:30")[1].split() == shown.split()
    assert "echo 'it" in rows["raysubmit_b2"] and "currently" not in rows["raysubmit_b2"]


class Cluster:
    """A job server that knows these jobs, all running; following their log does what `log` says."""

    def __init__(self, *jobs: str) -> None:
        self.jobs = list(map(job, jobs))
        self.log: BaseException | None = None

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def get_job_info(self, called: str) -> Any:
        return self.jobs[0]

    def get_job_status(self, called: str) -> JobStatus:
        return JobStatus(self.jobs[0].status)

    def stop_job(self, called: str) -> bool:
        return True

    async def tail_job_logs(self, called: str) -> AsyncIterator[str]:
        if self.log is not None:
            raise self.log
        yield "a line\n"


def job(called: str, name: str = "", started: int = 1, status: JobStatus = JobStatus.RUNNING) -> Any:
    metadata = {"job_name": name or called}
    return SimpleNamespace(
        submission_id=called,
        metadata=metadata,
        start_time=started,
        status=status,
        end_time=None,
        driver_exit_code=None,
    )
