"""launchers/skypilot/run.yaml: its shell runs here as on two machines of a cloud, under SkyPilot's own variables."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from child_environment import child_environment
from ray_head import free_ports

from lrm_safety.settings.compose import compose_settings

FIELDS = {"name", "workdir", "num_nodes", "resources", "volumes", "envs", "secrets", "setup", "run"}
"""Of SkyPilot's documentation of a task."""


@pytest.fixture(scope="module")
def task(repository_root: Path) -> dict[str, Any]:
    return yaml.safe_load((repository_root / "launchers/skypilot/run.yaml").read_text())


def test_fields_command_and_shell(task: dict[str, Any]) -> None:
    assert task.keys() <= FIELDS
    assert task["secrets"] == {"RAY_AUTH_TOKEN": None}, "has to be given, and stands in no file"
    command, *overrides = shlex.split(task["envs"]["COMMAND"])
    cluster = compose_settings(overrides)[0].cluster
    groups = (cluster.policy, cluster.rollout, cluster.reference, cluster.reward)
    _, gpus = task["resources"]["accelerators"].split(":")
    assert command == "train"
    assert sum(one.num_workers * one.gpus_per_worker for one in groups) <= task["num_nodes"] * int(gpus)
    for part in ("setup", "run"):
        subprocess.run(["bash", "-n"], input=task[part], text=True, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "status"), [("help", 0), ("train 'run.name=a b'", 1)])
def test_two_machines_end_with_the_first(
    task: dict[str, Any], tmp_path: Path, repository_root: Path, command: str, status: int
) -> None:
    """The second machine ends as done, whatever became of the run: it is the first whose status counts."""
    port, dashboard = free_ports(2)
    given = {name: str(value) for name, value in task["envs"].items()} | {
        "COMMAND": command,
        "RAY_PORT": str(port),
        "DASHBOARD_PORT": str(dashboard),
        "RAY_FOLDER": f"/tmp/sky-{os.getpid()}",
        "LRM_SAFETY_RUNS": str(tmp_path),
        "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
        "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.1",
        "PYTHONPATH": str(repository_root),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    machines = [
        subprocess.Popen(
            ["bash", "-c", task["run"]],
            env=child_environment() | given | {"SKYPILOT_NODE_RANK": str(rank)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in (0, 1)
    ]
    printed = [machine.communicate(timeout=280)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [status, 0], printed
    assert ("usage: lrm-safety" if command == "help" else "a b") in printed[0]
