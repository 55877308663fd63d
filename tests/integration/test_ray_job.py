"""Jobs on a real Ray cluster of this machine: exit codes, logs, and whose code runs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from ray_head import RAY, Head, ray_head


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head({}, num_cpus=2) as head:
        yield head


def launch(head: Head, folder: Path, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`lrm-safety ARGUMENTS` of this checkout, in a folder."""
    root = Path(__file__).parents[2]
    environment = os.environ | head.authentication | {"RAY_API_SERVER_ADDRESS": head.dashboard, "PYTHONPATH": str(root)}
    return subprocess.run(
        [sys.executable, "-P", "-m", "lrm_safety", *arguments],
        cwd=folder,
        env=environment | variables,
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_jobs_print_their_log_return_their_exit_code_and_are_found_again(repository_root: Path, head: Head) -> None:
    done = launch(head, repository_root, {}, "submit", "--name", "first", "--", "help")
    assert done.returncode == 0, done.stderr
    assert "usage: lrm-safety COMMAND" in done.stdout
    assert re.match(rf"sending {re.escape(str(repository_root))}: \d+ files, \d+ MiB unpacked\n", done.stdout)

    failed = launch(head, repository_root, {}, "submit", "train", "experiment=miniature", "run.directory=/proc/mine")
    assert failed.returncode == 1
    assert "run.directory=/proc/mine: cannot be written" in failed.stdout
    assert re.fullmatch(r"job raysubmit_\w+ failed with exit code 1", failed.stderr.splitlines()[-1])

    listed = json.loads(launch(head, repository_root, {}, "jobs", "list", "--json").stdout)
    assert [(job["name"], job["status"], job["exit code"]) for job in listed] == [
        ("first", "SUCCEEDED", 0),
        ("/proc/mine", "FAILED", 1),
    ]
    assert listed[1]["message"].startswith("error: run.directory=/proc/mine: cannot be written")
    again = launch(head, repository_root, {}, "jobs", "logs", "--follow", listed[1]["id"])
    assert again.returncode == 1 and "/proc/mine: cannot be written" in again.stdout
    known = launch(head, repository_root, {}, "jobs", "status", "first")
    assert known.returncode == 0 and f"id         {listed[0]['id']}\n" in known.stdout
    for words, message in (
        (("stop", "first"), "is over already (SUCCEEDED)"),
        (
            ("status", "nothing"),
            "the cluster knows no job nothing (the newest are mine, first; `lrm-safety jobs` lists all)",
        ),
    ):
        refused = launch(head, repository_root, {}, "jobs", *words)
        assert refused.returncode == 1 and message in refused.stderr and len(refused.stderr.splitlines()) == 1

    launcher = [sys.executable, "launchers/ray_job.py", "--address", head.dashboard, "--no-wait", "help"]
    environment = os.environ | head.authentication
    left = subprocess.run(launcher, cwd=repository_root, env=environment, capture_output=True, text=True, timeout=60)
    assert left.returncode == 0, left.stderr
    assert re.search(r"submitted raysubmit_\w+: lrm-safety help", left.stdout)


def test_a_folder_of_the_users_brings_its_groups_to_the_lrm_safety_of_the_cluster(head: Head, tmp_path: Path) -> None:
    (tmp_path / "conf/model").mkdir(parents=True)
    (tmp_path / "conf/model/mine.yaml").write_text("defaults: [miniature]\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.jsonl").write_text("{}\n")
    ran = launch(
        head, tmp_path, {"LRM_SAFETY_CONF": str(tmp_path / "conf")},
        "submit", "--", "plan", "experiment=miniature", "model=mine",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert ": 1 file, 22 B unpacked; not a checkout" in ran.stdout
    assert "policy policy: 0.001 B parameters (config.json)" in ran.stdout


def test_secrets_arrive_and_stand_in_no_file_of_ray(repository_root: Path, head: Head, tmp_path: Path) -> None:
    planted = {name: secrets.token_hex(16) for name in ("WANDB_API_KEY", "HF_TOKEN", "JUDGE_KEY")}
    file = tmp_path / "secrets"
    file.write_text("".join(f"{name}={value}\n" for name, value in planted.items()))
    file.chmod(0o600)
    checkout = tmp_path / "checkout"
    (checkout / "conf").mkdir(parents=True)
    (checkout / "lrm_safety").mkdir()
    for name in ("__init__.py", "credentials.py", "errors.py"):
        shutil.copy(repository_root / "lrm_safety" / name, checkout / "lrm_safety")
    # Our own reader, and then what arrived in the job, told by its digest.
    (checkout / "lrm_safety/cli.py").write_text(
        "import hashlib, os\nfrom lrm_safety import credentials\n\ndef main():\n    credentials.load()\n"
        f"    for name in {sorted(planted)}:\n"
        "        print(name, hashlib.sha256(os.environ[name].encode()).hexdigest(), os.environ['LRM_SAFETY_DATA'])\n"
    )
    options = ("submit", "--secrets", str(file), "--env", "LRM_SAFETY_DATA=/some/where")
    # Of the sender there is the checkout in PYTHONPATH; of the job there is what was sent.
    ran = launch(head, checkout, planted, *options, "train")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name, value in planted.items():
        assert f"{name} {hashlib.sha256(value.encode()).hexdigest()} /some/where" in ran.stdout

    listed = subprocess.run(
        [RAY, "job", "list", "--address", head.dashboard],
        env=head.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert str(file) in listed.stdout, "the name of the file is what Ray knows"
    searched = [listed.stdout.encode(), ran.stdout.encode(), ran.stderr.encode()]
    searched += [path.read_bytes() for path in head.folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert len(searched) > 10 and any(b"LRM_SAFETY_SECRETS" in content for content in searched[3:])
    for value in planted.values():
        assert not any(value.encode() in content for content in searched)


def test_the_code_of_the_checkout_runs_not_the_installed_one(repository_root: Path, head: Head, tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "lrm_safety").mkdir()
    (tmp_path / "lrm_safety/__init__.py").touch()
    (tmp_path / "lrm_safety/cli.py").write_text("def main():\n    print('other code')\n    return 7\n")
    ran = launch(head, repository_root, {}, "submit", "--working-dir", str(tmp_path), "train")
    assert "other code" in ran.stdout
    assert ran.returncode == 7


def test_a_missing_or_another_token_is_one_line(repository_root: Path, head: Head) -> None:
    for variables, told in (
        ({"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}, "wants its token: set"),
        ({"RAY_AUTH_TOKEN": "a" * 64}, "wants its token, and not the one that is set here: set"),
        (
            {"RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/absent/token"},
            "RAY_AUTH_TOKEN_PATH=/absent/token: no such file",
        ),
        (
            {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": "", "RAY_AUTH_TOKEN_PATH": "/absent/token"},
            "RAY_AUTH_TOKEN_PATH=/absent/token: no such file",
        ),
    ):
        refused = launch(head, repository_root, variables, "submit", "help")
        assert refused.returncode == 1
        assert told in refused.stderr and len(refused.stderr.splitlines()) == 1


def test_what_the_cluster_can_never_hold_is_refused_before_anything_is_sent(repository_root: Path, head: Head) -> None:
    words = ("train", "experiment=miniature", "cluster.policy.num_workers=8", "run.directory=/shared/runs/mine")
    refused = launch(head, repository_root, {}, "submit", *words)
    assert refused.returncode == 1 and refused.stdout == ""
    assert re.fullmatch(
        r"error: train \(workers: 8 policy, .*\) needs 5 CPU, and the cluster has 2 CPU; .*cpus_per_worker\n",
        refused.stderr,
    )


def test_probes_of_kubernetes_are_answered_without_the_token(repository_root: Path, head: Head) -> None:
    cluster = yaml.safe_load((repository_root / "launchers/kuberay/ray_cluster.yaml").read_text())["spec"]
    for pod, port, asked in (
        (cluster["headGroupSpec"], 8265, head.dashboard),
        (cluster["workerGroupSpecs"][0], 52365, head.agent),
    ):
        (container,) = pod["template"]["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            told = container[probe]["httpGet"]
            assert told["port"] == port
            assert status_of(asked + told["path"]) == 200


def status_of(url: str) -> int:
    """Once somebody listens there: the agent comes after the dashboard."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return httpx.get(url, timeout=30).status_code
        except httpx.ConnectError:
            assert time.monotonic() < deadline, url
            time.sleep(0.5)


def test_a_container_is_healthy_while_its_node_of_ray_answers(repository_root: Path, head: Head) -> None:
    def health(port: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "docker/health.py", port]
        return subprocess.run(command, cwd=repository_root, capture_output=True, text=True, timeout=60)

    assert status_of(f"{head.agent}/api/local_raylet_healthz") == 200
    assert health(head.agent.rpartition(":")[2]).returncode == 0
    silent = health("9")
    assert silent.returncode == 1 and "does not answer on port 9" in silent.stderr


def test_a_job_joins_its_own_cluster_whatever_ray_started_last_on_the_machine(
    repository_root: Path, head: Head
) -> None:
    """Ray notes in its folder which cluster was started last, and gives that to every job as RAY_ADDRESS."""
    note = head.folder / "ray_current_cluster"
    deadline = time.monotonic() + 60
    while not note.exists():  # Ray writes it last of all
        assert time.monotonic() < deadline, sorted(head.folder.iterdir())
        time.sleep(0.1)
    before = note.read_text()
    note.write_text("127.0.0.1:9")
    try:
        done = launch(head, repository_root, {}, "submit", "--", "doctor", "--cluster", "--json")
    finally:
        note.write_text(before)
    port = head.address.rpartition(":")[2]
    assert re.search(rf"1 node, 2 CPUs, 0 GPUs at [\d.]+:{port}\b", done.stdout), done.stdout
