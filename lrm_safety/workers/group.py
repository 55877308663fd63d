"""A group of Ray actors of one role: spawn, call, replace, end; with time limits and the first cause of a failure."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence, Set
from typing import Any

import ray
from ray.exceptions import (
    ActorUnschedulableError,
    GetTimeoutError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ..errors import LrmSafetyError, WorkerError
from ..modeling.distributed import LOOPBACK, address_of
from ..quick_imports import HELD_VARIABLE
from ..settings.system import INTERFACE_VARIABLES
from .every_node import this_node_id
from .placement import Placement, elsewhere, hosts_of, is_lost, release
from .watchdog import Watchdog

DEATHS = (RayActorError, OutOfMemoryError, NodeDiedError, RuntimeEnvSetupError, ActorUnschedulableError)
"""A worker is gone, whatever took it: Ray has no common class for a kill by its memory monitor and the others."""
IMPORT_SECONDS = 600.0
"""A new process imports torch, DeepSpeed or vLLM before it answers anything, which takes minutes on a loaded machine."""
ANSWER_SECONDS = 60.0
"""Limit of a question that a worker answers at once; a worker still importing answers later."""
MESSAGE_LENGTH = 600
"""Characters of a failure's message that are shown: vLLM and CUDA say what to change in later lines than the first."""
CAUSE_GRACE_SECONDS = 3.0
"""After the first failure, how long to look for the death that caused it: peers often notice before Ray does."""


class HourlyBudget:
    """At most `limit` events within any hour."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = limit
        self._clock = clock
        self._moments: list[float] = []

    @property
    def spent(self) -> int:
        """Events of the last hour."""
        self._moments = [moment for moment in self._moments if self._clock() - moment < 3600.0]
        return len(self._moments)

    def spend(self) -> bool:
        """Count one more event, if it is within the limit; says whether it is."""
        allowed = self.spent < self.limit
        if allowed:
            self._moments.append(self._clock())
        return allowed


class WorkerGroup:
    """`num_workers` actors made from a plain class, called together or one by one.

    `constructor_arguments(index)` gives the arguments of worker `index`. `environment` is set in the actor's process
    before it imports anything.
    """

    def __init__(
        self,
        name: str,
        worker_class: type,
        num_workers: int,
        placement: Placement,
        environment: dict[str, str],
        constructor_arguments: Callable[[int], tuple[Any, ...]],
        on_wait: Callable[[], None] = lambda: None,
        watchdog: Watchdog | None = None,
        *,
        replaceable: bool = False,
    ) -> None:
        """`replaceable`: one that is killed because it hangs can be replaced; otherwise the wait in progress fails at once."""
        self.name = name
        self.replaceable = replaceable
        self._class = worker_class
        # Each worker's placement and its index in it: one whose node was lost has a placement of its own.
        self._places = [(placement, index) for index in range(num_workers)]
        self._elsewhere: list[Placement] = []
        self._environment = environment
        self._arguments = constructor_arguments
        self._on_wait = on_wait
        self._watchdog = watchdog
        self._killed: dict[int, str] = {}
        self.workers = [self._spawn(index) for index in range(num_workers)]
        self._hosts = hosts_of(placement.nodes)

    def __len__(self) -> int:
        return len(self.workers)

    def _spawn(self, index: int) -> Any:
        placement, position = self._places[index]
        name = f"{self.name}-{index}-{time.time_ns()}"
        actor: Any = ray.remote(self._class).options(
            num_cpus=placement.cpus_per_worker,
            num_gpus=placement.gpus_per_worker,
            max_restarts=0,
            name=name,
            scheduling_strategy=PlacementGroupSchedulingStrategy(
                placement.placement_group, placement_group_bundle_index=placement.first_bundle + position
            ),
            runtime_env={"env_vars": self._environment | {HELD_VARIABLE: "1"}},
        )
        worker = actor.remote(*self._arguments(index))
        if self._watchdog is not None:
            self._watchdog.watch(self, index, worker, name)
        return worker

    def submit(self, index: int, method: str, *arguments: Any) -> Any:
        """Start one call on one worker; returns Ray's reference to its result."""
        return getattr(self.workers[index], method).remote(*arguments)

    def stream(self, index: int, method: str, *arguments: Any) -> Any:
        """Start a generator method on one worker; returns Ray's generator of references. The worker waits while what it
        yielded last is not asked for, and runs on when the generator is let go."""
        method_of_worker = getattr(self.workers[index], method)
        return method_of_worker.options(num_returns="streaming", _generator_backpressure_num_objects=1).remote(
            *arguments
        )

    def call(self, method: str, *arguments: Any, timeout_seconds: float) -> list[Any]:
        """Call every worker with the same arguments and gather the results in order of rank."""
        return self.call_each(method, [arguments] * len(self.workers), timeout_seconds=timeout_seconds)

    def call_each(self, method: str, arguments: Sequence[tuple[Any, ...]], *, timeout_seconds: float) -> list[Any]:
        """Call worker i with `arguments[i]` and gather the results in order of rank.

        Raises WorkerError with the first cause when a worker fails or none answers within the limit.
        """
        references = [self.submit(index, method, *one) for index, one in enumerate(arguments)]
        return self.gather(references, method, timeout_seconds)

    def call_living(self, method: str) -> dict[int, Any]:
        """Ask every idle worker what it answers at once; results by index, without those that are dead: who needs such
        a worker will find out."""
        return self._answers(method, [self.submit(index, method) for index in range(len(self))], ANSWER_SECONDS)

    def ask(self, question: Callable[..., Any], *arguments: Any, seconds: float = ANSWER_SECONDS) -> dict[int, Any]:
        """The same for what is no method: `question(worker, *arguments)`, answered in each worker's process."""
        asked = [worker.__ray_call__.remote(question, *arguments) for worker in self.workers]
        return self._answers(question.__name__, asked, seconds)

    def _answers(self, method: str, references: Sequence[Any], seconds: float) -> dict[int, Any]:
        found = {}
        for index, reference in enumerate(references):
            try:
                found[index] = self.answer(index, method, reference, seconds)
            except DEATHS:
                continue
        return found

    def answer(self, index: int, method: str, reference: Any, seconds: float = ANSWER_SECONDS) -> Any:
        """The result of a call that an idle worker answers at once. Raises one of `DEATHS`, or WorkerError after so many
        seconds."""
        deadline = time.monotonic() + seconds
        while not ray.wait([reference], timeout=1.0)[0]:
            self._on_wait()
            if time.monotonic() > deadline:
                raise self.silent(index, method, seconds)
        return ray.get(reference)

    def meeting_point(self, other_nodes: Set[str] = frozenset()) -> tuple[str, int]:
        """Address and free port of worker 0 for the group (and workers on `other_nodes`) to meet at: loopback where all
        are on one node, otherwise the address of `cluster.network_interface`, or the one by which Ray reaches that node."""
        one_node = len(self.node_ids() | other_nodes) == 1
        interface = self._environment.get(INTERFACE_VARIABLES[-1])  # `cluster.network_interface`
        asked = [self.workers[0].__ray_call__.remote(free_address, one_node, interface)]
        address: tuple[str, int] = self.gather(asked, "free_address", IMPORT_SECONDS)[0]
        return address

    def gather(
        self, references: Sequence[Any], method: str, timeout_seconds: float, workers: Sequence[int] | None = None
    ) -> list[Any]:
        """Results of references of which the i-th belongs to worker `workers[i]`, null: i; fails as soon as one does."""
        workers = range(len(references)) if workers is None else workers
        deadline = time.monotonic() + timeout_seconds
        waiting = list(references)
        while waiting:
            self._on_wait()
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=1.0)
            for reference in ready:
                try:
                    ray.get(reference)
                except (*DEATHS, RayTaskError) as error:
                    raise self.first_cause(method, references, references.index(reference), error, workers) from error
            if not ready and time.monotonic() > deadline:
                silent = [index for index, reference in zip(workers, references, strict=True) if reference in waiting]
                raise self.silent(silent, method, timeout_seconds)
        return list(ray.get(list(references)))

    def first_cause(
        self,
        method: str,
        references: Sequence[Any],
        index: int,
        error: Exception,
        workers: Sequence[int] | None = None,
    ) -> Exception:
        """The failure that came first: a death outranks the communication errors it causes in its peers.

        `workers`: see `gather`.
        """
        causes = {index: error}
        others = [reference for reference in references if reference is not references[index]]
        deadline = time.monotonic() + CAUSE_GRACE_SECONDS
        while others and (left := deadline - time.monotonic()) > 0:
            ready, others = ray.wait(others, num_returns=1, timeout=left)
            for reference in ready:
                try:
                    ray.get(reference, timeout=1.0)
                except (*DEATHS, RayTaskError) as other:
                    causes[references.index(reference)] = other
                except GetTimeoutError:
                    continue
        dead = [i for i, cause in causes.items() if isinstance(cause, DEATHS)]
        first = dead[0] if dead else index
        return self.failure(workers[first] if workers else first, method, causes[first])

    def failure(self, index: int, method: str, error: Exception) -> Exception:
        """What to raise for a worker's failed call: see `describe`."""
        if isinstance(error, DEATHS) and index in self._killed:
            return WorkerError(f"{self.name} worker {index} hung and was killed: {self._killed[index]}")
        return describe(self.name, index, method, error, self._hosts.get(index))

    def raise_failure(self, method: str, references: Sequence[Any], seconds: float) -> bool:
        """Raise the first cause when one of these references, of which the i-th belongs to worker i, fails within `seconds`;
        whether all have succeeded."""
        deadline = time.monotonic() + seconds
        waiting = list(references)
        while waiting:
            ready, waiting = ray.wait(waiting, num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                return False
            for reference in ready:
                try:
                    ray.get(reference)
                except (*DEATHS, RayTaskError) as error:
                    raise self.first_cause(method, references, references.index(reference), error) from error
        return True

    def kill(self, index: int, why: str) -> None:
        """End worker `index`, which hangs: its calls fail at once, and `why` is what they say."""
        self._killed[index] = why
        ray.kill(self.workers[index])

    def fate(self, index: int, error: Exception) -> tuple[str, str]:
        """What became of a dead worker, `died` or `hung`, and why."""
        if why := self._killed.get(index):
            return "hung", why
        return "died", " ".join(str(error).split())[:300]

    def replace(self, index: int) -> None:
        """End worker `index` and spawn a new one in its place (not started yet); elsewhere where its node is lost.

        Raises WorkerError where no other node has room for it.
        """
        placement, position = self._places[index]
        ray.kill(self.workers[index])
        self._killed.pop(index, None)
        if not is_lost(placement.nodes[position]):
            self.workers[index] = self._spawn(index)
            # Ray gives a node up some seconds after its workers are gone: what is sent there until then never begins.
            if self._begins(index) or not is_lost(placement.nodes[position]):
                return
        others = {place.nodes[at] for other, (place, at) in enumerate(self._places) if other != index}
        self._elsewhere.append(elsewhere(placement, self.name, self._on_wait, others))
        self._places[index] = (self._elsewhere[-1], 0)
        self._hosts = hosts_of([place.nodes[position] for place, position in self._places])
        self.workers[index] = self._spawn(index)

    def _begins(self, index: int) -> bool:
        """Whether the process of a worker that was just spawned comes up, or has not said anything within `IMPORT_SECONDS`."""
        ready = self.workers[index].__ray_ready__.remote()
        deadline = time.monotonic() + IMPORT_SECONDS
        placement, position = self._places[index]
        while time.monotonic() < deadline and not ray.wait([ready], timeout=1.0)[0]:
            self._on_wait()
            if is_lost(placement.nodes[position]):
                return False
        return self.is_alive(index, 1.0)

    def is_alive(self, index: int, timeout_seconds: float) -> bool:
        """Whether the actor's process still exists; a busy worker is alive."""
        try:
            ray.get(self.workers[index].__ray_ready__.remote(), timeout=timeout_seconds)
        except DEATHS:
            return False
        except GetTimeoutError:
            return True
        return True

    def silent(self, which: int | list[int], method: str, seconds: float) -> WorkerError:
        """The error of a worker, or several, that let a time limit pass."""
        return WorkerError(f"{self.name} worker {which} did not finish `{method}` within {seconds:g} seconds")

    def node_ids(self) -> set[str]:
        """The nodes that the workers run on."""
        asked = [worker.__ray_call__.remote(this_node_id) for worker in self.workers]
        return set(self.gather(asked, "this_node_id", IMPORT_SECONDS))

    def end(self) -> None:
        """Kill every worker, and give back what was reserved for those of lost nodes where Ray's control store answers."""
        for worker in self.workers:
            ray.kill(worker)
        if self._elsewhere and (self._watchdog is None or self._watchdog.store_answers()):
            release([placement.placement_group for placement in self._elsewhere])


def free_address(worker: Any, loopback: bool, interface: str | None = None) -> tuple[str, int]:
    """An address of the node this runs on and a port that is free now; sent to a worker through `__ray_call__`.

    The address is that of `interface`, or where none is named the one by which Ray knows the node.
    """
    host = LOOPBACK if loopback else address_of(interface) if interface else str(ray.util.get_node_ip_address())
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        return host, listener.getsockname()[1]


def describe(group: str, index: int, method: str, error: Exception, host: str | None = None) -> Exception:
    """A failure inside an actor, on a node of this name, as one line; our own errors come through as they are."""
    if isinstance(error, DEATHS):
        reason = " ".join(str(error).split())
        place = f" on node {host}" if host else ""
        return WorkerError(f"{group} worker {index}{place} died during `{method}`: {reason[:400]}")
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, LrmSafetyError):
        return cause
    message = "; ".join(line.strip() for line in str(cause).splitlines() if line.strip())
    if len(message) > MESSAGE_LENGTH:
        message = f"{message[:MESSAGE_LENGTH]} ..."
    return WorkerError(
        f"{group} worker {index} failed in `{method}`: {': '.join(filter(None, (type(cause).__name__, message)))}",
        str(error) if isinstance(error, RayTaskError) else "",  # which of Ray's is the worker's traceback
    )
