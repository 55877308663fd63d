"""The defaults and variants of the algorithm contract, as literals."""

from __future__ import annotations

from lrm_safety.schedule import Schedule
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings

PARTS = ["model=miniature", "reward=miniature", "data=miniature", "cluster=node_8gpu_split"]


def composed(*overrides: str) -> Settings:
    return compose_settings([*PARTS, *overrides])[0]


def test_reinforce_pp() -> None:
    settings = composed("algorithm=reinforce_pp")
    algorithm, kl, trainer, rollout = settings.algorithm, settings.algorithm.kl, settings.trainer, settings.rollout
    assert algorithm.name == "reinforce_pp"
    assert (algorithm.samples_per_prompt, algorithm.baseline) == (1, "none")
    assert (algorithm.rollout_batch_size, algorithm.mini_batch_size) == (256, 128)
    assert (algorithm.gamma, algorithm.normalisation) == (1.0, "batch")
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.dual_clip) == (0.2, 0.2, None)
    assert algorithm.aggregation == "token_mean"
    assert (algorithm.old_logprobs, algorithm.correction, algorithm.correction_cap) == ("recompute", "tis", 2.0)
    assert (kl.placement, kl.estimator, kl.coef, kl.controller) == ("reward", "k1", 0.01, "fixed")
    assert (trainer.lr, trainer.lr_schedule) == (1e-6, "cosine")
    assert (trainer.warmup_fraction, trainer.min_lr_ratio) == (0.03, 0.1)
    assert (trainer.beta1, trainer.beta2, trainer.gradient_clip) == (0.9, 0.95, 1.0)
    assert (rollout.temperature, rollout.top_p, rollout.top_k) == (1.0, 1.0, 0)
    assert (rollout.max_prompt_tokens, rollout.max_response_tokens) == (1024, 4096)
    assert (settings.schedule.max_updates, settings.schedule.passes) == (500, None)
    assert (settings.reward.normalise, settings.reward.clip_low, settings.reward.clip_high) == ("none", None, None)
    assert settings.reward.unfinished_penalty == settings.reward.malformed_penalty == 0.0
    assert (settings.run.invariants, settings.run.invariant_tolerance) == ("strict", None)
    assert Schedule.of(settings, 1000).updates_per_iteration == 2


def test_reinforce_pp_is_the_default() -> None:
    assert composed() == composed("algorithm=reinforce_pp", "trainer=zero3", "rollout=vllm")


def test_low_beta_differs_by_beta_and_learning_rate_alone() -> None:
    settings, usual = composed("algorithm=low_beta", "trainer=zero3_low_lr"), composed()
    assert (settings.algorithm.kl.coef, settings.trainer.lr) == (1e-4, 5e-7)
    settings.algorithm.kl.coef, settings.trainer.lr, settings.algorithm.name = 0.01, 1e-6, "reinforce_pp"
    settings.run = usual.run  # named after the preset
    assert settings == usual


def test_openrlhf_makes_eight_updates_of_128() -> None:
    settings = composed("algorithm=openrlhf_0_9")
    algorithm = settings.algorithm
    assert (algorithm.rollout_batch_size, algorithm.mini_batch_size) == (1024, 128)
    assert (algorithm.aggregation, algorithm.correction) == ("micro_batch_mean", "off")
    assert Schedule.of(settings, 10_000).updates_per_iteration == 8
    assert settings.schedule.max_updates == 63 * 8
    assert (algorithm.kl.placement, algorithm.kl.estimator, algorithm.kl.coef) == ("reward", "k1", 0.01)


def test_variants_with_a_baseline() -> None:
    found = {}
    for name in ("reinforce_pp_baseline", "rloo", "grpo"):
        algorithm = composed(f"algorithm={name}").algorithm
        assert algorithm.name == name
        assert (algorithm.rollout_batch_size, algorithm.samples_per_prompt, algorithm.mini_batch_size) == (64, 4, 128)
        found[name] = (algorithm.baseline, algorithm.normalisation, algorithm.aggregation)
        found[f"{name} KL"] = (algorithm.kl.placement, algorithm.kl.estimator, algorithm.kl.coef)
    assert found == {
        "reinforce_pp_baseline": ("group_mean", "batch", "token_mean"),
        "reinforce_pp_baseline KL": ("loss", "k2", 0.01),
        "rloo": ("leave_one_out", "none", "token_mean"),
        "rloo KL": ("reward", "k1", 0.01),
        "grpo": ("group_zscore", "none", "sequence_mean"),
        "grpo KL": ("loss", "k3", 0.04),
    }
