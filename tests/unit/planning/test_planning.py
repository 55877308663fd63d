"""Plans against numbers worked out by hand: a 7 B model on 8 GPUs, and what cannot fit."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from lrm_safety.commands.plan import plan as plan_command
from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.planning import (
    GIB,
    Assumptions,
    kv_bytes_per_token,
    num_gpus,
    num_parameters,
    plan,
    refuse_what_cannot_fit,
    shape_of,
)
from lrm_safety.planning.assumptions import split
from lrm_safety.planning.memory import activation_bytes, policy_memory
from lrm_safety.planning.shapes import KNOWN
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings

SEVEN = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
N = 7_615_616_512  # the safetensors index of the published checkpoint: 15,231,233,024 bytes in bfloat16


GIVEN_LORA = ("cluster=node_8gpu_colocated", "rollout=vllm_colocated", "trainer=zero3_lora")


@cache
def settings(*overrides: str) -> Settings:
    return compose_settings(["experiment=r1_distill_qwen_7b_star1", *overrides])[0]


@pytest.mark.parametrize(
    ("path", "published"),
    [
        (SEVEN, N),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", 1_777_088_000),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 8_030_261_248),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", 70_553_706_496),
        ("Qwen/Qwen3-0.6B", 596_049_920),
        ("Qwen/Qwen3-4B", 4_022_468_096),
        ("Qwen/Qwen3-8B", 8_190_735_360),
    ],
)
def test_parameters_are_the_published_ones(path: str, published: int) -> None:
    assert num_parameters(KNOWN[path]) == published


def test_a_reward_model_has_a_score_instead_of_a_head() -> None:
    # Llama-3.1-8B less its head (128256 x 4096) plus one row of 4096.
    shape = shape_of("Skywork/Skywork-Reward-V2-Llama-3.1-8B", "reward", head=False)
    assert num_parameters(shape) == 8_030_261_248 - 128_256 * 4096 + 4096


def test_kv_cache_of_a_token() -> None:
    # key and value x 28 layers x 4 heads x 128 x 2 bytes
    assert kv_bytes_per_token(KNOWN[SEVEN]) == 57_344


def test_zero3_shards_of_7b_on_8_gpus() -> None:
    given = settings("cluster=node_8gpu_colocated", "rollout=vllm_colocated")
    parts = policy_memory(given, KNOWN[SEVEN], Assumptions()).parts
    assert parts["weights"] == 1_903_904_128  # 2 N / 8
    assert parts["gradients"] == 3_807_808_256  # 4 N / 8
    assert parts["master weights"] == 3_807_808_256
    assert parts["Adam moments"] == 7_615_616_512  # 8 N / 8
    assert parts["gathered layers"] == 2_000_000_000 and parts["reduce bucket"] == 1_000_000_000
    assert parts["log-probs"] == 3 * 4 * 1024 * 152_064
    # 28 layer inputs of 16,384 x 3,584 in bfloat16, and one layer of 10 x 3,584 + 4 x 18,944 a token
    assert parts["activations"] == 28 * 2 * 16_384 * 3_584 + 2 * 16_384 * (35_840 + 75_776)


def test_adapters_train_a_hundredth_of_7b() -> None:
    """Rank 32 on every linear layer of R1-Distill-Qwen-7B: H 3,584, keys and values 512, I 18,944, 28 layers."""
    given = settings(*GIVEN_LORA)
    trained = 28 * 32 * (2 * (3_584 + 3_584) + 2 * (3_584 + 512) + 3 * (3_584 + 18_944))
    assert trained == 80_740_352
    parts = policy_memory(given, KNOWN[SEVEN], Assumptions()).parts
    assert parts["weights"] == 2 * (N + trained) // 8
    assert parts["gradients"] == parts["master weights"] == 40_370_176  # 4 x trained / 8
    assert parts["Adam moments"] == 80_740_352
    assert parts["reduce bucket"] == 2 * trained

    few = settings(*GIVEN_LORA, "trainer.lora.target_modules=[q_proj,self_attn.v_proj]")
    assert policy_memory(few, KNOWN[SEVEN], Assumptions()).parts["Adam moments"] == 28 * 32 * (7_168 + 4_096)
    slower = plan(settings("cluster=node_8gpu_colocated", "rollout=vllm_colocated"), Assumptions())
    faster = plan(given, Assumptions())
    # forward 2, recomputation 2, backward 2 instead of 4
    assert faster.duration.seconds["update"] == pytest.approx(slower.duration.seconds["update"] * 6 / 8)


def test_activations_without_checkpointing_are_all_layers() -> None:
    shape = KNOWN[SEVEN]
    assert activation_bytes(shape, 1000, 2, checkpointing=False) == 28 * 2 * 1000 * (35_840 + 75_776)


def test_offloading_moves_the_optimiser_to_the_host() -> None:
    memory = policy_memory(settings("trainer=zero3_offload"), KNOWN[SEVEN], Assumptions())
    assert "Adam moments" not in memory.parts and "master weights" not in memory.parts
    assert memory.host_bytes == 12 * N // 4
    kept = policy_memory(settings(), KNOWN[SEVEN], Assumptions())
    assert kept.total - memory.total == 12 * N // 4 and kept.host_bytes == 0


def test_engine_holds_what_its_share_leaves() -> None:
    planned = plan(settings(), Assumptions())
    left = round(0.85 * 80 * GIB) - 2 * N - 3 * GIB
    assert planned.groups["rollout"].parts["KV cache"] == left
    assert planned.kv_tokens == left // 57_344
    halved = plan(settings("rollout.tensor_parallel_size=2", "cluster.policy.num_workers=2"), Assumptions())
    assert halved.groups["rollout"].parts["weights"] == N
    assert halved.kv_tokens == 2 * (round(0.85 * 80 * GIB) - N - 3 * GIB) // 57_344


def test_more_gpus_than_kv_heads_hold_no_more_tokens() -> None:
    # R1-Distill-Qwen-1.5B has 2 KV heads: over 4 GPUs each GPU keeps one head of every token, and every head is kept twice.
    path = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    planned = plan(
        settings(f"model.path={path}", "rollout.tensor_parallel_size=4", "rollout.kv_cache_bytes=1000000000"),
        Assumptions(),
    )
    assert planned.kv_tokens == 1_000_000_000 // (2 * 28 * 128 * 2)


def test_sharded_reference_and_none() -> None:
    whole = plan(settings(), Assumptions()).groups["reference"].parts["weights"]
    sharded = plan(settings("trainer.reference_sharding=zero3", "cluster.reference.num_workers=4"), Assumptions())
    assert whole == 2 * N and sharded.groups["reference"].parts["weights"] == 2 * N // 4
    assert "reference" not in plan(settings("algorithm.kl.placement=none"), Assumptions()).groups


def test_a_colocated_gpu_holds_the_sum_but_engine_and_optimiser_take_turns() -> None:
    planned = plan(settings("cluster=node_8gpu_colocated", "rollout=vllm_colocated"), Assumptions())
    (share,) = planned.shares
    groups = planned.groups
    assert share.num_gpus == 8 and planned.num_gpus == 8
    assert share.training_bytes == sum(groups[name].total for name in ("policy", "reference", "reward"))
    stays = sum(groups["policy"].parts[name] for name in ("weights", "gradients", "CUDA context"))
    others = sum(groups[name].total for name in ("rollout", "reference", "reward"))
    assert share.generating_bytes == stays + others


@pytest.mark.parametrize(("workers", "on_one", "gpus"), [(1, 1, 1), (3, 3, 1), (4, 4, 1), (6, 4, 2)])
def test_a_gpu_holds_no_more_workers_than_there_are(workers: int, on_one: int, gpus: int) -> None:
    planned = plan(
        settings("cluster.reward.gpus_per_worker=0.25", f"cluster.reward.num_workers={workers}"), Assumptions()
    )
    share = next(share for share in planned.shares if share.groups == ("reward",))
    assert (share.num_gpus, share.peak_bytes) == (gpus, on_one * planned.groups["reward"].total)


def test_tokens_and_hours_by_hand() -> None:
    given = Assumptions(generate_tokens_per_second=2000.0, response_tokens=2048.0)
    time = plan(settings(), given).duration
    assert (time.updates, time.iterations, time.responses_per_iteration) == (500, 250, 256)
    assert time.generated_tokens == 250 * 256 * 2048
    assert time.trained_tokens_per_update == 128 * 2148
    operations = 989e12 * 0.3
    tokens = 256 * 2148
    assert time.seconds["generate"] == pytest.approx(256 * 2048 / 4000)
    assert time.seconds["update"] == pytest.approx(8 * N * tokens / (4 * operations))
    assert time.seconds["log-probs"] == pytest.approx(2 * N * tokens / (4 * operations))
    assert time.seconds["score"] == pytest.approx(
        2 * N * tokens / operations
    )  # reference, larger than the reward model
    assert time.seconds["sync"] == pytest.approx(2 * N / (3 * GIB))
    seconds = 131.072 + (10 * N * tokens / (4 * operations)) + 2 * N / (3 * GIB)
    assert time.hours == pytest.approx(250 * seconds / 3600)


def test_scoring_counts_where_it_is_longer_than_generating() -> None:
    time = plan(settings(), Assumptions(generate_tokens_per_second=1e9)).duration
    phases = time.seconds
    assert time.iteration_seconds == pytest.approx(sum(phases.values()) - phases["generate"])


def test_prefixes_take_their_time() -> None:
    """8B of policy and reward: 2 steps add a text of half the length to each response, 8 steps seven of them."""

    def score(*overrides: str) -> float:
        return plan(settings("algorithm.kl.placement=none", *overrides), Assumptions()).duration.seconds["score"]

    segments = "reward.granularity=segment"
    assert score(segments, "reward.segment.max_steps=2") == pytest.approx(1.5 * score())
    assert score(segments, "reward.segment.max_steps=8") == pytest.approx(4.5 * score())


def test_one_update_an_iteration_needs_no_further_logprobs() -> None:
    given = settings("algorithm.mini_batch_size=256")
    assert plan(given, Assumptions()).duration.seconds["log-probs"] == 0


def test_gpus_that_are_reserved() -> None:
    groups = ("policy", "rollout", "reference", "reward")
    assert num_gpus(settings().cluster, 1, groups) == 8
    assert num_gpus(settings("cluster=multinode_4x8gpu").cluster, 2, groups) == 32
    assert num_gpus(settings("cluster=node_8gpu_colocated", "rollout=vllm_colocated").cluster, 1, groups) == 8


@pytest.mark.parametrize(
    ("overrides", "assumed", "key"),
    [
        (
            [],
            Assumptions(gpu_memory_gib=40.0),
            "cluster.policy.num_workers=4: raise it, or set trainer.offload_optimizer",
        ),
        (
            ["trainer=zero3_offload"],
            Assumptions(host_memory_gib=64.0),
            "trainer.offload_optimizer: the 4 ranks of a node",
        ),
        ([], Assumptions(gpus=4.0), "cluster: asks for 8 GPUs"),
        (["model.path=deepseek-ai/DeepSeek-R1-Distill-Llama-70B"], Assumptions(), "rollout.tensor_parallel_size=1"),
        (["rollout.gpu_memory_utilization=0.218"], Assumptions(), "rollout.gpu_memory_utilization=0.218: the KV cache"),
        (["trainer.micro_batch_tokens=400000"], Assumptions(), "trainer.micro_batch_tokens=400000: lower it"),
        (
            ["cluster=node_8gpu_colocated", "rollout=vllm_colocated", "rollout.gpu_memory_utilization=0.6"],
            Assumptions(),
            "rollout.gpu_memory_utilization=0.6: lower it",
        ),
        (
            ["reward.models.skywork.micro_batch_tokens=400000"],
            Assumptions(),
            "reward: choose a smaller reward model",
        ),
    ],
)
def test_refusals_name_the_key(overrides: list[str], assumed: Assumptions, key: str) -> None:
    given = settings(*overrides)
    with pytest.raises(ConfigError) as refused:
        refuse_what_cannot_fit(plan(given, assumed), given, machine_bytes=0)
    assert str(refused.value).startswith(key)


def test_the_shipped_split_fits_80_gib_to_the_last_byte_it_needs() -> None:
    given = settings()
    planned = plan(given, Assumptions())
    refuse_what_cannot_fit(planned, given, machine_bytes=0)
    # The largest GPU is an engine's, which takes what it is told to; the policy's is the next.
    policy = next(share for share in planned.shares if share.groups == ("policy",)).peak_bytes / GIB
    for change, fits in ((0.01, True), (-0.01, False)):
        tight = replace(planned, assumed=Assumptions(gpu_memory_gib=policy + change), shares=planned.shares[:1])
        if fits:
            refuse_what_cannot_fit(tight, given, machine_bytes=0)
        else:
            with pytest.raises(ConfigError, match=r"cluster\.policy\.num_workers"):
                refuse_what_cannot_fit(tight, given, machine_bytes=0)


def test_cpu_counts_every_worker_in_host_memory() -> None:
    given = compose_settings(["experiment=miniature"])[0]
    planned = plan(given, Assumptions())
    total = sum(group.total * group.num_workers for group in planned.groups.values())
    assert not planned.shares and planned.num_gpus == 0
    refuse_what_cannot_fit(planned, given, machine_bytes=total)
    with pytest.raises(ConfigError, match=r"cluster\..*num_workers: all groups need"):
        refuse_what_cannot_fit(planned, given, machine_bytes=total - 1)
    offloaded = compose_settings(["experiment=miniature", "trainer.offload_optimizer=true"])[0]
    refuse_what_cannot_fit(plan(offloaded, Assumptions()), offloaded, machine_bytes=total)
    with pytest.raises(ConfigError, match=r"all groups need"):
        refuse_what_cannot_fit(plan(offloaded, Assumptions()), offloaded, machine_bytes=total - 1)
    # float32: the policy's weights are 4 bytes a parameter over 2 ranks
    assert planned.groups["policy"].parts["weights"] == 4 * num_parameters(planned.policy) // 2


def test_shape_of_the_miniature_is_its_own_file() -> None:
    shape = shape_of("package:lrm_safety/miniature/assets/policy", "model.path")
    assert shape.source == "config.json" and shape.tied and shape.qk_norm
    assert 0.8e6 < num_parameters(shape) < 1.0e6  # docs/miniature.md: 0.89 M


def test_unknown_model_wants_its_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path=owner/unknown.*plan\.model_config=FILE"):
        shape_of("owner/unknown", "model.path")
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"hidden_size": 64}))
    with pytest.raises(ModelError, match="num_attention_heads"):
        shape_of("owner/unknown", "model.path", config=str(file))
    sizes = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "vocab_size": 10,
    }
    file.write_text(json.dumps(sizes))
    # 2 x (4 x 64 x 64 + 3 x 64 x 96 + 2 x 64) + 2 x 10 x 64 + 64
    assert num_parameters(shape_of("owner/unknown", "model.path", config=str(file))) == 71_232


def test_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    overrides, assumed = split(["experiment=miniature", "plan.gpus=16", "plan.model_config=c.json", "seed=1"])
    assert overrides == ["experiment=miniature", "seed=1"]
    assert assumed.gpus == 16 and assumed.model_config == "c.json" and assumed.utilisation == 0.3
    for wrong, message in (
        ("plan.speed=1", "plan.speed: unknown"),
        ("plan.gpus=x", "a number"),
        ("plan.gpus=0", "above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            split([wrong])
    assert plan_command(["experiment=r1_distill_qwen_7b_star1", "plan.generate_tokens_per_second=1500"]) == 0
    out = capsys.readouterr().out
    assert "7.616 B parameters" in out and "It fits" in out and "assumed" in out and "given" in out
    with pytest.raises(ConfigError, match="num_workers=4"):
        plan_command(["experiment=r1_distill_qwen_7b_star1", "plan.gpu_memory_gib=30"])


def test_the_page_on_planning(repository_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repository_root / "docs" / "planning.md").read_text()
    commands = [shlex.split(line)[2:] for line in page.splitlines() if line.startswith("lrm-safety plan ")]
    assert len(commands) == 4
    for command in commands:
        assert plan_command(command) == 0, command
    large = commands[-1]
    planned = plan(compose_settings(large)[0], Assumptions())
    policy = planned.groups["policy"]
    row = next(line for line in page.splitlines() if line.startswith("| optimiser on the host"))
    shown = [cell.strip() for cell in row.strip("|").split("|")]
    assert shown[1] == f"16 x {policy.total / GIB:.1f} GiB, {policy.host_bytes / GIB:.1f} GiB a rank on the host"
    assert shown[3:] == [
        f"4 x {planned.groups['reference'].total / GIB:.1f} GiB",
        f"4 x {planned.groups['reward'].total / GIB:.1f} GiB",
        f"{planned.num_gpus:g}",
        f"{planned.duration.hours:.1f}",
        f"{planned.gpu_hours:.0f}",
    ]
    without = [item for item in large if item != "trainer=zero3_offload"]
    with pytest.raises(ConfigError, match=r"cluster\.policy\.num_workers=16: raise it"):
        plan_command(without)
