"""The commands' part of a sweep side by side: how many points fit, what is said of them at the end."""

from __future__ import annotations

import os
import re
import subprocess
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from ..errors import ClusterError, ConfigError, LrmSafetyError
from ..launching import Job, connect, plan_job
from ..places import ClusterJobs, LocalProcesses, cluster_resources, is_whole, room, smaller
from ..settings.system import num_gpus
from ..sweeping import Point
from ..terminal import print_table
from ..upload import RAY_LIMIT_MIB, look_at

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

KEY = "hydra.launcher"
ASK_SECONDS = 3.0
"""How long `submit` waits for a cluster to say how large it is."""
WAITING = ("not run", "to be run again")


def check_options(options: Mapping[str, Any], known: Container[str]) -> None:
    """Raise ConfigError for an option that the launcher does not know, and for a value that cannot be."""
    for name in options:
        if name not in known:
            raise ConfigError(f"{KEY}.{name}: the chosen hydra/launcher has no such option")
    for name, least in (("concurrency", 1), ("retries", 0)):
        if (value := options[name]) is not None and value < least:
            raise ConfigError(f"{KEY}.{name}={value}: must be at least {least}")
    if not 0 < (value := options.get("max_upload", 1)) <= RAY_LIMIT_MIB:
        raise ConfigError(f"{KEY}.max_upload={value}: must be 1 to {RAY_LIMIT_MIB} MiB, the most that Ray takes")
    if (value := options["on_interrupt"]) not in ("ask", "leave", "stop"):
        raise ConfigError(f"{KEY}.on_interrupt={value}: must be one of ask, leave, stop")


def needs_of(settings: Any) -> dict[str, float]:
    """CPUs, GPUs and custom resources that the workers of one point reserve, without what all points share."""
    if getattr(settings, "cluster", None) is None:  # evaluate, reward: in their own process
        return {"CPU": 1.0}
    return _reserved(settings, _own_groups(settings))


def _own_groups(settings: Any) -> list[str]:
    """The groups of workers that a point starts for itself."""
    names = ["policy"]
    if hasattr(settings, "algorithm"):
        names += ["rollout"]
        names += ["reference"] * (settings.algorithm.kl.placement != "none")
        names += ["reward"] * (settings.reward.shared is None)
    return names


def _layout(settings: Any) -> str:
    """` (2 policy, 1 rollout)`: its workers, of a point that has any."""
    if getattr(settings, "cluster", None) is None:
        return ""
    told = (f"{getattr(settings.cluster, name).num_workers} {name}" for name in _own_groups(settings))
    return f" (workers: {', '.join(told)})"


def shared_by_all(settings: Any) -> dict[str, float]:
    """CPUs, GPUs and custom resources of the reward group that the points share (`reward.shared`)."""
    shared = hasattr(settings, "algorithm") and settings.reward.shared is not None
    return _reserved(settings, ["reward"]) if shared else {}


def _reserved(settings: Any, names: Sequence[str], *, least: bool = False) -> dict[str, float]:
    """Of these groups; `least`: with as few workers as they may start with."""
    cluster = settings.cluster
    if least:
        groups = {name: getattr(cluster, name) for name in names}
        few = {name: replace(one, num_workers=one.min_workers or one.num_workers) for name, one in groups.items()}
        cluster = replace(cluster, **few)
    parallel = settings.rollout.tensor_parallel_size if hasattr(settings, "rollout") else 1
    cpus = sum(getattr(cluster, name).num_workers * getattr(cluster, name).cpus_per_worker for name in names)
    gpus = num_gpus(cluster, parallel, tuple(names)) if cluster.device == "cuda" else 0.0
    reserved = Counter({"CPU": cpus, "GPU": gpus})
    for group in (getattr(cluster, name) for name in names):
        reserved.update({kind: each * group.num_workers for kind, each in group.resources.items()})
    return {kind: value for kind, value in reserved.items() if value > 0}


def most_of(each: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The most that one of several reserves of each kind."""
    found: dict[str, float] = {}
    for one in each:
        found |= {kind: max(value, found.get(kind, 0.0)) for kind, value in one.items()}
    return found


def local_place(planned: Sequence[tuple[Point, Any]], logs: Path, concurrency: int | None) -> LocalProcesses:
    """Processes of this machine: on a CPU one point a core, since its groups take turns; else by its GPUs."""
    gpus = {point.name: -(-needs_of(settings).get("GPU", 0.0) // 1) for point, settings in planned}
    largest = max(gpus, key=lambda name: gpus[name])
    each = gpus[largest]
    if not each:
        return LocalProcesses(concurrency or len(os.sched_getaffinity(0)), logs)
    devices = visible_devices()
    fits = len(devices) // int(each)
    if fits < (concurrency or 1):
        told = f"{largest} needs {each:g} GPUs and this machine shows {len(devices)}"
        if fits:
            raise ConfigError(
                f"{KEY}.concurrency={concurrency}: {told}, so that {fits} fit at once; lower it to {fits}"
            )
        raise ConfigError(f"{told}; {smaller(['GPU'], {'GPU': float(len(devices))}, place='machine')}")
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


def cluster_place(planned: Sequence[tuple[Point, Any]], options: Mapping[str, Any]) -> ClusterJobs:
    """Jobs of the cluster that `options` name, as many at once as it has CPUs and GPUs for.

    Raises ClusterError for a point that alone is too large for it, and ConfigError for options that no job can have.
    """
    with _named_as_here():
        jobs = {point.name: _job(point, options) for point, _ in planned}
        upload = look_at(Path(options["working_dir"]).absolute(), options["max_upload"])
        client = connect(options["address"])
    concurrency = options["concurrency"] or _fit_at_once(client, planned, options)  # before anything is sent
    print(upload, flush=True)
    return ClusterJobs(client, concurrency, jobs, options["address"])


def refuse_too_large(client: JobSubmissionClient, command: str, composed: Sequence[Any], job: Job) -> None:
    """Raise ClusterError for a job that a cluster could never hold: what its command reserves, and the workers of each of the runs
    that it starts, at the smallest that their `min_workers` allow. A cluster that does not say how large it is, lacks a node or
    expects more, and one that the runs join elsewhere, are left to the job."""
    of_command = {"CPU": job.num_cpus or 0.0, "GPU": job.num_gpus or 0.0}
    own = {kind: f"--entrypoint-num-{kind.lower()}s" for kind, value in of_command.items() if value}
    here = [
        one for one in composed if (cluster := getattr(one, "cluster", None)) is not None and cluster.address is None
    ]
    if not own and not here:
        return
    expected = max((one.cluster.expected_nodes or 0 for one in here), default=0)
    try:
        if not is_whole(client, expected):
            return
        total = cluster_resources(client, seconds=ASK_SECONDS)
    except ClusterError:
        return
    if own:
        room(total, {kind: value for kind, value in of_command.items() if value}, command, "", own, workers=False)
    for settings in here:
        shared = shared_by_all(settings)
        reserved = Counter(_reserved(settings, _own_groups(settings), least=True)) + Counter(of_command)
        needs = {kind: value for kind, value in reserved.items() if kind in of_command}  # others nodes may bring later
        left = {kind: value - shared.get(kind, 0.0) for kind, value in total.items()}
        besides = f"the reward group {settings.reward.shared}" if shared else ""
        room(left, needs, f"{command}{_layout(settings)}", besides, own)


def _fit_at_once(client: JobSubmissionClient, planned: Sequence[tuple[Point, Any]], options: Mapping[str, Any]) -> int:
    """How many of these points have room side by side, whichever of them they are."""
    command = {"CPU": options["entrypoint_num_cpus"] or 0.0, "GPU": options["entrypoint_num_gpus"] or 0.0}
    own = {kind: f"{KEY}.entrypoint_num_{kind.lower()}s" for kind, value in command.items() if value}
    needs = {point.name: dict(Counter(needs_of(settings)) + Counter(command)) for point, settings in planned}
    shared = most_of(shared_by_all(settings) for _, settings in planned)
    total = cluster_resources(client, most_of(needs.values()).keys() | shared.keys())
    left = {kind: value - shared.get(kind, 0.0) for kind, value in total.items()}
    # Nodes may bring custom resources later.
    needs = {
        name: {kind: value for kind, value in own.items() if kind in command or kind in total}
        for name, own in needs.items()
    }
    for point, settings in planned:
        room(
            left,
            needs[point.name],
            f"{point.name}{_layout(settings)}",
            "the reward group that all points share" if shared else "",
            own,
            workers=bool(_layout(settings)),
        )
    return room(left, most_of(needs.values()), "a point with the most of each")


def _job(point: Point, options: Mapping[str, Any]) -> Job:
    """The point as a job, called by its folder: the same point of the same sweep has the same one again."""
    command, *words = point.words
    return plan_job(
        command,
        words,
        os.environ,
        Path(options["working_dir"]).absolute(),
        options["env"],
        options["secrets"],
        name=str(point.folder),
        num_cpus=options["entrypoint_num_cpus"],
        num_gpus=options["entrypoint_num_gpus"],
    )


@contextmanager
def _named_as_here() -> Iterator[None]:
    """What `submit` calls --NAME is hydra.launcher.NAME here, also in what is said of it."""
    try:
        yield
    except LrmSafetyError as error:
        line = re.sub(r"--(address|env|max-upload|name|secrets|working-dir)\b", _key, str(error))
        raise type(error)(line) from None


def _key(flag: re.Match[str]) -> str:
    if flag[1] == "name":  # a job is called by its folder
        return "run.directory"
    return f"{KEY}.{flag[1].replace('-', '_')}"


def tell(points: Sequence[Point]) -> None:
    """What became of every point."""
    rows = [
        [
            point.name,
            WAITING[point.starts > 0] if point.state == "waiting" else point.state,
            str(point.starts),
            point.why,
        ]
        for point in points
    ]
    with suppress(OSError):  # of a closed terminal
        print_table(Console(), "points of the sweep", ["point", "state", "started here", "why"], rows, left=2)
