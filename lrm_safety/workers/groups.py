"""The groups of a run: Ray joined, resources reserved, actors started together, everything ended at the end."""

from __future__ import annotations

import logging
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import ray

from ..errors import ClusterError, ConfigError
from ..modeling.distributed import LOOPBACK
from ..settings import ClusterSettings, Settings
from ..settings.checks import GROUPS
from ..settings.paths import ray_temporary_folder
from ..weight_sync.backends import is_colocated, transfer_backend
from .address import check_address, check_token, from_environment
from .continuous_group import ContinuousRolloutGroup
from .control_store import ControlStore, Raylet, kill_stopped, leave_without
from .every_node import this_node_id
from .placement import Placement, granted, nodes_of, release, reserve
from .policy_group import PolicyGroup
from .preflight import Loaded, check_nodes
from .protocols import Usage
from .questions import EXPORT_SECONDS, begin_trace, card, end_trace, process, usage, write_timeline
from .rollout_group import RolloutGroup
from .scoring_group import ReferenceGroup, RewardGroup
from .shared_reward import SharedRewardGroup
from .specs import EngineSpec, PolicySpec, ReferenceSpec, RewardSpec
from .watchdog import Limits, Watchdog

Group = PolicyGroup | RolloutGroup | RewardGroup | SharedRewardGroup | ReferenceGroup
Told = TypeVar("Told", PolicySpec, EngineSpec, Settings)
"""What a set of groups is made from."""


def join_ray(cluster: ClusterSettings, *, worker_logs: bool = False, key: str = "cluster.address") -> None:
    """Connect to the cluster that the configuration, a Ray job or RAY_ADDRESS names; otherwise start a local Ray. `worker_logs`:
    print what the workers print; `key`: where the address was given.

    Raises ClusterError when no cluster that can be joined answers there within `address.ANSWER_SECONDS`.
    """
    key, address = named_address(cluster, key)
    named = f"{key}={address}"
    check_token(address)
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
        check_address(address, named)
    if address is None:
        # Whoever reaches the machine's outward address, on which Ray listens, could run code without a token. Ray 2.60 turns tokens
        # on where RAY_AUTH_MODE is unset, but leaves one in the user's home; it read the mode when it was imported.
        if "RAY_AUTH_MODE" not in os.environ:
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
            logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it would tell how to opt out
        # "local", because without an address Ray would join any cluster that was started on this machine.
        named, address = "a local Ray", "local"
        local = {
            "num_cpus": cluster.local_num_cpus,
            "include_dashboard": False,
            # Processes kept ready for tasks, of which there are none: every actor's has variables of its own.
            "_system_config": {"prestart_worker_first_driver": False, "enable_worker_prestart": False},
        }
    try:
        ray.init(address=address, logging_level=logging.WARNING, log_to_driver=worker_logs, **local)
    except Exception as error:  # of a node that does not start in time Ray raises a bare Exception
        line = " ".join(str(error).split())[:300]
        raise ClusterError(f"{named}: cannot join Ray: {line}") from error


def named_address(cluster: ClusterSettings, key: str = "cluster.address") -> tuple[str, str | None]:
    """Where a cluster to join is named, and its address; None or `local`: a Ray of this run's own."""
    return (key, cluster.address) if cluster.address else ("RAY_ADDRESS", from_environment())


class StartedGroups(ABC, Generic[Told]):
    """Groups as a context manager: no actor and no reservation outlives it."""

    def __init__(
        self,
        told: Told,
        on_wait: Callable[[], None] = lambda: None,
        on_replacement: Callable[[str], None] = lambda line: None,
        is_stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        """`on_wait` is called about once a second while the controller waits; it may raise to stop waiting. `on_replacement`
        is called with a line for every worker that is replaced. `is_stopping`: whether the run has been asked to stop, which
        shortens the watchdog's patience."""
        self._told: Told = told
        self.cluster = told.cluster
        """With as many workers of each group as were started."""
        self._asked_to_wait, self._on_replacement, self._is_stopping = on_wait, on_replacement, is_stopping
        self._beside: Callable[[], None] = lambda: None
        self._watchdog: Watchdog | None = None
        self._store: ControlStore | None = None
        self._raylet: Raylet | None = None
        self._placements: dict[str, Placement] = {}
        self._groups: dict[str, Group] = {}
        self._traced = ["policy"]
        self._profile_began = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start(self, directory: Path | None = None, on_start: Callable[[list[str]], None] = lambda left: None) -> None:
        """Reserve everything, load every model; Ray has been joined. After a failure nothing is left behind. `on_start` is told
        which groups are waited for, and which still are as often as one of them has started.

        `directory` is the run's folder, None where the workers write nothing: before any actor starts, every node has to see
        it as the controller does.
        """
        self._on_start = on_start
        try:
            self._start(directory)
        except BaseException:
            self.end()
            raise

    @abstractmethod
    def _start(self, directory: Path | None) -> None:
        """Reserve and start this run's groups."""

    def _waits_for(self, names: Iterable[str]) -> None:
        """Say which groups have not started yet, if any."""
        if left := list(names):
            self._on_start(left)

    def _on_wait(self) -> None:
        """What is done about once a second of every wait."""
        self._asked_to_wait()
        if self._store is not None:
            self._store.check()
        if self._raylet is not None:
            self._raylet.check()
        if isinstance(policy := self._groups.get("policy"), PolicyGroup):
            policy.look()
        if self._watchdog is not None:
            self._watchdog.check()
        self._beside()

    def while_waiting(self, call: Callable[[], None]) -> None:
        """Have `call` called about once a second of every wait, in the thread that waits; it must not wait itself."""
        self._beside = call

    def _watch(self, directory: Path | None) -> Watchdog:
        """Between the reservation and the first actor: look from now on whether Ray answers, and workers that will beat."""
        cluster = self._told.cluster
        key, address = named_address(cluster)
        here, nodes = this_node_id(), {node for place in self._placements.values() for node in nodes_of(place)}
        self._store = ControlStore(ray.get_runtime_context().gcs_address, None if address in (None, "local") else key)
        self._raylet = Raylet.of_our_own()
        self._watchdog = Watchdog(
            Limits.of(cluster),
            None if directory is None else directory / "hang",
            LOOPBACK if nodes == {here} else ray.util.get_node_ip_address(),
            self._is_stopping,
            self._store.answers,
        )
        return self._watchdog

    def _check_nodes(self, directory: Path | None) -> None:
        """Between the reservation and the first actor, and of a node that takes a lost one's place: see
        `preflight.check_nodes`."""
        models: dict[str, dict[str, tuple[str, str | None]]] = {}
        for group, place in self._placements.items():
            for node in nodes_of(place):
                models.setdefault(node, {}).update(self._models(group))
        check_nodes(models, directory, self._on_wait)
        for group, place in self._placements.items():
            self._placements[group] = replace(place, check=partial(self._check_node, self._models(group), directory))

    def _check_node(self, loaded: Loaded, directory: Path | None, node: str) -> None:
        check_nodes({node: loaded}, directory, self._on_wait)

    def _models(self, group: str) -> dict[str, tuple[str, str | None]]:
        """What the workers of a group load: see `preflight.Loaded`."""
        model = self._told.model
        return {"model.path": (model.path, model.revision)}

    def hosts(self) -> dict[str, list[str]]:
        """The names of the machines that the workers were placed on: of each group one for every worker."""
        names = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in ray.nodes()}
        return {group: [names.get(node, node) for node in place.nodes] for group, place in self._placements.items()}

    def cards(self) -> dict[str, str | None]:
        """The name of each group's GPUs; None on the CPU, and where they differ or are not known."""
        found: dict[str, str | None] = {}
        for name in self._placements:
            on_gpu = self.cluster.device == "cuda" and getattr(self.cluster, name).gpus_per_worker > 0
            cards = set(self._groups[name].ask(card).values()) if on_gpu else set()
            found[name] = cards.pop() if len(cards) == 1 else None
        return found

    def usage(self) -> Usage:
        """Memory of every living worker, and how long it was at work since this was asked last."""
        memory: dict[str, float] = {}
        work: dict[str, list[float]] = {}
        for name, group in self._groups.items():
            for index, (figures, seconds) in group.ask(usage).items():
                memory |= {f"memory/{name}_{index}_{figure}": value for figure, value in figures.items()}
                work.setdefault(name, []).append(seconds)
        return Usage(memory, work)

    def begin_profile(self) -> None:
        """Record from now on what each trainer rank computes, and each engine of one GPU: larger ones compute in processes that
        are vLLM's own."""
        self._profile_began = time.time()
        for name in self._traced:
            self._groups[name].ask(begin_trace)

    def end_profile(self, folder: Path, label: str) -> None:
        """Write the traces and Ray's timeline as FOLDER/LABEL-WORKER.json.gz and FOLDER/LABEL-ray.json.gz."""
        folder.mkdir(exist_ok=True)
        for name in self._traced:
            self._groups[name].ask(end_trace, str(folder), label, seconds=EXPORT_SECONDS)
        names = dict(one for group in self._groups.values() for one in group.ask(process).values())
        write_timeline(folder / f"{label}-ray.json.gz", names, self._profile_began)

    def _kill(self) -> None:
        for group in self._groups.values():
            group.end()
        self._groups.clear()

    def end(self) -> None:
        """Kill every actor, give the reservations back, leave Ray."""
        if not ray.is_initialized():
            return
        self._kill()
        kill_stopped()
        answers = self._store is None or self._store.answers()
        if answers:
            release(
                list({id(place.placement_group): place.placement_group for place in self._placements.values()}.values())
            )
        self._placements = {}
        if self._watchdog is not None:
            self._watchdog.close()
        self._watchdog = self._store = self._raylet = None
        if answers:
            ray.shutdown()
        else:
            leave_without()


class PolicyOnly(StartedGroups[PolicySpec]):
    """The policy group alone: supervised fine-tuning."""

    policy: PolicyGroup

    def _start(self, directory: Path | None) -> None:
        place = self._placements = reserve(["policy"], self._told.cluster, on_wait=self._on_wait)
        self._check_nodes(directory)
        self.cluster = granted(self._told.cluster, place)
        spec = replace(self._told, cluster=self.cluster)
        self.policy = PolicyGroup(spec, place["policy"], self._on_wait, self._watch(directory))
        self._groups["policy"] = self.policy
        self._waits_for(self._groups)
        self.policy.start()


class RolloutOnly(StartedGroups[EngineSpec]):
    """The rollout group alone: evaluation."""

    rollout: RolloutGroup

    def _start(self, directory: Path | None) -> None:
        size, on_wait = self._told.rollout.tensor_parallel_size, self._on_wait
        place = self._placements = reserve(["rollout"], self._told.cluster, size, on_wait)
        self._check_nodes(directory)
        self.rollout = RolloutGroup(self._told, place["rollout"], on_wait, self._on_replacement, self._watch(directory))
        self._groups["rollout"] = self.rollout
        self._waits_for(self._groups)
        self.rollout.start()


def _check_shared(name: str, cluster: ClusterSettings) -> None:
    if named_address(cluster)[1] in (None, "local"):
        raise ConfigError(
            f"reward.shared={name}: nobody could share it in a Ray of this run's own; set cluster.address"
        )
    if any("reward" in together for together in cluster.colocate):
        raise ConfigError(
            f"reward.shared={name}: a shared group has a place of its own; take reward out of cluster.colocate"
        )


class Groups(StartedGroups[Settings]):
    """The four groups."""

    policy: PolicyGroup
    rollout: RolloutGroup
    reward: RewardGroup | SharedRewardGroup
    reference: ReferenceGroup | None

    def _start(self, directory: Path | None) -> None:
        settings, on_wait, on_replacement = self._told, self._on_wait, self._on_replacement
        self._takes_turns = is_colocated(settings.cluster)
        if settings.rollout.tensor_parallel_size == 1:
            self._traced.append("rollout")
        shared = settings.reward.shared
        if shared:
            _check_shared(shared, settings.cluster)
        names = ["policy", "rollout", *([] if shared else ["reward"])]
        if settings.algorithm.kl.placement != "none":
            names.append("reference")
        place = self._placements = reserve(names, settings.cluster, settings.rollout.tensor_parallel_size, on_wait)
        nodes = nodes_of(place["policy"]) | nodes_of(place["rollout"]) | {this_node_id()}
        transfer = transfer_backend(settings, len(nodes))
        settings = replace(settings, rollout=replace(settings.rollout, weight_transfer=transfer))
        self._check_nodes(directory)
        self.cluster = granted(settings.cluster, place)
        settings = replace(settings, cluster=self.cluster)
        watchdog = self._watch(directory)
        # Engines first: they take longest to start, and Ray begins as many processes at once as a node has cores.
        engines = ContinuousRolloutGroup if settings.answers_later else RolloutGroup
        self.rollout = engines(EngineSpec.of(settings), place["rollout"], on_wait, on_replacement, watchdog)
        self._groups["rollout"] = self.rollout
        self.policy = PolicyGroup(PolicySpec.of(settings), place["policy"], on_wait, watchdog)
        self._groups["policy"] = self.policy
        if shared:
            self.reward = SharedRewardGroup(shared, RewardSpec.of(self._told), on_wait)
        else:
            self.reward = RewardGroup(RewardSpec.of(settings), place["reward"], on_wait, on_replacement, watchdog)
        self._groups["reward"] = self.reward
        self.reference = None
        if "reference" in place:
            self.reference = ReferenceGroup(
                ReferenceSpec.of(settings), place["reference"], on_wait, on_replacement, watchdog
            )
            self._groups["reference"] = self.reference
        left: list[str] = [name for name in GROUPS if name in self._groups]
        self._waits_for(left)
        if self._takes_turns:
            # One GPU: an engine counts whatever is taken while it starts as its own, so it starts last and alone, after
            # the trainer has moved out.
            self.policy.start()
            self.policy.offload()
            left.remove("policy")
            self._waits_for(left)
            self._start_together([name for name in left if name != "rollout"], left)
            self.rollout.start()
        else:
            self._start_together(list(left), left)

    def _models(self, group: str) -> dict[str, tuple[str, str | None]]:
        if group != "reward":
            return super()._models(group)
        found: dict[str, tuple[str, str | None]] = {}
        for name, model in self._told.reward.models.items():
            if model.path:
                found[f"reward.models.{name}.path"] = (model.path, model.revision)
            if model.function:
                found[f"reward.models.{name}.function"] = (model.function, None)
        return found

    def _start_together(self, names: list[str], left: list[str]) -> None:
        """Start the groups of these names; each is taken out of `left`, which is what the run still waits for."""
        with ThreadPoolExecutor(max_workers=len(names)) as pool:
            starting = {pool.submit(self._groups[name].start): name for name in names}
            try:
                for future in as_completed(starting):
                    future.result()
                    left.remove(starting[future])
                    self._waits_for(left)
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
