"""One reward group for several runs on a cluster (`reward.shared`): started by the first, ended some time after the last."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayTaskError

from ..environment import source_digest
from ..errors import ClusterError, ConfigError, WorkerError
from ..rewards.conversation import Conversation
from ..rewards.scorer import Scores
from ..settings.paths import PACKAGE_PREFIX
from .group import DEATHS, IMPORT_SECONDS, describe
from .placement import granted, release, reserve
from .scoring_group import RewardGroup
from .specs import RewardSpec

NAMESPACE = "lrm_safety"
"""Fixed, because a job's own namespace is anonymous and no other job looks into it."""
CODE = Path(__file__).resolve().parents[1]
PREFIX = "reward-"
"""Of the names of these actors; what follows is the user's."""
BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
"""A user that has not beaten for so long is gone: killed, or cut off."""
LINGER_SECONDS = 120.0
"""How long a loaded group waits for another run after its last: the next point of a sweep takes as long to come to it."""
DESCRIBE_SECONDS = 10.0
CONCURRENT_CALLS = 100_000
"""Calls wait in the service's queue, where they are served in turn, and not in Ray's, where they would be in order of arrival."""

_logger = logging.getLogger(__name__)
Item = TypeVar("Item")


class FairQueue(Generic[Item]):
    """Items of several users: one of each in turn, in each user's own order."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[Item]] = OrderedDict()

    def put(self, user: str, item: Item) -> None:
        """Append to the user's line; who had none comes last in the round."""
        self._waiting.setdefault(user, deque()).append(item)

    def take(self) -> Item | None:
        """The next item, whose user goes to the end of the round; None when nothing waits."""
        if not self._waiting:
            return None
        user, line = self._waiting.popitem(last=False)
        item = line.popleft()
        if line:
            self._waiting[user] = line
        return item

    def forget(self, user: str) -> list[Item]:
        """Drop the user's line, which is returned."""
        return list(self._waiting.pop(user, ()))


class Leases:
    """Who uses a service: a lease is renewed by beats and runs out without them."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._clock = seconds, clock
        self._last: dict[str, float] = {}

    def __len__(self) -> int:
        return len(self._last)

    def beat(self, user: str) -> None:
        """Begin or renew a lease."""
        self._last[user] = self._clock()

    def end(self, user: str) -> None:
        """Give a lease back; nothing happens where there is none."""
        self._last.pop(user, None)

    def expire(self) -> list[str]:
        """End the leases that have run out, and name their users."""
        gone = [user for user, last in self._last.items() if self._clock() - last > self._seconds]
        for user in gone:
            del self._last[user]
        return gone


def identity(spec: RewardSpec) -> dict[str, str]:
    """What users of one group have to agree in, by dotted key."""
    cluster = spec.cluster
    told = _flat({"reward.models": asdict(spec.reward)["models"], "cluster.reward": asdict(cluster.reward)})
    # The copy of the checkout that a job runs in has a place of its own, though the code is the same.
    told = {key: value.replace(f"{CODE}/", f"{PACKAGE_PREFIX}{CODE.name}/") for key, value in told.items()}
    return {**told, "cluster.device": cluster.device, "the code of lrm_safety": source_digest()[:12]}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": str(value)}
    return found


def refusal(name: str, mine: Mapping[str, str], theirs: Mapping[str, str]) -> str | None:
    """Why a run may not share a group, in one line; None when it may."""
    keys = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
    if not keys:
        return None
    shown = "; ".join(f"{key} is {theirs.get(key, 'absent')} there, {mine.get(key, 'absent')} here" for key in keys[:3])
    return f"reward.shared={name}: the group that runs under this name differs: {shown}; choose another name"


class SharedRewards:
    """The service: an asynchronous actor that owns reservation and workers. Beats are answered while workers load and score."""

    def __init__(self, spec: RewardSpec, lease_seconds: float, linger_seconds: float) -> None:
        self._spec = spec
        self._leases, self._linger = Leases(lease_seconds), linger_seconds
        self._queue: FairQueue[asyncio.Future[int]] = FairQueue()
        self._idle: list[int] = []
        self._pool = ThreadPoolExecutor()
        self._starting: asyncio.Task[RewardGroup] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._ending = False
        self._began = time.time()

    async def join(self, user: str, wanted: dict[str, str]) -> dict[str, str] | None:
        """Begin a lease. Returns what the group is, as `identity` has it; None: it is about to end, as one does that nobody uses
        when another is `wanted`."""
        mine = identity(self._spec)
        if self._watch is not None and not len(self._leases) and mine != wanted:
            self._ending = True
        if self._ending:
            return None
        self._leases.beat(user)
        self._watch = self._watch or asyncio.ensure_future(self._end_with_the_last())
        return mine

    async def loaded(self) -> None:
        """Return when the models are loaded, which the first call begins. Raises what keeps them from it."""
        self._starting = self._starting or asyncio.ensure_future(self._in_thread(self._start))
        await self._starting

    async def beat(self, user: str) -> None:
        """Renew a lease."""
        if not self._ending:
            self._leases.beat(user)

    async def leave(self, user: str) -> None:
        """End a lease."""
        self._leases.end(user)
        self._forget(user)

    async def score(
        self, user: str, conversations: list[Conversation], prefixes: list[list[Conversation]] | None
    ) -> Scores:
        """What a worker says, when it is the user's turn."""
        assert self._starting is not None, "score before loaded"
        group = await self._starting
        turn: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._queue.put(user, turn)
        self._give_turns()
        worker = await turn
        try:
            return await self._in_thread(lambda: group.result(group.submit(conversations, prefixes, worker)))
        finally:
            self._idle.append(worker)
            self._give_turns()

    async def describe(self) -> str:
        """Who uses it, what, and since when, in a few words."""
        models = ", ".join(self._spec.reward.models)
        return f"{models}, {len(self._leases)} run{'s' * (len(self._leases) != 1)}, for {(time.time() - self._began) / 60:.0f} min"

    def _start(self) -> RewardGroup:
        # Owned by this actor, so that the end of the first run takes neither reservation nor workers along.
        place = reserve(["reward"], self._spec.cluster)
        self._placement = place["reward"]
        spec = replace(self._spec, cluster=granted(self._spec.cluster, place))
        group = RewardGroup(spec, self._placement, lambda: None, _logger.warning)
        group.start()
        self._idle = list(range(self._placement.num_workers))
        return group

    async def _in_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _give_turns(self) -> None:
        while self._idle and (turn := self._queue.take()) is not None:
            if not turn.done():
                turn.set_result(self._idle.pop())

    def _is_loaded(self) -> bool:
        return self._starting is not None and self._starting.done() and self._starting.exception() is None

    def _forget(self, user: str) -> None:
        for turn in self._queue.forget(user):
            turn.cancel()

    async def _end_with_the_last(self) -> None:
        used = time.monotonic()
        while not self._ending and (
            len(self._leases) or (self._is_loaded() and time.monotonic() - used < self._linger)
        ):
            if len(self._leases):
                used = time.monotonic()
            await asyncio.sleep(0.2)
            for user in self._leases.expire():
                self._forget(user)
        self._ending = True
        if hasattr(self, "_placement"):
            release([self._placement.placement_group])  # which ends the workers in it
        ray.kill(ray.get_runtime_context().current_actor)


class SharedRewardGroup:
    """A run's side of a shared group: what `RewardGroup` is to a run that has one of its own."""

    def __init__(
        self,
        name: str,
        spec: RewardSpec,
        on_wait: Callable[[], None],
        lease_seconds: float = LEASE_SECONDS,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        self._name, self._spec, self._on_wait = name, spec, on_wait
        self._lease_seconds, self._linger_seconds = lease_seconds, linger_seconds
        self._identity = identity(spec)
        self._user = uuid.uuid4().hex
        self._over = threading.Event()
        self._answered = time.monotonic()
        self._service: Any = None

    def start(self) -> None:
        """Join the group, or start it. Raises ConfigError when it is another than this run's."""
        deadline = time.monotonic() + IMPORT_SECONDS
        while (theirs := self._join()) is None:
            self._on_wait()
            if time.monotonic() > deadline:
                raise ClusterError(f"reward.shared={self._name}: the group of before did not end")
            time.sleep(0.5)
        refused = refusal(self._name, self._identity, theirs)
        if refused:
            self.end()
            raise ConfigError(refused)
        threading.Thread(target=self._beat, daemon=True).start()
        cluster = self._spec.cluster
        self._wait(
            self._service.loaded.remote(), "start", cluster.start_timeout_seconds + cluster.placement_timeout_seconds
        )

    def _join(self) -> dict[str, str] | None:
        # Of several that ask at one moment Ray lets one start it and gives it to the others.
        self._service = (
            ray.remote(SharedRewards)
            .options(
                name=f"{PREFIX}{self._name}",
                namespace=NAMESPACE,
                lifetime="detached",
                get_if_exists=True,
                num_cpus=0,
                max_concurrency=CONCURRENT_CALLS,
            )
            .remote(self._spec, self._lease_seconds, self._linger_seconds)
        )
        try:
            asked = self._service.join.remote(self._user, self._identity)
            joined: dict[str, str] | None = ray.get(asked, timeout=IMPORT_SECONDS)
        except DEATHS:
            return None
        except GetTimeoutError as error:
            raise ClusterError(
                f"reward.shared={self._name}: no answer within {IMPORT_SECONDS:g} s; end it on a node: {how_to_end(self._name)}"
            ) from error
        return joined

    def submit(self, conversations: list[Conversation], prefixes: list[list[Conversation]] | None = None) -> Any:
        """Begin to score; see `RewardGroup.submit`."""
        return self._service.score.remote(self._user, conversations, prefixes)

    def result(self, ticket: Any) -> Scores:
        """Scores in the order of the submitted conversations. Raises WorkerError when the service is gone."""
        scores: Scores = self._wait(ticket, "score")
        return scores

    def _wait(self, reference: Any, method: str, seconds: float | None = None) -> Any:
        """A result. How long a call may take says the service; here is looked whether it lives, since others' calls come first."""
        begin, limit = time.monotonic(), self._spec.cluster.call_timeout_seconds
        while not ray.wait([reference], timeout=1.0)[0]:
            self._on_wait()
            now = time.monotonic()
            if now - self._answered > limit or (seconds is not None and now - begin > seconds):
                raise WorkerError(f"reward.shared={self._name}: `{method}` was not answered in {now - begin:.0f} s")
        try:
            return ray.get(reference)
        except DEATHS as error:
            reason = " ".join(str(error).split())[:300]
            raise WorkerError(f"reward.shared={self._name}: the group is gone, during `{method}`: {reason}") from error
        except RayTaskError as error:
            raise describe(f"shared reward {self._name}", 0, method, error) from error

    def _beat(self) -> None:
        while not self._over.wait(min(BEAT_SECONDS, self._lease_seconds / 4)):
            try:
                ray.get(self._service.beat.remote(self._user), timeout=self._lease_seconds)
                self._answered = time.monotonic()
            except GetTimeoutError:
                continue
            except Exception:  # the service or Ray is gone, which the next result says
                return

    def ask(self, question: Callable[..., Any], *arguments: Any, seconds: float = 0.0) -> dict[int, Any]:
        """Nothing: the workers are no run's own."""
        return {}

    def end(self) -> None:
        """Give the lease back."""
        self._over.set()
        if self._service is not None:
            try:
                ray.get(self._service.leave.remote(self._user), timeout=10.0)
            except (*DEATHS, GetTimeoutError):
                return


def shared_rewards() -> dict[str, str | None]:
    """The shared groups of the cluster that was joined, by name, and what each says of itself; None: it does not answer."""
    found: dict[str, str | None] = {}
    for one in ray.util.list_named_actors(all_namespaces=True):
        if one["namespace"] == NAMESPACE and one["name"].startswith(PREFIX):
            name = one["name"].removeprefix(PREFIX)
            try:
                service: Any = ray.get_actor(**one)
                found[name] = ray.get(service.describe.remote(), timeout=DESCRIBE_SECONDS)
            except (*DEATHS, ValueError):
                continue  # it has ended meanwhile
            except GetTimeoutError:
                found[name] = None
    return found


def how_to_end(name: str) -> str:
    """What a user types on a node to end a group that does not end by itself."""
    return f"""python -c 'import ray; ray.init("auto"); ray.kill(ray.get_actor("{PREFIX}{name}", "{NAMESPACE}"))'"""
