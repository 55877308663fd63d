"""Seconds of one weight sync from one trainer rank to one engine, on one node and between two."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from statistics import median
from typing import Any

import numpy as np
import ray
from ray.cluster_utils import Cluster

from lrm_safety.settings import LoraSettings, Settings
from lrm_safety.weight_sync.source import ZeroThreeSource

from .figures import Context, Measurement, NotMeasured
from .system import System
from .timing import interleave, speed_ratio, stopwatch

SYNCS = 5
LORA = LoraSettings(rank=32, alpha=64.0)
"""Those of conf/trainer/zero3_lora.yaml."""
STORE_BYTES = 3 * 2**30
"""Of each node's object store: the largest buckets have room, so that Ray never takes the disk."""


def measure(model: str) -> Callable[[Context], Measurement]:
    """The measurement for `miniature` or `smollm2`."""

    def seconds_of(context: Context) -> Measurement:
        system = context.systems.get(model)
        policy, rollout = system.policy, system.rollout
        side = stopwatch(lambda: policy.publish_weights(rollout))
        seconds = interleave({"sync": side}, warm_up=1, rounds=SYNCS)["sync"]
        if rollout.weights_versions() != [policy.weights_version]:
            raise NotMeasured("the engine does not hold the version that was published")
        return Measurement(median(seconds), {"seconds": seconds, "backend": rollout.backend})

    return seconds_of


def measure_adapters(model: str) -> Callable[[Context], Measurement]:
    """Seconds of a sync that merges adapters and sends every weight / of one that sends the adapters alone, from one trainer to
    two engines in turns."""

    def ratio_of(context: Context) -> Measurement:
        context.systems.end()
        settings = context.systems.settings(model)
        cluster = replace(settings.cluster, local_num_cpus=8)  # of which a third actor gets its part
        system = System(replace(settings, trainer=replace(settings.trainer, lora=LORA), cluster=cluster))
        try:
            policy = system.policy
            engines = {"merged": system.another_rollout(lora=None), "adapters": system.rollout}
            if not system.rollout.takes_adapters:
                raise NotMeasured("vLLM cannot apply these adapters")
            sender = policy._group.workers[0]
            sizes = ray.get([sender.__ray_call__.remote(_num_bytes, adapters=name == "adapters") for name in engines])
            sides = {name: stopwatch(partial(policy.publish_weights, engine)) for name, engine in engines.items()}
            seconds = interleave(sides, warm_up=1, rounds=SYNCS)
            if system.rollout.weights_versions() != [policy.weights_version]:
                raise NotMeasured("the engine does not hold the version that was published")
            details = {"seconds": seconds, "bytes": dict(zip(engines, sizes, strict=True)), "rank": LORA.rank}
            return Measurement(speed_ratio(seconds["adapters"], seconds["merged"]), details)
        finally:
            system.end()

    return ratio_of


def _num_bytes(worker: Any, adapters: bool) -> int:
    """Runs in the trainer."""
    return ZeroThreeSource(worker.model, worker.spec.engines.rollout.bucket_bytes, 0, adapters=adapters).num_bytes


def object_store_seconds(context: Context) -> Measurement:
    """Between two raylets of this machine, SmolLM2-135M."""
    measured = _between_two_nodes(context)
    return Measurement(median(measured["seconds"]["sync"]), measured)


def object_store_ratio(context: Context) -> Measurement:
    """Bytes / seconds of a sync, over bytes / seconds of one plain put and get of as much, neighbours in time."""
    measured = _between_two_nodes(context)
    return Measurement(speed_ratio(measured["seconds"]["sync"], measured["seconds"]["put and get"]), measured)


@cache
def _between_two_nodes(context: Context) -> dict[str, Any]:
    """Seconds of every round of both sides, and the bytes that each moves."""
    context.systems.end()
    with _two_nodes(context.systems.settings("smollm2")) as settings:
        system = System(settings)
        try:
            policy, rollout = system.policy, system.rollout
            sender, receiver = policy._group.workers[0], rollout._group.workers[0]
            sizes = ray.get(sender.__ray_call__.remote(_prepare))

            def put_and_get() -> None:
                references = ray.get(sender.__ray_call__.remote(_put))
                ray.get(receiver.__ray_call__.remote(_get, references))

            sides = {"sync": lambda: policy.publish_weights(rollout), "put and get": put_and_get}
            seconds = interleave({name: stopwatch(side) for name, side in sides.items()}, warm_up=1, rounds=SYNCS)
            if rollout.weights_versions() != [policy.weights_version]:
                raise NotMeasured("the engine does not hold the version that was published")
            return {"seconds": seconds, "bytes": sum(sizes), "buckets": len(sizes)}
        finally:
            system.end()


@contextmanager
def _two_nodes(settings: Settings) -> Iterator[Settings]:
    """The settings for a cluster of two raylets, of which the trainer fills one and the engine then takes the other."""
    # Ray reads a token once in a process: another one later would not be believed.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    node = {"object_store_memory": STORE_BYTES}
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False, **node})
    try:
        nodes.add_node(num_cpus=1, **node)
        cluster = replace(
            settings.cluster,
            address=nodes.address,
            policy=replace(settings.cluster.policy, cpus_per_worker=2),
            rollout=replace(settings.cluster.rollout, cpus_per_worker=1),
        )
        rollout = replace(settings.rollout, weight_transfer="object_store")
        yield replace(settings, cluster=cluster, rollout=rollout)
    finally:
        nodes.shutdown()


def _prepare(worker: Any) -> list[int]:
    """Runs in the trainer: as many bytes as its buckets have, in pieces of their sizes; returns those."""
    source = ZeroThreeSource(worker.model, worker.spec.engines.rollout.bucket_bytes, worker.rank)
    sizes = [sum(tensor.nbytes for _, tensor in bucket) for bucket in source.buckets()]
    worker.pieces = [np.ones(size, dtype=np.uint8) for size in sizes]
    return sizes


def _put(worker: Any) -> list[ray.ObjectRef]:
    return [ray.put(piece) for piece in worker.pieces]


def _get(worker: Any, references: list[ray.ObjectRef]) -> None:
    ray.get(references)
