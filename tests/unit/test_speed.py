"""Tokens a second and a GPU, MFU and shares of the time at work, worked out by hand for a model of known operations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lrm_safety.modeling import shapes
from lrm_safety.modeling.shapes import ModelShape
from lrm_safety.progress import Progress
from lrm_safety.settings import ClusterSettings, GroupSettings, Settings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.settings.system import devices, num_gpus
from lrm_safety.speed import Speed

# One layer: projections of 3 x 8 x 8 (one head of keys for two of queries) and 3 x 8 x 5, a head of 8 x 11.
SHAPE = ModelShape("hand", 1, 8, 5, 2, 1, 4, 11)
BODY, HEAD, PAIR = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 5, 88, 4 * 2 * 4
# Two responses of 3 and 5 tokens to a prompt of 2.
PROMPTS, RESPONSES = [2, 2], [3, 5]
SECONDS = {
    "time/generate_seconds": 4.0,
    "time/logprobs_seconds": 1.0,
    "time/update_seconds": 2.0,
    "time/evaluate_seconds": 10.0,
    "time/startup_seconds": 20.0,
    "time/profile_seconds": 5.0,
    "time/iteration_seconds": 45.0,
}
WORK = {"policy": [4.0, 6.0], "rollout": [10.0], "reward": [1.0]}


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setitem(shapes.KNOWN, "hand/made", SHAPE)
    given = compose_settings(["experiment=miniature", "algorithm.max_staleness=1"])[0]
    return replace(given, model=replace(given.model, path="hand/made"))


def layout(device: Any = "cuda", **groups: GroupSettings) -> ClusterSettings:
    usual = {name: GroupSettings(1, gpus_per_worker=1.0) for name in ("policy", "rollout", "reference", "reward")}
    return ClusterSettings(device=device, **usual | groups)


CARDS = {"policy": "NVIDIA A100-SXM4-80GB", "rollout": "NVIDIA L4", "reward": None}


def measured(settings: Settings, cluster: ClusterSettings, cards: Any = CARDS, **changes: Any) -> dict[str, float]:
    speed = Speed(settings, cluster, cards)
    return speed.metrics(PROMPTS, RESPONSES, SECONDS, WORK, [7, 7], **changes)


def test_tokens_a_second_and_a_gpu(settings: Settings) -> None:
    """8 tokens; two trainer ranks, an engine, a reward worker: 4 GPUs, and 10 s without start, evaluation and profile."""
    found = measured(settings, layout(policy=GroupSettings(2, gpus_per_worker=1.0)))
    assert found["speed/generate_tokens_per_second"] == found["speed/generate_tokens_per_second_per_gpu"] == 2
    assert (found["speed/logprobs_tokens_per_second"], found["speed/logprobs_tokens_per_second_per_gpu"]) == (8, 4)
    assert (found["speed/update_tokens_per_second"], found["speed/update_tokens_per_second_per_gpu"]) == (4, 2)
    assert (found["speed/tokens_per_second"], found["speed/tokens_per_second_per_gpu"]) == (0.8, 0.2)


def test_what_is_computed_while_others_sample_has_no_speed(settings: Settings) -> None:
    """The trainer scores chunks as they come, where it has GPUs of its own and no batch to learn from meanwhile."""
    in_turn = replace(settings, algorithm=replace(settings.algorithm, max_staleness=0))
    assert not [name for name in measured(in_turn, layout()) if "logprobs" in name]
    shared = replace(in_turn, cluster=replace(in_turn.cluster, colocate=[["policy", "reference"]]))
    assert measured(shared, layout())["speed/logprobs_tokens_per_second"] == 8


def test_operations_over_what_the_cards_could_do(settings: Settings) -> None:
    """An A100 does 312e12 a second, an L4 121e12. The second sample takes the prompt from the cache."""
    found = measured(settings, layout(policy=GroupSettings(2, gpus_per_worker=1.0)))
    forward = 2 * (12 * BODY + 8 * HEAD) + (15 + 28) * PAIR
    assert found["speed/mfu_logprobs"] == pytest.approx(forward / (1.0 * 2 * 312e12))
    assert found["speed/mfu_update"] == pytest.approx(3 * forward / (2.0 * 2 * 312e12))
    # 2 + 2 tokens of the first (10 pairs), the prompt's last and 4 of the second (2 + 3 + 4 + 5 + 6 pairs).
    sampled = 2 * (9 * BODY + 8 * HEAD) + (10 + 20) * PAIR
    assert found["speed/mfu_generate"] == pytest.approx(sampled / (4.0 * 121e12))

    apart = replace(settings, rollout=replace(settings.rollout, enable_prefix_caching=False))
    read_twice = sampled + 2 * BODY + PAIR
    assert measured(apart, layout())["speed/mfu_generate"] == pytest.approx(read_twice / (4.0 * 121e12))


def test_what_is_not_known_is_absent(settings: Settings) -> None:
    on_cpu = layout("cpu", policy=GroupSettings(2), rollout=GroupSettings(), reward=GroupSettings())
    found = measured(settings, on_cpu, dict.fromkeys(CARDS))
    assert found["speed/update_tokens_per_second"] == 4 and found["speed/busy_policy"] == 0.25
    assert not [name for name in found if "mfu" in name or "gpu" in name]
    unknown = replace(settings, model=replace(settings.model, path="nobody/knows"))
    assert not [name for name in measured(unknown, layout()) if "mfu" in name]
    assert not [name for name in measured(settings, layout(), {**CARDS, "rollout": "NVIDIA new"}) if "mfu_g" in name]
    without = {name: value for name, value in SECONDS.items() if "logprobs" not in name}
    found = Speed(settings, layout(), CARDS).metrics(PROMPTS, RESPONSES, without, WORK)
    assert not [name for name in found if "logprobs" in name]


def test_a_given_peak_counts_for_every_worker(settings: Settings) -> None:
    """2 workers of 0.5e12 operations a second; a given figure also outdoes the card's."""
    on_cpu = layout("cpu", policy=GroupSettings(2), rollout=GroupSettings(), reward=GroupSettings())
    forward = 2 * (12 * BODY + 8 * HEAD) + (15 + 28) * PAIR
    found = measured(settings, replace(on_cpu, peak_tflops=0.5), dict.fromkeys(CARDS))
    assert found["speed/mfu_update"] == pytest.approx(3 * forward / (2.0 * 2 * 0.5e12))
    assert measured(settings, replace(layout(), peak_tflops=0.5))["speed/mfu_update"] == pytest.approx(
        3 * forward / (2.0 * 0.5e12)
    )


def test_shares_of_the_time_at_work(settings: Settings) -> None:
    """Of the 20 s without start and profile: ranks 4 and 6, the engine 10, the reward worker 1."""
    found = measured(settings, layout(policy=GroupSettings(2, gpus_per_worker=1.0)))
    shares = {name: value for name, value in found.items() if "busy" in name}
    assert shares == pytest.approx(
        {
            "speed/busy_policy": 0.25,
            "speed/busy_rollout": 0.5,
            "speed/busy_reward": 0.05,
            "speed/busy_gpus": (2 * 0.25 + 0.5 + 0.05) / 4,
        }
    )
    # A reward worker without a GPU leaves none idle; what shares a GPU cannot be told apart.
    beside = measured(settings, layout(reward=GroupSettings()))
    assert beside["speed/busy_gpus"] == pytest.approx((0.25 + 0.5) / 2)
    shared = {name: GroupSettings(1, gpus_per_worker=0.5) for name in ("policy", "rollout")}
    together = ClusterSettings(device="cuda", colocate=[["policy", "rollout"]], **shared)
    assert "speed/busy_gpus" not in measured(settings, together)


def test_gpus_of_a_group_and_of_a_run() -> None:
    parts = layout(reward=GroupSettings(6, gpus_per_worker=0.25), rollout=GroupSettings(2, gpus_per_worker=1.0))
    assert devices(parts, 4, "rollout") == 8 and devices(parts, 4, "reward") == 2
    assert num_gpus(parts, 4, ["policy", "rollout", "reward"]) == 1 + 8 + 1.5
    colocated = layout(**{name: GroupSettings(8, gpus_per_worker=0.5) for name in ("policy", "rollout")})
    colocated = replace(colocated, colocate=[["policy", "rollout"]])
    assert devices(colocated, 1, "policy") == devices(colocated, 1, "rollout") == 8
    assert num_gpus(colocated, 1, ["policy", "rollout"]) == 8


def test_work_is_what_lies_inside_calls() -> None:
    now = 100.0
    counter = Progress(lambda: now)
    with counter.call("update"):
        now += 3
        with counter.call("memory"), counter.piece("tokens"):  # inside a call nothing is counted twice
            now += 2
    now += 50
    with pytest.raises(ValueError), counter.call("update"):
        now += 4
        raise ValueError
    with counter.call("generate"):
        now += 1
    with counter.call("generate", done=1):  # after a yield the same call goes on
        now += 1
    assert counter.take_work() == 11 and counter.take_work() == 0
