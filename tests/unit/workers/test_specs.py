"""What the workers of each command are told."""

from __future__ import annotations

import os

from lrm_safety.evaluation.engine import engine_spec
from lrm_safety.settings import ModelSettings, RolloutSettings
from lrm_safety.settings.compose import compose_settings, compose_sft
from lrm_safety.workers.specs import EngineSpec, PolicySpec, ReferenceSpec, RewardSpec

MODEL = ModelSettings(name="m", path="p", family="plain")


def test_an_rl_run_samples_scores_and_learns_at_one_temperature() -> None:
    settings, _ = compose_settings(["experiment=miniature", "rollout.temperature=0.7", "seed=5"])
    policy, reference = PolicySpec.of(settings), ReferenceSpec.of(settings)
    assert policy.engines == EngineSpec.of(settings)
    assert policy.temperature == reference.temperature == policy.engines.rollout.temperature == 0.7
    assert policy.algorithm is settings.algorithm and policy.seed == reference.seed == policy.engines.seed == 5
    assert RewardSpec.of(settings) == RewardSpec(settings.reward, settings.cluster)


def test_a_supervised_run_has_a_likelihood_of_its_own_temperature_and_nobody_to_publish_to() -> None:
    settings, _ = compose_sft(["model=miniature", "seed=5"])
    policy = PolicySpec.of(settings)
    assert (policy.algorithm, policy.engines, policy.temperature, policy.seed) == (None, None, 1.0, 5)
    assert policy.model is settings.model and policy.trainer is settings.trainer and policy.cluster is settings.cluster


def evaluated(device: str, num_engines: int, **rollout: int) -> EngineSpec:
    return engine_spec(
        MODEL,
        RolloutSettings(**rollout),
        device=device,
        seed=3,
        max_prompt_tokens=11,
        max_response_tokens=7,
        num_engines=num_engines,
    )


def test_engines_of_an_evaluation_share_the_machine() -> None:
    cores = len(os.sched_getaffinity(0))
    spec = evaluated("cpu", 2, max_num_seqs=500)
    assert (spec.model, spec.seed) == (MODEL, 3)
    rollout, group = spec.rollout, spec.cluster.rollout
    assert (rollout.max_prompt_tokens, rollout.max_response_tokens) == (11, 7)
    assert rollout.enforce_eager and rollout.kv_cache_bytes == 2**30 and rollout.max_num_seqs == 64
    assert (group.num_workers, group.gpus_per_worker, group.threads_per_worker) == (2, 0.0, max(1, cores // 2))
    assert spec.cluster.local_num_cpus == max(cores, 2)
    assert evaluated("cpu", 1, kv_cache_bytes=5).rollout.kv_cache_bytes == 5


def test_engines_of_an_evaluation_on_gpus_take_one_each() -> None:
    spec = evaluated("cuda", 4, max_num_seqs=500)
    assert (spec.cluster.rollout.num_workers, spec.cluster.rollout.gpus_per_worker) == (4, 1.0)
    assert not spec.rollout.enforce_eager and spec.rollout.kv_cache_bytes is None and spec.rollout.max_num_seqs == 500
