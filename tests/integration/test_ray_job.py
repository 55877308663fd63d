"""Jobs on a real Ray cluster of this machine: exit codes, logs, and whose code runs."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray_head import ray_head


@pytest.fixture(scope="module", params=["disabled", "token"])
def cluster(request: pytest.FixtureRequest) -> Iterator[tuple[str, dict[str, str]]]:
    """Address and variables of a cluster without, and of one with token authentication."""
    variables = {"RAY_AUTH_MODE": request.param}
    if request.param == "token":
        variables["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    with ray_head(variables, num_cpus=1) as head:
        yield head.dashboard, variables


def launch(root: Path, address: str, variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "launchers/ray_job.py", "--address", address, *arguments]
    return subprocess.run(command, cwd=root, env=os.environ | variables, capture_output=True, text=True, timeout=180)


def test_jobs_print_their_log_and_return_their_exit_code(
    repository_root: Path, cluster: tuple[str, dict[str, str]]
) -> None:
    address, variables = cluster
    key = secrets.token_hex(8)
    done = launch(repository_root, address, variables | {"WANDB_API_KEY": key}, "help")
    assert done.returncode == 0, done.stderr
    assert "usage: lrm-safety COMMAND" in done.stdout
    assert key not in done.stdout + done.stderr

    failed = launch(repository_root, address, variables, "train", "experiment=no such experiment")
    assert failed.returncode == 1
    assert "no such experiment" in failed.stdout

    assert re.fullmatch(r"job raysubmit_\w+ failed with exit code 1", failed.stderr.splitlines()[-1])

    left = launch(repository_root, address, variables, "--no-wait", "help")
    assert left.returncode == 0
    assert re.search(r"submitted raysubmit_\w+: lrm-safety help", left.stdout)


def test_the_code_of_the_checkout_runs_not_the_installed_one(
    repository_root: Path, cluster: tuple[str, dict[str, str]], tmp_path: Path
) -> None:
    address, variables = cluster
    (tmp_path / "conf").mkdir()
    (tmp_path / "lrm_safety").mkdir()
    (tmp_path / "lrm_safety/__init__.py").touch()
    (tmp_path / "lrm_safety/cli.py").write_text("def main():\n    print('other code')\n    return 7\n")
    ran = launch(repository_root, address, variables, "--working-dir", str(tmp_path), "train")
    assert "other code" in ran.stdout
    assert ran.returncode == 7


def test_a_missing_token_is_one_line(repository_root: Path, cluster: tuple[str, dict[str, str]]) -> None:
    address, variables = cluster
    if variables["RAY_AUTH_MODE"] == "disabled":
        pytest.skip("this cluster asks for none")
    refused = launch(repository_root, address, {"RAY_AUTH_MODE": "disabled"}, "help")
    assert refused.returncode == 1
    assert "wants its token" in refused.stderr and len(refused.stderr.splitlines()) == 1
