"""A run's groups with LoRA: adapters alone beside merged weights, an engine that dies, and a model that vLLM has no LoRA for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import ray

from lrm_safety.errors import ConfigError
from lrm_safety.preparation import PreparedRun, prepare
from lrm_safety.rollouts import GenerationRequest
from lrm_safety.scoring import training_sequence
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import join_ray
from lrm_safety.workers.placement import release, reserve
from lrm_safety.workers.policy_group import PolicyGroup
from lrm_safety.workers.rollout_group import RolloutGroup
from lrm_safety.workers.specs import EngineSpec, PolicySpec

TOLERANCE = 1e-4

pytestmark = pytest.mark.timeout(900)


@contextmanager
def groups_of(run: PreparedRun, *, merged_too: bool = False) -> Iterator[tuple[PolicyGroup, list[RolloutGroup]]]:
    """The policy and one rollout group, or two: the second is given merged weights."""
    settings = run.settings
    join_ray(settings.cluster)
    names = ["policy", "rollout"]
    placements = [reserve(names, settings.cluster)]
    policy = PolicyGroup(PolicySpec.of(settings), placements[0]["policy"], lambda: None)
    rollouts = [RolloutGroup(EngineSpec.of(settings), placements[0]["rollout"], lambda: None)]
    if merged_too:
        placements.append(reserve(["rollout"], settings.cluster))
        spec = replace(EngineSpec.of(settings), lora=None)
        rollouts.append(RolloutGroup(spec, placements[1]["rollout"], lambda: None))
    try:
        policy.start()
        for group in rollouts:
            group.start()
        yield policy, rollouts
    finally:
        for group in (policy, *rollouts):
            group.end()
        release(list({id(p.placement_group): p.placement_group for one in placements for p in one.values()}.values()))
        ray.shutdown()


def run_of(folder: Path, *overrides: str) -> PreparedRun:
    given = ["experiment=miniature", "trainer=zero3_lora", "trainer.lr=5e-3", "cluster.local_num_cpus=8", *overrides]
    return prepare(compose_settings(given)[0], folder)


def kill_the_engine() -> None:
    """SIGKILL to every process of a rollout worker."""
    engines = [
        child
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and (child.cmdline() or [""])[0].startswith("ray::RolloutWorker")
    ]
    assert engines
    for engine in engines:
        engine.kill()


def test_both_ways_agree_and_a_replaced_engine_is_given_the_present_adapters(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    with groups_of(run, merged_too=True) as (policy, (alone, merged)):
        assert alone.takes_adapters and not merged.takes_adapters
        requests = [GenerationRequest(i, i, run.rendered[i], i) for i in range(32)]
        for group in (alone, merged):
            policy.publish_weights(group)
        batch = sorted(
            (one for chunk in alone.generate(requests, run.sampling) for one in chunk), key=lambda one: one.request_id
        )
        assert {one.weights_version for one in batch} == {1}
        sequences = [
            replace(training_sequence(one), advantages=np.ones(len(one.response_ids), dtype=np.float32))
            for one in batch
        ]
        probes = [np.concatenate([one.prompt_ids, one.response_ids]) for one in batch[:8]]
        before = policy.probe_scores(probes)
        policy.update([sequences], [5e-3])
        after = policy.probe_scores(probes)
        moved = max(float(np.abs(one - two).max()) for one, two in zip(before, after, strict=True))
        assert moved > 100 * TOLERANCE

        for group in (alone, merged):
            version = policy.publish_weights(group)
            assert group.weights_versions() == [version]
            ((*engine,),) = group.probe(probes)
            for one, two in zip(engine, after, strict=True):
                np.testing.assert_allclose(one, two, atol=TOLERANCE, rtol=0)

        version = policy.publish_weights(alone)
        merged.end()
        kill_the_engine()
        rollouts = [one for chunk in alone.generate(requests, run.sampling) for one in chunk]
        assert sorted(one.request_id for one in rollouts) == list(range(32))
        assert {one.weights_version for one in rollouts} == {version}
        for one, two in zip(alone.probe(probes)[0], after, strict=True):
            np.testing.assert_allclose(one, two, atol=TOLERANCE, rtol=0)


def test_where_vllm_cannot_apply_them_the_adapters_are_merged_or_it_is_an_error(tmp_path: Path) -> None:
    """Of rank 600 vLLM applies none."""
    wide = ["trainer.lora.rank=600", "trainer.lora.target_modules=[q_proj]"]
    run = run_of(tmp_path / "auto", *wide)
    with groups_of(run) as (policy, (rollout,)):
        assert not rollout.takes_adapters
        lines = [line for line in rollout.describe() if line.startswith("every weight sync merges the adapters")]
        assert lines == [
            "every weight sync merges the adapters: trainer.lora.rank=600 is above 512, the largest that vLLM applies"
        ]
        assert rollout.weights_versions() == [0]
        assert policy.publish_weights(rollout) == 1 and rollout.weights_versions() == [1]
    demanded = run_of(tmp_path / "demanded", *wide, "trainer.lora.sync=adapters")
    message = r"^trainer\.lora\.sync=adapters: .*rank=600 is above 512.*; use auto or merged$"
    with pytest.raises(ConfigError, match=message), groups_of(demanded):
        pass
