"""Weights from one node to another through Ray's store: two raylets, trainer ranks on one, two engines on the other."""

from __future__ import annotations

import gc
import hashlib
import itertools
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray._private.internal_api import node_stats
from ray.cluster_utils import Cluster
from started_groups import Started
from transformers import AutoModelForCausalLM

from lrm_safety.errors import ClusterError, WorkerError
from lrm_safety.preparation import PreparedRun, prepare
from lrm_safety.scoring import training_sequence
from lrm_safety.settings.compose import compose_settings
from lrm_safety.weight_sync.source import ZeroThreeSource
from lrm_safety.workers.groups import Groups, join_ray
from lrm_safety.workers.placement import nodes_of

pytestmark = pytest.mark.timeout(600)

BUCKET_BYTES = 400_000
"""Several buckets for the miniature."""
SMALLEST_OBJECT = 100 * 1024
"""Bytes up to which Ray sends a result along with the answer; the last bucket, a norm, is as small."""
OVERRIDES = [
    "experiment=miniature",
    f"rollout.bucket_bytes={BUCKET_BYTES}",
    "rollout.stream_chunk_size=8",
    "algorithm.kl.placement=none",
    # The trainer's ranks fit on the first node alone, the engines then on the second alone.
    "cluster.strategy=STRICT_PACK",
    "cluster.policy.cpus_per_worker=1.2",
    "cluster.rollout.num_workers=2",
    "cluster.rollout.cpus_per_worker=0.8",
    "cluster.rollout.threads_per_worker=1",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PreparedRun]:
    """Prepared for a cluster of two nodes, which runs."""
    with pytest.MonkeyPatch.context() as environment:
        # For good, as a run does it: Ray reads it once in a process, and tests before and after this one are in the same.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        environment.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 3, "include_dashboard": False})
        try:
            cluster.add_node(num_cpus=2)
            settings, _ = compose_settings([*OVERRIDES, f"cluster.address={cluster.address}"])
            yield prepare(settings, Path(tmp_path_factory.mktemp("run")))
        finally:
            cluster.shutdown()


@pytest.fixture(scope="module")
def apart(run: PreparedRun) -> Iterator[Started]:
    join_ray(run.settings.cluster)
    with Groups(run.settings) as groups:
        groups.start()
        groups.publish_weights()
        yield Started(run, groups)


def stores(groups: Groups) -> list[Any]:
    """What the object stores of the trainer's node and of the engines' node say of themselves."""
    addresses = {node["NodeID"]: (node["NodeManagerAddress"], node["NodeManagerPort"]) for node in ray.nodes()}
    (trainer,), (engines,) = (nodes_of(groups._placements[group]) for group in ("policy", "rollout"))
    assert trainer != engines
    return [node_stats(*addresses[node], include_memory_info=False).store_stats for node in (trainer, engines)]


def assert_nothing_is_kept(groups: Groups) -> None:
    """Ray frees in the background; what failed is held by its traceback until Python collects that."""
    deadline = time.monotonic() + 20
    while any(store.num_local_objects for store in stores(groups)):
        gc.collect()
        assert time.monotonic() < deadline, stores(groups)
        time.sleep(0.1)


def digest_of_weights(worker: Any) -> str:
    """Of everything that an engine's model holds, kernels' packed copies included; runs in the engine's process."""
    model = worker._llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
    digest = hashlib.sha256()
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        plain = tensor.to_dense() if tensor.is_mkldnn else tensor
        digest.update(name.encode() + plain.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def digests(groups: Groups) -> list[str]:
    return ray.get([worker.__ray_call__.remote(digest_of_weights) for worker in groups.rollout._group.workers])


def publish_by(groups: Groups, backend: str) -> None:
    """One sync by this backend; files work too, since the two nodes are one machine."""

    def use(worker: Any, backend: str) -> None:
        rollout = replace(worker.spec.engines.rollout, weight_transfer=backend)
        worker.spec = replace(worker.spec, engines=replace(worker.spec.engines, rollout=rollout))

    ray.get([worker.__ray_call__.remote(use, backend) for worker in groups.policy._group.workers])
    groups.policy.publish_weights(groups.rollout)


def learn(started: Started) -> None:
    """One update of the policy, so that there is something new to publish."""
    groups = started.groups
    sampled = [one for chunk in groups.rollout.generate(started.requests(8), started.run.sampling) for one in chunk]
    sequences = [
        replace(training_sequence(one), advantages=np.ones(len(one.response_ids), dtype=np.float32)) for one in sampled
    ]
    assert groups.policy.update([sequences], [1e-3], 0.0)[0].gradient_norm > 0


def assert_probe_passes(started: Started) -> None:
    probe = started.run.rendered[:4]
    trainer = started.groups.policy.probe_scores(probe)
    for engine in started.groups.rollout.probe(probe):
        for one, other in zip(engine, trainer, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4, rtol=0)


def test_files_over_several_nodes_are_refused_before_a_model_is_loaded(run: PreparedRun) -> None:
    settings = replace(
        run.settings,
        rollout=replace(run.settings.rollout, weight_transfer="shm"),
        model=replace(run.settings.model, path="/absent"),
    )
    join_ray(settings.cluster)
    with pytest.raises(ClusterError, match=r"^rollout.weight_transfer=shm: .* 2 nodes.*; use auto or object_store$"):
        Groups(settings).start()
    assert not ray.is_initialized()


def test_each_bucket_is_put_once_read_once_by_two_engines_and_freed(apart: Started) -> None:
    groups = apart.groups
    assert groups.rollout.backend == "object_store", "auto, several nodes"
    model = AutoModelForCausalLM.from_pretrained(apart.run.settings.model.path)
    sizes = [sum(t.nbytes for _, t in bucket) for bucket in ZeroThreeSource(model, BUCKET_BYTES, 0).buckets()]
    stored = sum(size > SMALLEST_OBJECT for size in sizes)
    assert stored > 2
    assert_nothing_is_kept(groups)
    before = stores(groups)
    version = groups.publish_weights()
    assert groups.rollout.weights_versions() == [version, version]
    after = stores(groups)
    for one, other in zip(before, after, strict=True):
        assert other.cumulative_created_objects - one.cumulative_created_objects == stored
    assert_nothing_is_kept(groups)


def test_the_engines_hold_what_files_would_bring_bit_for_bit(apart: Started) -> None:
    groups = apart.groups
    before = digests(groups)
    learn(apart)
    publish_by(groups, "object_store")
    by_object_store = digests(groups)
    assert_probe_passes(apart)
    learn(apart)
    publish_by(groups, "object_store")
    later = digests(groups)
    publish_by(groups, "shm")
    by_file = digests(groups)
    assert len({*before, *by_object_store, *by_file}) == 3
    assert later == by_file
    publish_by(groups, "object_store")


def test_a_replaced_engine_takes_the_present_weights_by_the_same_path(apart: Started) -> None:
    groups = apart.groups
    learn(apart)
    groups.publish_weights()
    before = digests(groups)
    ray.kill(groups.rollout._group.workers[1])
    created = stores(groups)[1].cumulative_created_objects
    answered = [one for chunk in groups.rollout.generate(apart.requests(16), apart.run.sampling) for one in chunk]
    assert sorted(one.request_id for one in answered) == list(range(16))
    assert {one.weights_version for one in answered} == {groups.policy.weights_version}
    assert stores(groups)[1].cumulative_created_objects > created
    assert digests(groups) == before
    assert_nothing_is_kept(groups)


def fatal(groups: Groups, group: str, index: int, after: int) -> Any:
    """A publication in which a worker is killed once `after` buckets are there."""

    @contextmanager
    def publish() -> Iterator[Iterator[Any]]:
        with groups.policy._publish(False) as buckets:

            def until_death() -> Iterator[Any]:
                yield from itertools.islice(buckets, after)
                workers = getattr(groups, group)._group
                ray.kill(workers.workers[index])
                while workers.is_alive(index, timeout_seconds=1.0):  # Ray kills in the background
                    time.sleep(0.1)
                yield from buckets

            yield until_death()

    return publish


def test_nothing_is_kept_of_a_sync_in_which_an_engine_died(apart: Started) -> None:
    groups = apart.groups
    with pytest.raises(WorkerError, match=r"rollout worker 0( on node .+)? died during `load_bucket`"):
        groups.rollout.load_weights(99, fatal(groups, "rollout", 0, after=1))
    assert_nothing_is_kept(groups)
    # The engine that lives is in the middle of an update; a run ends here. Both are replaced at the next sync.
    ray.kill(groups.rollout._group.workers[1])
    version = groups.publish_weights()
    assert groups.rollout.weights_versions() == [version, version]
    assert_probe_passes(apart)


def test_a_trainer_rank_that_dies_is_named_and_not_the_engine_that_waits_for_it(apart: Started) -> None:
    """Before the first bucket: a rank gives its share of the last ones ahead of those that wait for them."""
    with pytest.raises(WorkerError, match=r"policy worker 1( on node .+)? died during `publish`"):
        apart.groups.rollout.load_weights(100, fatal(apart.groups, "policy", 1, after=0))
