"""The groups of a run: Ray joined, resources reserved, actors started together, everything ended at the end."""

from __future__ import annotations

import logging
import os
import secrets
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import ray

from ..errors import ClusterError
from ..settings import ClusterSettings, Settings
from ..settings.paths import ray_temporary_folder
from ..weight_sync.backends import is_colocated
from .group import this_node_id
from .placement import Placement, nodes_of, release, reserve
from .policy_group import PolicyGroup
from .rollout_group import RolloutGroup
from .scoring_group import ReferenceGroup, RewardGroup
from .specs import EngineSpec, PolicySpec, ReferenceSpec, RewardSpec

CONNECT_TIMEOUT_SECONDS = 10.0
"""Ray itself tries for many minutes to join a cluster that is not there."""

Group = PolicyGroup | RolloutGroup | RewardGroup | ReferenceGroup
Told = TypeVar("Told")
"""What a set of groups is made from."""


def join_ray(cluster: ClusterSettings, *, worker_logs: bool = False) -> None:
    """Connect to the cluster that the configuration, a Ray job or RAY_ADDRESS names; otherwise start a local Ray. `worker_logs`:
    print what the workers print.

    Raises ClusterError when nothing answers there within `CONNECT_TIMEOUT_SECONDS`, or Ray refuses.
    """
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    named = f"cluster.address={address}" if cluster.address else f"RAY_ADDRESS={address}"
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {}
    if address in (None, "local"):
        variable, folder, excess = ray_temporary_folder(os.environ)
        if excess:
            raise ClusterError(
                f"{variable}={folder}: is {excess} bytes too long for Ray's sockets; set RAY_TMPDIR to a shorter folder, e.g. "
                "RAY_TMPDIR=/tmp"
            )
    else:
        _check_answers(address, named)
    if address is None:
        # Ray listens on the machine's outward address: without a token whoever reaches it could run code. Ray 2.60 turns
        # tokens on by itself where RAY_AUTH_MODE is unset, but would leave one in the user's home. (Setting the mode here
        # is too late: Ray reads it when it is imported.)
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it would tell how to opt out
        # "local", because without an address Ray would join any cluster that was started on this machine.
        named = "a local Ray"
        address, local = "local", {"num_cpus": cluster.local_num_cpus, "include_dashboard": False}
    try:
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=worker_logs, **local)
    except Exception as error:  # of a node that does not start in time Ray raises a bare Exception
        line = " ".join(str(error).split())[:300]
        raise ClusterError(f"{named}: cannot join Ray: {line}") from error


# What opens every gRPC connection (RFC 9113, 3.4), with no settings; a server says its own settings (frame type 4) at once.
_HTTP2_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS_FRAME = 4


def _check_answers(address: str, named: str) -> None:
    """Raise ClusterError unless a gRPC server answers at `host:port` or `ray://host:port`; other forms are Ray's to read.

    `ray.init` has no limit of its own: beside something that listens and never speaks gRPC it would wait for good.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_SECONDS) as connection:
            connection.sendall(_HTTP2_OPENING)
            frame = connection.recv(9)
    except TimeoutError:
        problem = f"what listens there said nothing within {CONNECT_TIMEOUT_SECONDS:g} s"
    except (OSError, OverflowError) as error:
        problem = str(error)
    else:
        # Under TLS the answer is an alert, and Ray has its own certificates to check.
        if os.environ.get("RAY_USE_TLS", "0") in ("1", "true") or frame[3:4] == bytes((_SETTINGS_FRAME,)):
            return
        problem = (
            "what listens there does not speak gRPC; Ray's own port is 6379 unless `ray start --port` said otherwise"
        )
    mend = (
        "start a cluster there with `ray start --head`, or name another"
        if named.startswith("cluster.")
        else "unset RAY_ADDRESS for a Ray of this machine's own, or set it to a cluster that runs"
    )
    raise ClusterError(f"{named}: no Ray cluster answers there ({problem}); {mend}")


class StartedGroups(ABC, Generic[Told]):
    """Groups as a context manager: no actor and no reservation outlives it."""

    def __init__(
        self,
        told: Told,
        on_wait: Callable[[], None] = lambda: None,
        on_replacement: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`on_wait` is called about once a second while the controller waits; it may raise to stop waiting. `on_replacement`
        is called with a line for every worker that is replaced."""
        self._told = told
        self._on_wait, self._on_replacement = on_wait, on_replacement
        self._placements: dict[str, Placement] = {}
        self._groups: dict[str, Group] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, directory: Path | None = None) -> None:
        """Reserve everything, load every model; Ray has been joined. After a failure nothing is left behind.

        `directory` is the run's folder: before any model is loaded, every trainer rank has to see it as the controller does.
        """
        try:
            self._start(directory)
        except BaseException:
            self.end()
            raise

    @abstractmethod
    def _start(self, directory: Path | None) -> None:
        """Reserve and start this run's groups."""

    def hosts(self) -> list[str]:
        """The names of the machines that the workers run on."""
        names = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in ray.nodes()}
        return sorted({names.get(node, node) for place in self._placements.values() for node in nodes_of(place)})

    def memory(self) -> dict[str, float]:
        """Host and, on CUDA, peak device memory of every worker, as metrics `memory/GROUP_INDEX_...`."""
        return {
            f"memory/{name}_{index}_{figure}": value
            for name, group in self._groups.items()
            for index, worker in group.memory().items()
            for figure, value in worker.items()
        }

    def _kill(self) -> None:
        for group in self._groups.values():
            group.end()
        self._groups.clear()

    def end(self) -> None:
        """Kill every actor, give the reservations back, leave Ray."""
        if not ray.is_initialized():
            return
        self._kill()
        release(
            list({id(place.placement_group): place.placement_group for place in self._placements.values()}.values())
        )
        self._placements = {}
        ray.shutdown()


class PolicyOnly(StartedGroups[PolicySpec]):
    """The policy group alone: supervised fine-tuning."""

    policy: PolicyGroup

    def _start(self, directory: Path | None) -> None:
        self._placements = reserve(["policy"], self._told.cluster)
        self.policy = PolicyGroup(self._told, self._placements["policy"], self._on_wait)
        self._groups["policy"] = self.policy
        if directory is not None:
            self.policy.check_folder(directory)
        self.policy.start()


class RolloutOnly(StartedGroups[EngineSpec]):
    """The rollout group alone: evaluation."""

    rollout: RolloutGroup

    def _start(self, directory: Path | None) -> None:
        self._placements = reserve(["rollout"], self._told.cluster, self._told.rollout.tensor_parallel_size)
        self.rollout = RolloutGroup(self._told, self._placements["rollout"], self._on_wait, self._on_replacement)
        self._groups["rollout"] = self.rollout
        self.rollout.start()


class Groups(StartedGroups[Settings]):
    """The four groups."""

    policy: PolicyGroup
    rollout: RolloutGroup
    reward: RewardGroup
    reference: ReferenceGroup | None

    def _start(self, directory: Path | None) -> None:
        self._takes_turns = is_colocated(self._told.cluster)
        settings, on_wait, on_replacement = self._told, self._on_wait, self._on_replacement
        names = ["policy", "rollout", "reward"]
        if settings.algorithm.kl.placement != "none":
            names.append("reference")
        place = self._placements = reserve(names, settings.cluster, settings.rollout.tensor_parallel_size)
        self.policy = PolicyGroup(PolicySpec.of(settings), place["policy"], on_wait)
        self._groups["policy"] = self.policy
        self.rollout = RolloutGroup(EngineSpec.of(settings), place["rollout"], on_wait, on_replacement)
        self._groups["rollout"] = self.rollout
        self.reward = RewardGroup(RewardSpec.of(settings), place["reward"], on_wait, on_replacement)
        self._groups["reward"] = self.reward
        self.reference = None
        if "reference" in place:
            self.reference = ReferenceGroup(ReferenceSpec.of(settings), place["reference"], on_wait, on_replacement)
            self._groups["reference"] = self.reference
        if directory is not None:
            self.policy.check_folder(directory)
        if self._takes_turns:
            # One GPU: an engine counts whatever is taken while it starts as its own, so it starts last and alone, after
            # the trainer has moved out.
            self.policy.start()
            self.policy.offload()
            self._start_together([self._groups[name] for name in ("reward", "reference") if name in self._groups])
            self.rollout.start()
        else:
            self._start_together(list(self._groups.values()))
        if (
            self.rollout.backend == "shm"
            and len(self.policy.node_ids() | self.rollout.node_ids() | {this_node_id()}) > 1
        ):
            raise ClusterError(
                "rollout.weight_transfer=shm: policy, rollout and controller are on several nodes, which share no memory; "
                "use cluster.strategy=STRICT_PACK, or cluster.device=cuda with nccl"
            )

    def _start_together(self, groups: list[Group]) -> None:
        with ThreadPoolExecutor(max_workers=len(groups)) as pool:
            futures = [pool.submit(group.start) for group in groups]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                self._kill()  # so that the other threads see their actors end and the pool can close
                raise

    def begin_training(self) -> None:
        """CUDA, colocated: hand the GPU from the engines to the trainer."""
        if self._takes_turns:
            self.rollout.sleep()
            self.policy.reload()

    def end_training(self) -> None:
        """CUDA, colocated: move the trainer's states to host memory before the engines wake."""
        if self._takes_turns:
            self.policy.offload()

    def publish_weights(self) -> int:
        """Give the trainer's weights to every engine under the next version, which is returned."""
        return self.policy.publish_weights(self.rollout)
