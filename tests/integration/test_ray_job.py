"""Jobs on a real Ray cluster of this machine: exit codes, logs, and whose code runs."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import RAY, Head, ray_head


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with ray_head({}, num_cpus=1) as head:
        yield head


def launch(root: Path, head: Head, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "launchers/ray_job.py", "--address", head.dashboard, *arguments]
    environment = os.environ | head.authentication | variables
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=180)


def test_jobs_print_their_log_and_return_their_exit_code(repository_root: Path, head: Head) -> None:
    done = launch(repository_root, head, {}, "help")
    assert done.returncode == 0, done.stderr
    assert "usage: lrm-safety COMMAND" in done.stdout

    failed = launch(repository_root, head, {}, "train", "experiment=no such experiment")
    assert failed.returncode == 1
    assert "no such experiment" in failed.stdout

    assert re.fullmatch(r"job raysubmit_\w+ failed with exit code 1", failed.stderr.splitlines()[-1])

    left = launch(repository_root, head, {}, "--no-wait", "help")
    assert left.returncode == 0
    assert re.search(r"submitted raysubmit_\w+: lrm-safety help", left.stdout)


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
    options = ("--working-dir", str(checkout), "--secrets", str(file), "--env", "LRM_SAFETY_DATA=/some/where")
    ran = launch(repository_root, head, planted, *options, "train")
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
    ran = launch(repository_root, head, {}, "--working-dir", str(tmp_path), "train")
    assert "other code" in ran.stdout
    assert ran.returncode == 7


def test_a_missing_token_is_one_line(repository_root: Path, head: Head) -> None:
    refused = launch(repository_root, head, {"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}, "help")
    assert refused.returncode == 1
    assert "wants its token" in refused.stderr and len(refused.stderr.splitlines()) == 1
