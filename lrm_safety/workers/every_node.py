"""Actors on several nodes that call functions there: for questions about nodes, before or without a run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Self

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..errors import first_line

NO_ANSWER = "no answer came within"
"""How the reason of a node begins that said nothing in time."""
_MISSING_MODULE = re.compile(r"No module named '([\w.]+)'")


class _Caller:
    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(*arguments)


class EveryNode:
    """One small actor on each of `node_ids`, as a context manager. They reserve nothing, so that they start where every CPU is
    taken.

    `on_wait` is called about once a second while answers are waited for; it may raise to stop waiting.
    """

    def __init__(self, node_ids: Iterable[str], on_wait: Callable[[], None] = lambda: None) -> None:
        self._on_wait = on_wait
        self._actors: dict[str, Any] = {}
        for node in node_ids:
            actor: Any = ray.remote(_Caller).options(
                num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)
            )
            self._actors[node] = actor.remote()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for actor in self._actors.values():
            ray.kill(actor)

    def __iter__(self) -> Iterator[str]:
        return iter(self._actors)

    def ask(
        self, function: Callable[..., Any], arguments: Mapping[str, tuple[Any, ...]], seconds: float
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """What `function` returns on each node of `arguments`, by node id, and why a node gave no answer.

        The function is found by its name, so that the nodes need the module that holds it.
        """
        asked = {self._actors[node].call.remote(function, *given): node for node, given in arguments.items()}
        answers: dict[str, Any] = {}
        failures: dict[str, str] = {}
        deadline, waiting = time.monotonic() + seconds, list(asked)
        while waiting:
            left = deadline - time.monotonic()
            if left <= 0:
                failures |= {asked[reference]: f"{NO_ANSWER} {seconds:g} s" for reference in waiting}
                break
            ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=min(1.0, left))
            for reference in ready:
                try:
                    answers[asked[reference]] = ray.get(reference)
                except RayError as error:
                    failures[asked[reference]] = _reason(error)
            self._on_wait()
        return answers, failures


def node_names() -> dict[str, str]:
    """Living nodes by Ray's id: the name of the machine; where several have it with the address or, if need be, part of the id."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    hosts, places = ([str(node[key]) for node in nodes] for key in ("NodeManagerHostname", "NodeManagerAddress"))
    names = {}
    for node, host, place in zip(nodes, hosts, places, strict=True):
        known = "" if hosts.count(host) == 1 else f" ({place if places.count(place) == 1 else node['NodeID'][:6]})"
        names[node["NodeID"]] = f"{host}{known}"
    return names


def this_node_id(worker: Any = None) -> str:
    """The node this runs on: the controller's, or through `__ray_call__` a worker's."""
    return str(ray.get_runtime_context().get_node_id())


def _reason(error: RayError) -> str:
    """Why a call failed, in a few words."""
    if missing := _MISSING_MODULE.search(str(error)):
        return f"there is no Python module {missing[1]}"
    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {first_line(error.cause)}"
    if isinstance(error, RayActorError):
        return f"its process died ({first_line(error)})"
    return first_line(error)
