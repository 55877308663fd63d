"""A run as a Ray job on a cluster that somebody else started: the same run as on one machine."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from loopback import Handler, serving
from ray_head import RAY, Head, ray_head
from running import COMMAND_SECONDS, REPEATED, assert_same_run, checkpoints

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Head]:
    with ray_head({}, num_cpus=4) as head:
        yield head


def run_in(cluster: Head, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments, cwd=folder, env=cluster.environment, capture_output=True, text=True, timeout=COMMAND_SECONDS
    )


def test_jobs_on_a_cluster_are_the_run_of_one_machine(
    cluster: Head, repository_root: Path, tmp_path: Path, uninterrupted: Path
) -> None:
    """The first job, by `lrm-safety submit`, stops after two updates; the second, by Ray's own, finishes the run."""
    run = tmp_path / "run"
    overrides = ["train", *REPEATED, "seed=0", f"run.directory={run}"]
    launcher = [sys.executable, "-m", "lrm_safety", "submit", "--address", cluster.dashboard, "--"]
    first = run_in(cluster, [*launcher, *overrides, "schedule.stop_after_updates=2"], repository_root)
    assert first.returncode == 0, first.stdout + first.stderr
    assert checkpoints(run) == ["update-000002"]

    submit = [RAY, "job", "submit", "--address", cluster.dashboard, "--working-dir", str(repository_root), "--"]
    second = run_in(cluster, [*submit, "lrm-safety", *overrides], tmp_path)
    assert second.returncode == 0, second.stdout + second.stderr
    assert "resumed from update 2" in second.stdout
    assert_same_run(run, uninterrupted)

    # The jobs gave everything back: no actor lives on, and the cluster still works.
    deadline = time.monotonic() + 60
    while left := actors(cluster):
        assert time.monotonic() < deadline, left
        time.sleep(1)
    assert cluster.process.poll() is None


class Judge(Handler):
    """A scoring endpoint that wants its key."""

    key = secrets.token_hex(16)

    def do_POST(self) -> None:
        count = len(json.loads(self.body())["conversations"])
        scores = json.dumps({"scores": [0.5 * (i % 3) for i in range(count)]}).encode()
        self.reply(200 if self.headers["Authorization"] == f"Bearer {self.key}" else 401, scores)


def test_a_job_that_is_stopped_saves_and_shows_no_secret(cluster: Head, repository_root: Path, tmp_path: Path) -> None:
    """Keys for W&B, the hub and a scoring endpoint, in a file of the node, and a run that uses the last one."""
    planted = {"WANDB_API_KEY": secrets.token_hex(20), "HF_TOKEN": secrets.token_hex(16), "JUDGE_KEY": Judge.key}
    file, run = tmp_path / "secrets", tmp_path / "run"
    file.write_text("".join(f"{name}={value}\n" for name, value in planted.items()))
    file.chmod(0o600)
    mine = [sys.executable, "-m", "lrm_safety"]
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Judge)) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        overrides = [
            *REPEATED,
            "reward=http_example",
            "evaluation=none",
            f"reward.models.endpoint.url={url}",
            "schedule.max_updates=5000",
        ]
        overrides += [
            "reward.models.endpoint.api_key_env=JUDGE_KEY",
            "tracking.wandb=offline",
            "checkpoint.every_updates=5000",
        ]
        submit = [
            *mine,
            "submit",
            "--address",
            cluster.dashboard,
            "--name",
            "stopped",
            "--secrets",
            str(file),
            "--",
            "train",
        ]
        refused = run_in(cluster, [*submit, f"run.name=hf_{planted['HF_TOKEN']}"], repository_root)
        assert refused.returncode == 1 and refused.stderr.startswith(
            "error: run.name: looks like a user name, a password"
        )

        job = subprocess.Popen(
            [*submit, *overrides, f"run.directory={run}"], cwd=repository_root, env=cluster.environment | planted,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + COMMAND_SECONDS
        while not (run / "metrics.jsonl").exists() or len((run / "metrics.jsonl").read_text().splitlines()) < 2:
            assert job.poll() is None and time.monotonic() < deadline, job.communicate()
            time.sleep(0.5)
        lines = [shlex.join(psutil.Process(job.pid).cmdline()), *(shlex.join(one) for one in command_lines(cluster))]
        stopped = run_in(cluster, [*mine, "jobs", "stop", "--address", cluster.dashboard, "stopped"], repository_root)
        out, err = job.communicate(timeout=COMMAND_SECONDS)
    assert stopped.returncode == 0 and "Ray kills it after 1800 s (RAY_JOB_STOP_WAIT_TIME_S" in stopped.stdout
    assert job.returncode == 143, out + err
    assert "stopped by SIGTERM; the same command goes on" in out and "Traceback" not in out + err
    start = json.loads((run / "environment.json").read_text())["starts"][-1]
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["update"]
    assert start["exit_status"] == 143 and checkpoints(run)[-1] == f"update-{last:06d}"

    listed = run_in(cluster, [RAY, "job", "list", "--address", cluster.dashboard], repository_root).stdout
    assert str(file) in listed, "the name of the file is what Ray knows"
    files = [
        path
        for folder in (cluster.folder, run)
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    ]
    assert {"config.yaml", "environment.json"} <= {path.name for path in files} and list(
        (run / "wandb").rglob("*.wandb")
    )
    shown = [text.encode() for text in (listed, out, err, stopped.stdout, refused.stderr, *lines)]
    for name, value in planted.items():
        assert not any(value.encode() in text for text in shown), name
        assert not [path for path in files if value.encode() in path.read_bytes()], name


def command_lines(cluster: Head) -> list[list[str]]:
    """Those of all processes of the cluster and its jobs."""
    lines = []
    for child in cluster.children():
        try:
            lines.append(child.cmdline())
        except psutil.NoSuchProcess:
            continue
    assert any("run.directory" in " ".join(line) for line in lines), "the job's own is among them"
    return lines


def actors(cluster: Head) -> list[str]:
    """Our workers that are still alive on the cluster."""
    titles = []
    for child in cluster.children():
        try:
            titles.append((child.cmdline() or [""])[0])
        except psutil.NoSuchProcess:
            continue
    return [title for title in titles if title.startswith("ray::") and "Worker" in title]
