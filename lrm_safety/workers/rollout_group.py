"""The controller's side of the rollout group: stream finished responses, replace dead engines, answer every prompt once."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayTaskError

from ..errors import ConfigError, InvariantError, WorkerError
from ..rollouts import GenerationRequest, Rollout, SamplingParameters, TokenIds
from ..weight_sync.backends import is_colocated, transfer_backend
from .environment import engine_environment
from .group import ANSWER_SECONDS, DEATHS, HourlyBudget, WorkerGroup, describe
from .placement import Placement
from .request_queue import RequestQueue
from .rollout import RolloutWorker
from .specs import EngineSpec
from .watchdog import Watchdog

WAIT_SECONDS = 1.0
TURNS = 2
"""Of each engine of a queue that are asked for at once: one is begun while the controller reads the one before."""

BUCKETS_AHEAD = 2
"""Buckets of a weight sync that engines may hold besides the one that the trainer gathers: one is loaded while the next comes."""

Publish = Callable[[], AbstractContextManager[Iterator[Any]]]
"""Begins one pass over the trainer's weights: buckets in order, as `RolloutWorker.load_bucket` takes them or as Ray's references
to them. The context's end lets them go."""


def ready_of(references: Sequence[Any], seconds: float) -> list[Any]:
    """Those that are there; where none is, what is first within so long. Two calls of Ray however many there are."""
    ready, left = ray.wait(list(references), num_returns=1, timeout=seconds)
    if ready and left:
        ready += ray.wait(left, num_returns=len(left), timeout=0.0)[0]
    return list(ready)


class EngineCalls:
    """Calls a method of every engine at once; handed to trainer rank 0, which drives vLLM's own weight transfer."""

    def __init__(self, engines: list[Any], timeout_seconds: float) -> None:
        self._engines = engines
        self._limit = timeout_seconds

    def __call__(self, method: str, arguments: list[tuple[Any, ...]]) -> None:
        """`arguments[i]` go to engine i; raises the first failure."""
        calls = [getattr(engine, method).remote(*one) for engine, one in zip(self._engines, arguments, strict=True)]
        ray.get(calls, timeout=self._limit)


class RolloutGroup:
    """vLLM engines that sample responses."""

    worker: type[RolloutWorker] = RolloutWorker

    def __init__(
        self,
        spec: EngineSpec,
        placement: Placement,
        on_wait: Callable[[], None],
        on_replacement: Callable[[str], None] = lambda line: None,
        watchdog: Watchdog | None = None,
    ) -> None:
        self._spec = spec
        self._on_replacement = on_replacement
        self._limit = spec.cluster.call_timeout_seconds
        self._on_wait = on_wait
        self.backend = transfer_backend(spec)
        self._takes_turns = is_colocated(spec.cluster)
        self._obstacle: str | None = None
        self._group = WorkerGroup(
            "rollout",
            self.worker,
            spec.cluster.rollout.num_workers,
            placement,
            engine_environment(spec),
            lambda index: (self._spec, index),  # as it is when an engine begins: `start` may give the adapters up
            on_wait,
            watchdog,
            replaceable=True,
        )
        self._published: tuple[int, Publish] | None = None
        self.replacements = HourlyBudget(spec.rollout.max_restarts)
        self.connected = False

    def start(self) -> None:
        """Load every engine.

        Raises ConfigError where adapters were demanded and vLLM cannot apply them; where they were not, all engines start anew
        as ones that take every weight.
        """
        limit, lora = self._spec.cluster.start_timeout_seconds, self._spec.lora
        obstacles: list[str | None] = self._group.call("start", timeout_seconds=limit)
        self._obstacle = next(filter(None, obstacles), None)
        if self._obstacle is None:
            return
        assert lora is not None
        if lora.sync == "adapters":
            raise ConfigError(f"trainer.lora.sync=adapters: {self._obstacle}; use auto or merged")
        self._spec = replace(self._spec, lora=None)
        for engine in range(len(self._group)):
            self._group.replace(engine)
        self._group.call("start", timeout_seconds=limit)

    @property
    def takes_adapters(self) -> bool:
        """Whether a weight sync brings LoRA adapters alone."""
        return self._spec.lora is not None

    def describe(self) -> list[str]:
        """What the engines are, a line for each kind of answer."""
        merged = [f"every weight sync merges the adapters: {self._obstacle}"] if self._obstacle else []
        engines: dict[str, list[int]] = {}
        for engine, answer in self._group.call_living("describe").items():
            engines.setdefault(answer, []).append(engine)
        return merged + [
            f"rollout engine{'s' if len(which) > 1 else ''} {', '.join(map(str, which))}: {answer}"
            for answer, which in engines.items()
        ]

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """Chunks of finished responses as the engines let them go; every request is answered exactly once.

        The composition of a chunk depends on requests, seeds and weights alone; only the order between engines varies.
        An engine that dies is replaced, takes the published weights and goes on with what it had not answered. Raises
        WorkerError after `rollout.timeout_seconds`, or when engines die more often than `rollout.max_restarts`.
        """
        shares = [iter([requests[i :: len(self._group)]]) for i in range(len(self._group))]
        yield from self._answers(lambda engine: next(shares[engine], ()), sampling, whole=False)

    def generate_batches(
        self, batches: Sequence[Sequence[GenerationRequest]], sampling: SamplingParameters
    ) -> Iterator[list[Rollout]]:
        """The same for batches that are not to be cut: each goes whole to the engine that is free next, so that a response is
        the one that a single engine gives. `request_id`s differ over all batches. `rollout.timeout_seconds` is the longest
        time without any response."""
        left = iter(batches)
        yield from self._answers(lambda engine: next(left, ()), sampling, whole=True)

    def generate_from_queue(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParameters
    ) -> Iterator[list[Rollout]]:
        """Rollouts as they end, now and then none; every request is answered exactly once.

        The engines share one queue, of which each takes as much as it has room for: none is through while others have work
        waiting. What a dead engine had not answered comes first again. Which engine answers what, and with it a response's last
        bits, depends on time. Raises as `generate_batches` does.
        """
        limit = self._spec.rollout.timeout_seconds
        deadline = time.monotonic() + limit
        queue = RequestQueue(len(self._group), self._spec.rollout.max_num_seqs)
        queue.add(requests)
        turns: list[deque[Any]] = [deque() for _ in queue.held]

        def take(engines: Sequence[int]) -> None:
            for engine, share in enumerate(queue.deal()):
                if share or (engine in engines and queue.held[engine]):
                    turns[engine].append(self._group.submit(engine, "answer", share, sampling))

        for _ in range(TURNS):
            take(range(len(turns)))
        while queue:
            self._on_wait()
            if time.monotonic() > deadline:
                raise self._too_slow(len(queue))
            first = {mine[0]: engine for engine, mine in enumerate(turns) if mine}
            for turn in ready_of(list(first), WAIT_SECONDS):
                engine = first[turn]
                try:
                    rollouts: list[Rollout] = ray.get(turns[engine].popleft())
                except DEATHS as error:
                    self._revive(engine, error)
                    queue.lost(engine)
                    turns[engine].clear()
                    for _ in range(TURNS):
                        take([engine])
                    deadline = time.monotonic() + limit
                    continue
                except RayTaskError as error:
                    raise describe("rollout", engine, "answer", error) from error
                queue.answered(engine, rollouts)
                take([engine])
                yield rollouts
                if rollouts:
                    deadline = time.monotonic() + limit

    def _answers(
        self, take: Callable[[int], Sequence[GenerationRequest]], sampling: SamplingParameters, *, whole: bool
    ) -> Iterator[list[Rollout]]:
        """What the engines answer; an engine that is through takes what `take` gives it next, until that is empty. `whole`: what
        is taken is one batch of several. An engine that replaces a dead one is then given all that the dead one had, since a
        response's last bits depend on what is beside it, and what was answered before is not yielded again; the limit of time
        begins anew with every chunk."""
        limit = self._spec.rollout.timeout_seconds
        deadline = time.monotonic() + limit
        shares = [{r.request_id: r for r in take(i)} for i in range(len(self._group))]
        open_requests = [dict(share) for share in shares]
        repeated: list[set[int]] = [set() for _ in shares]
        streams = {i: self._stream(i, mine, sampling) for i, mine in enumerate(open_requests) if mine}
        while streams:
            self._on_wait()
            ready = ready_of(list(streams.values()), WAIT_SECONDS)
            engines = {id(stream): engine for engine, stream in streams.items()}
            if not ready and time.monotonic() > deadline:
                raise self._too_slow(sum(map(len, open_requests)))
            for stream in ready:
                self._on_wait()
                engine = engines[id(stream)]
                try:
                    chunk: list[Rollout] = ray.get(next(stream))
                except StopIteration:
                    del streams[engine]
                    if open_requests[engine]:
                        missing = sorted(open_requests[engine])[:5]
                        raise InvariantError(f"rollout engine {engine} never answered requests {missing}") from None
                    shares[engine] = {r.request_id: r for r in take(engine)}
                    open_requests[engine], repeated[engine] = dict(shares[engine]), set()
                    if open_requests[engine]:
                        streams[engine] = self._stream(engine, open_requests[engine], sampling)
                    continue
                except DEATHS as error:
                    self._revive(engine, error)
                    if whole:
                        deadline = time.monotonic() + limit
                    # One that answered everything and died before it said so takes nothing: its stream ends at once.
                    left = shares[engine] if whole and open_requests[engine] else open_requests[engine]
                    repeated[engine] = left.keys() - open_requests[engine].keys()
                    streams[engine] = self._stream(engine, left, sampling)
                    continue
                except RayTaskError as error:
                    raise describe("rollout", engine, "generate", error) from error
                fresh = [rollout for rollout in chunk if rollout.request_id not in repeated[engine]]
                for rollout in fresh:
                    if open_requests[engine].pop(rollout.request_id, None) is None:
                        raise InvariantError(f"rollout engine {engine} answered request {rollout.request_id} twice")
                if fresh:
                    yield fresh
                if whole:
                    deadline = time.monotonic() + limit

    def _too_slow(self, num_open: int) -> WorkerError:
        return WorkerError(
            f"rollout.timeout_seconds={self._spec.rollout.timeout_seconds:g}: {num_open} responses were not finished; raise it, "
            "or lower the longest response (max_response_tokens)"
        )

    def _stream(self, engine: int, requests: dict[int, GenerationRequest], sampling: SamplingParameters) -> Any:
        method = self._group.workers[engine].generate.options(num_returns="streaming")
        return method.remote(list(requests.values()), sampling)

    def _revive(self, engine: int, error: Exception) -> None:
        """Replace a dead engine and give it the published weights."""
        fate, reason = self._group.fate(engine, error)
        if self.connected:
            # The sender's channel holds all engines: another one can only join by opening it anew on every side.
            raise WorkerError(
                f"rollout engine {engine} {fate}; with rollout.weight_transfer={self.backend} the run goes on from its last "
                f"checkpoint (trainer.max_restarts), or by starting the same command again: {reason}"
            ) from error
        if not self.replacements.spend():
            raise WorkerError(
                f"rollout engine {engine} {fate} and rollout.max_restarts={self.replacements.limit} an hour is used up: {reason}"
            ) from error
        self._on_replacement(f"rollout engine {engine} {fate} and is replaced: {reason}")
        self._group.replace(engine)
        start = self._group.submit(engine, "start")
        (obstacle,) = self._group.gather([start], "start", self._spec.cluster.start_timeout_seconds, [engine])
        if obstacle:
            raise WorkerError(
                f"rollout engine {engine} was replaced, and takes no adapters as the others do: {obstacle}"
            )
        if self._published is not None:
            self._update([engine], *self._published)

    def revive_dead(self) -> None:
        """Replace engines that died between two rollout batches."""
        self._answers_of_all("weights_version", seconds=ANSWER_SECONDS)

    def _answers_of_all(self, method: str, *arguments: Any, seconds: float) -> list[Any]:
        """Of every engine; one that dies is replaced, takes the published weights and is asked again."""
        references = [self._group.submit(engine, method, *arguments) for engine in range(len(self._group))]
        answers: list[Any] = []
        while (engine := len(answers)) < len(references):
            try:
                answers.append(self._group.answer(engine, method, references[engine], seconds))
            except DEATHS as error:
                self._revive(engine, error)
                references[engine] = self._group.submit(engine, method, *arguments)
            except RayTaskError as error:
                raise describe("rollout", engine, method, error) from error
        return answers

    def load_weights(self, version: int, publish: Publish) -> None:
        """One update session on every engine, at the same time; an engine that is replaced later has one of its own, for
        which the trainer must still hold the same weights."""
        self._published = None  # engines replaced now take the new weights with the others
        self.revive_dead()
        self._update(range(len(self._group)), version, publish)
        self._published = (version, publish)

    def _update(self, engines: Sequence[int], version: int, publish: Publish) -> None:
        def call(method: str, *arguments: Any) -> tuple[str, list[Any]]:
            return method, [self._group.submit(engine, method, *arguments) for engine in engines]

        with publish() as buckets:
            calls = deque([call("start_weight_update")])
            for bucket in buckets:
                calls.append(call("load_bucket", bucket))
                while len(calls) > BUCKETS_AHEAD:
                    method, references = calls.popleft()
                    self._group.gather(references, method, self._limit, engines)
            calls.append(call("finish_weight_update", version))
            for method, references in calls:
                self._group.gather(references, method, self._limit, engines)

    def calls(self) -> EngineCalls:
        """What the trainer needs to reach the engines."""
        return EngineCalls(self._group.workers, self._limit)

    def weights_versions(self) -> list[int]:
        """The version each engine says it holds."""
        return self._answers_of_all("weights_version", seconds=ANSWER_SECONDS)

    def probe(self, sequences: Sequence[TokenIds]) -> list[list[np.ndarray]]:
        """Per engine: teacher-forced log-probs of tokens 1..L-1 of each sequence, at temperature 1."""
        return self._answers_of_all("probe", list(sequences), seconds=self._limit)

    def sleep(self) -> None:
        """CUDA, colocated: free the GPU for training."""
        if self._takes_turns:
            self._group.call("sleep", timeout_seconds=self._limit)

    def wake_weights(self) -> None:
        """CUDA, colocated: bring weight memory back and only that, so that a sync does not peak with the KV cache; empty,
        unless syncs bring adapters alone."""
        if self._takes_turns:
            self._group.call("wake", ["weights"], timeout_seconds=self._limit)

    def wake_kv_cache(self) -> None:
        """CUDA, colocated: bring the KV cache back once the weights are in."""
        if self._takes_turns:
            self._group.call("wake", ["kv_cache"], timeout_seconds=self._limit)

    def node_ids(self) -> set[str]:
        """The nodes that the workers run on."""
        return self._group.node_ids()

    def ask(self, question: Callable[..., Any], *arguments: Any, seconds: float = ANSWER_SECONDS) -> dict[int, Any]:
        """See `WorkerGroup.ask`."""
        return self._group.ask(question, *arguments, seconds=seconds)

    def end(self) -> None:
        """Kill the engines."""
        self._group.end()
