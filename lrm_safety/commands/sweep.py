"""The commands' part of a sweep side by side: how many points fit, what is said of them at the end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigError
from ..lab.planning.memory import num_gpus
from ..launching import connect
from ..sweeping import ClusterJobs, LocalProcesses, Point, cluster_resources, room
from ..terminal import print_table

GROUPS = ("policy", "rollout", "reference", "reward")
KEY = "hydra.launcher"


def check_options(options: Mapping[str, Any]) -> None:
    """Raise ConfigError for an option of a launcher that cannot be."""
    for name, least in (("concurrency", 1), ("retries", 0)):
        if (value := options[name]) is not None and value < least:
            raise ConfigError(f"{KEY}.{name}={value}: must be at least {least}")
    if (value := options["on_interrupt"]) not in ("ask", "leave", "stop"):
        raise ConfigError(f"{KEY}.on_interrupt={value}: must be one of ask, leave, stop")


def needs_of(settings: Any) -> dict[str, float]:
    """CPUs and GPUs that the workers of one point reserve."""
    cluster = getattr(settings, "cluster", None)
    if cluster is None:  # evaluate, reward: in their own process
        return {"CPU": 1.0}
    names: tuple[str, ...] = GROUPS if hasattr(settings, "algorithm") else GROUPS[:1]
    if hasattr(settings, "algorithm") and settings.algorithm.kl.placement == "none":
        names = tuple(name for name in names if name != "reference")
    parallel = settings.rollout.tensor_parallel_size if hasattr(settings, "rollout") else 1
    cpus = sum(getattr(cluster, name).num_workers * getattr(cluster, name).cpus_per_worker for name in names)
    gpus = num_gpus(cluster, parallel, names) if cluster.device == "cuda" else 0.0
    return {kind: value for kind, value in (("CPU", cpus), ("GPU", gpus)) if value > 0}


def local_place(settings: Any, sweep_dir: Path, concurrency: int | None) -> LocalProcesses:
    """Processes of this machine: on a CPU one point a core, since its groups take turns; else by its GPUs."""
    logs, each = sweep_dir / "logs", -(-needs_of(settings).get("GPU", 0.0) // 1)
    if not each:
        return LocalProcesses(concurrency or len(os.sched_getaffinity(0)), logs)
    devices = visible_devices()
    fits = len(devices) // int(each)
    if fits < (concurrency or 1):
        raise ConfigError(
            f"{KEY}.concurrency: a point needs {each:g} GPUs and this machine shows {len(devices)}, so that {fits} fit at once"
        )
    return LocalProcesses(concurrency or fits, logs, devices, int(each))


def visible_devices() -> list[str]:
    """The GPUs of this machine that processes may use, by what CUDA_VISIBLE_DEVICES calls them."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [one for one in named.split(",") if one.strip()]
    try:
        listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, _ in enumerate(listed.stdout.splitlines())]


def cluster_place(settings: Any, sweep_dir: Path, options: Mapping[str, Any]) -> ClusterJobs:
    """Jobs of the cluster that `options` name, as many at once as it has CPUs and GPUs for."""
    client = connect(options["address"])
    reserved = {"CPU": options["entrypoint_num_cpus"] or 0.0, "GPU": options["entrypoint_num_gpus"] or 0.0}
    own = needs_of(settings)
    needs = {kind: total for kind in ("CPU", "GPU") if (total := own.get(kind, 0.0) + reserved[kind]) > 0}
    concurrency = options["concurrency"] or room(cluster_resources(client), needs, "a point of this sweep")
    return ClusterJobs(
        client,
        concurrency,
        Path(options["working_dir"]).absolute(),
        environment=list(options["env"]),
        secrets=options["secrets"],
        num_cpus=options["entrypoint_num_cpus"],
        num_gpus=options["entrypoint_num_gpus"],
    )


def tell(points: Sequence[Point]) -> None:
    """What became of every point."""
    rows = [
        [point.name, {"waiting": "not run"}.get(point.state, point.state), str(point.starts), point.why]
        for point in points
    ]
    print_table(Console(), "points of the sweep", ["point", "state", "starts", "why"], rows, left=2)
