"""Plans against numbers worked out by hand: a 7 B model on 8 GPUs, and what cannot fit."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from tiny_models import tiny_granite

from lrm_safety.commands.plan import plan as plan_command
from lrm_safety.errors import ConfigError, ModelError
from lrm_safety.lab.planning.assumptions import Assumptions, split
from lrm_safety.lab.planning.memory import GIB, activation_bytes, pinned_bytes, policy_memory, rollout_memory
from lrm_safety.lab.planning.plan import gpu_memory_gib, make_plan, outlook, refuse_what_cannot_fit
from lrm_safety.modeling.shapes import KNOWN, kv_bytes_per_token, num_parameters, shape_of
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.settings.system import num_gpus

CONF = Path(__file__).parents[4] / "conf"
SEVEN = "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
N = 7_615_616_512  # the safetensors index of the published checkpoint: 15,231,233,024 bytes in bfloat16


BODY = 28 * (3584 * (3584 + 2 * 512) + 3584 * 3584 + 3 * 3584 * 18_944)  # its projections
HEAD = 152_064 * 3584
PAIRS = 2148 * 2149 // 2  # of a query and a key, in a sequence of 100 + 2,048 tokens
ATTENTION = 4 * 28 * 128 * 28 * PAIRS  # operations: 28 heads of 128, 28 layers
FORWARD = 2 * (2148 * BODY + 2048 * HEAD) + ATTENTION


GIVEN_LORA = ("cluster=node_8gpu_colocated", "rollout=vllm_colocated", "trainer=zero3_lora")


COLOCATED = ("cluster=node_8gpu_colocated", "rollout=vllm_colocated")


@cache
def settings(*overrides: str) -> Settings:
    return compose_settings(["experiment=star1", *overrides])[0]


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
    assert parts["gathered layers"] == 2_000_000_000
    assert parts["reduce bucket"] == parts["reduction"] == 1_000_000_000  # 250 M in float32, and its copy
    assert parts["head gradients"] == 2 * 1_089_994_752
    assert parts["log-probs"] == 3 * 4 * 1024 * 152_064
    # 28 layer inputs of 16,384 x 3,584 in bfloat16, and one layer of 16 x 3,584 + 7 x 18,944 a token
    assert parts["activations"] == 28 * 2 * 16_384 * 3_584 + 2 * 16_384 * (57_344 + 132_608)


def test_rows_over_four_ranks_take_a_quarter_of_the_activations() -> None:
    """A trace of 32,000 tokens and its prompt of 1,024, on one rank and on four; a budget above a rank's part stays what it is."""
    long = (*COLOCATED, "rollout.max_response_tokens=32000", "trainer.micro_batch_tokens=4096")
    alone, four = (
        policy_memory(settings(*long, f"trainer.sequence_parallel_size={size}"), KNOWN[SEVEN], Assumptions()).parts
        for size in (1, 4)
    )
    prompts = settings(*long).rollout.max_prompt_tokens
    assert (32_000 + prompts) % 4 == 0 and alone["activations"] == 4 * four["activations"]
    # 28 layer inputs of 3,584 in bfloat16, and one layer of 16 x 3,584 + 7 x 18,944 a token
    assert four["activations"] == (32_000 + prompts) // 4 * (28 * 2 * 3_584 + 2 * (57_344 + 132_608))
    assert {part for part in alone if alone[part] != four[part]} == {"activations"}
    short = settings(*COLOCATED), settings(*COLOCATED, "trainer.sequence_parallel_size=4")
    one, other = (policy_memory(given, KNOWN[SEVEN], Assumptions()).parts for given in short)
    assert one == other


def test_adapters_train_a_hundredth_of_7b() -> None:
    """Rank 32 on every linear layer of R1-Distill-Qwen-7B: H 3,584, keys and values 512, I 18,944, 28 layers."""
    given = settings(*GIVEN_LORA)
    trained = 28 * 32 * (2 * (3_584 + 3_584) + 2 * (3_584 + 512) + 3 * (3_584 + 18_944))
    assert trained == 80_740_352
    parts = policy_memory(given, KNOWN[SEVEN], Assumptions()).parts
    assert parts["weights"] == 2 * (N + trained) // 8
    assert parts["gradients"] == parts["master weights"] == 40_370_176  # 4 x trained / 8
    assert parts["Adam moments"] == 80_740_352
    assert parts["reduce bucket"] == 4 * trained and parts["head gradients"] == 0

    few = settings(*GIVEN_LORA, "trainer.lora.target_modules=[q_proj,self_attn.v_proj]")
    assert policy_memory(few, KNOWN[SEVEN], Assumptions()).parts["Adam moments"] == 28 * 32 * (7_168 + 4_096)
    slower = make_plan(settings("cluster=node_8gpu_colocated", "rollout=vllm_colocated"), Assumptions())
    faster = make_plan(given, Assumptions())
    # Forward, recomputation, and a backward pass without gradients of the weights, besides that of attention's scores; the
    # adapters of 80.7 M have forward, recomputation and a whole backward pass.
    ratio = (3 * FORWARD + ATTENTION + 8 * trained * 2148) / (4 * FORWARD)
    assert faster.duration.seconds["update"] == pytest.approx(slower.duration.seconds["update"] * ratio)
    assert 0.75 < ratio < 0.78


def test_where_adapters_travel_alone_the_engine_holds_them_and_keeps_its_weights() -> None:
    trained, given = 80_740_352, settings(*GIVEN_LORA)
    engine = rollout_memory(given, KNOWN[SEVEN], Assumptions())
    assert engine.parts["adapters"] == 2 * trained and engine.host_bytes == 2 * (N + trained)
    merged = settings(*GIVEN_LORA, "trainer.lora.sync=merged")
    whole = rollout_memory(merged, KNOWN[SEVEN], Assumptions())
    assert "adapters" not in whole.parts and whole.host_bytes == 0
    few, all_of_them = (make_plan(one, Assumptions()).duration.seconds["sync"] for one in (given, merged))
    assert few == pytest.approx(all_of_them * trained / N)


def test_activations_without_checkpointing_are_all_layers() -> None:
    shape = KNOWN[SEVEN]
    backward = 2 * 1000 * (21_504 + 56_832)
    assert activation_bytes(shape, 1000, 2, checkpointing=False) == 28 * 2 * 1000 * (35_840 + 75_776) + backward


def test_offloading_moves_the_optimiser_to_the_host() -> None:
    memory = policy_memory(settings("trainer=zero3_offload"), KNOWN[SEVEN], Assumptions())
    assert "Adam moments" not in memory.parts and "master weights" not in memory.parts
    assert memory.host_bytes == 12 * N // 4
    kept = policy_memory(settings(), KNOWN[SEVEN], Assumptions())
    assert kept.total - memory.total == 12 * N // 4 and kept.host_bytes == 0


def test_engine_holds_what_its_share_leaves() -> None:
    planned = make_plan(settings(), Assumptions())
    left = round(0.85 * 79.2 * GIB) - 2 * N - 3 * GIB
    assert planned.groups["rollout"].parts["KV cache"] == left
    assert planned.kv_tokens == left // 57_344
    halved = make_plan(settings("rollout.tensor_parallel_size=2", "cluster.policy.num_workers=2"), Assumptions())
    assert halved.groups["rollout"].parts["weights"] == N
    assert halved.kv_tokens == 2 * (round(0.85 * 79.2 * GIB) - N - 3 * GIB) // 57_344


def test_more_gpus_than_kv_heads_hold_no_more_tokens() -> None:
    # R1-Distill-Qwen-1.5B has 2 KV heads: over 4 GPUs each GPU keeps one head of every token, and every head is kept twice.
    path = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
    planned = make_plan(
        settings(f"model.path={path}", "rollout.tensor_parallel_size=4", "rollout.kv_cache_bytes=1000000000"),
        Assumptions(),
    )
    assert planned.kv_tokens == 1_000_000_000 // (2 * 28 * 128 * 2)


def test_sharded_reference_and_none() -> None:
    whole = make_plan(settings(), Assumptions()).groups["reference"].parts["weights"]
    sharded = make_plan(settings("trainer.reference_sharding=zero3", "cluster.reference.num_workers=4"), Assumptions())
    assert whole == 2 * N and sharded.groups["reference"].parts["weights"] == 2 * N // 4
    assert "reference" not in make_plan(settings("algorithm.kl.placement=none"), Assumptions()).groups


def test_a_colocated_gpu_holds_the_sum_but_engine_and_optimiser_take_turns() -> None:
    planned = make_plan(settings("cluster=node_8gpu_colocated", "rollout=vllm_colocated"), Assumptions())
    (share,) = planned.shares
    groups = planned.groups
    assert share.num_gpus == 8 and planned.num_gpus == 8
    rests = sum(groups["reference"].parts[name] for name in ("weights", "CUDA context"))
    rests += sum(groups["reward"].parts[name] for name in ("weights of skywork", "CUDA context"))
    asleep = groups["rollout"].parts["engine overhead"]
    assert share.training_bytes == groups["policy"].total + rests + asleep
    stays = sum(groups["policy"].parts[name] for name in ("weights", "gradients", "reduce bucket", "CUDA context"))
    others = sum(groups[name].total for name in ("rollout", "reference", "reward"))
    assert share.generating_bytes == stays + others


@pytest.mark.parametrize(("workers", "on_one", "gpus"), [(1, 1, 1), (3, 3, 1), (4, 4, 1), (6, 4, 2)])
def test_a_gpu_holds_no_more_workers_than_there_are(workers: int, on_one: int, gpus: int) -> None:
    planned = make_plan(
        settings("cluster.reward.gpus_per_worker=0.25", f"cluster.reward.num_workers={workers}"), Assumptions()
    )
    share = next(share for share in planned.shares if share.groups == ("reward",))
    assert (share.num_gpus, share.peak_bytes) == (gpus, on_one * planned.groups["reward"].total)


# GiB a GPU, counted by hand tensor by tensor: policy alone on 4 GPUs; colocated on 8 while training and while generating.
BY_HAND = {
    "deepseek_r1_distill_qwen_1_5b": (20.5, 45.0, 65.3),
    "deepseek_r1_distill_qwen_7b": (51.6, 75.9, 81.4),
    "deepseek_r1_distill_llama_8b": (53.0, 76.5, 81.8),
    "qwen3_1_7b": (20.2, 44.6, 65.0),
    "qwen3_4b": (32.2, 56.4, 71.3),
    "qwen3_8b": (54.7, 78.4, 82.4),
}


@pytest.mark.parametrize("model", list(BY_HAND))
def test_the_plan_agrees_with_a_count_by_hand(model: str) -> None:
    """Within 2%. While training the count leaves on the GPU some of what the scorers now give back after a pass."""
    alone, training, generating = BY_HAND[model]
    other = compose_settings(["experiment=star1", f"model={model}", *COLOCATED, "trainer.reference_sharding=plain"])[0]
    other.rollout.gpu_memory_utilization = 0.4
    planned = make_plan(other, Assumptions())
    groups, (share,) = planned.groups, planned.shares
    kept = sum(groups[name].total - groups[name].at_rest for name in ("reference", "reward"))
    assert share.training_bytes / GIB < training < (share.training_bytes + kept) / GIB
    assert share.generating_bytes / GIB == pytest.approx(generating, rel=0.02)
    other.cluster.policy.num_workers, other.cluster.colocate = 4, []
    assert policy_memory(other, planned.policy, Assumptions()).total / GIB == pytest.approx(alone, rel=0.02)


def test_mamba_layers_take_their_scans_room() -> None:
    """12 float32 intermediates of 8,192 tokens x 256 x 48 heads: 0.375 GiB each."""
    path = "ibm-granite/granite-4.0-tiny-preview"
    with_scan = activation_bytes(KNOWN[path], 8192, 2, checkpointing=True)
    without = activation_bytes(replace(KNOWN[path], mamba_heads=0), 8192, 2, checkpointing=True)
    assert (with_scan - without) / GIB == 12 * 0.375


def test_the_optimiser_waits_in_pinned_memory_which_rounds_up() -> None:
    """952 M elements a rank: masters and two moments, 3.55 GiB each, in 4 GiB each; a sleeping engine keeps nothing."""
    planned = make_plan(settings(*COLOCATED), Assumptions())
    assert planned.groups["rollout"].host_bytes == 0
    assert planned.groups["policy"].host_bytes == 3 * 4 * GIB
    assert pinned_bytes(2_500_000_000) == (4 + 4 + 2) * GIB  # two arrays of 10^9 elements, and half a one
    enough, too_little = (Assumptions(host_memory_gib=8 * 12 + change) for change in (1, -1))
    refuse_what_cannot_fit(make_plan(settings(*COLOCATED), enough), settings(*COLOCATED), machine_bytes=0)
    with pytest.raises(ConfigError, match=r"cluster\.colocate: the 8 policy workers of a node keep 96 GiB"):
        refuse_what_cannot_fit(make_plan(settings(*COLOCATED), too_little), settings(*COLOCATED), machine_bytes=0)


@pytest.mark.parametrize(
    "model", sorted({path.stem for path in CONF.glob("model/*.yaml")} - {"miniature", "smollm2_135m"})
)
@pytest.mark.parametrize("layout", [(), COLOCATED])
def test_every_model_of_the_paper_fits(model: str, layout: tuple[str, ...]) -> None:
    given = compose_settings(["experiment=star1", f"model={model}", *layout])[0]
    assert given.run.name == f"{model}_star1"
    assert given.trainer.micro_batch_tokens == (8192 if model.startswith("granite") else 16384)
    if given.model.path in KNOWN:
        refuse_what_cannot_fit(make_plan(given, Assumptions()), given, machine_bytes=0)


# ---- what a training command says before it starts --------------------------------------------------------------------


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes this machine's driver report memory, in MiB a line; an empty text: no driver."""

    def report(text: str) -> None:
        program = tmp_path / "nvidia-smi"
        program.unlink(missing_ok=True)
        if text:
            program.write_text(f"#!/bin/sh\nprintf '{text}'\n")
            program.chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return report


def test_nothing_is_said_where_memory_or_shape_are_unknown(gpu: Callable[[str], None]) -> None:
    gpu("")
    assert gpu_memory_gib() is None and outlook(settings("rollout.gpu_memory_utilization=0.218")) == []
    gpu("no devices were found")
    assert gpu_memory_gib() is None
    gpu("81559\\n40960\\n")
    assert gpu_memory_gib() == 40
    assert outlook(settings("model.path=somebody/unknown")) == []


def test_a_start_says_that_it_fits(gpu: Callable[[str], None]) -> None:
    """81,559 MiB are 79.6 GiB, of which 79.2 can be used; the engines' share is what they are told to take."""
    gpu("81559\\n81559\\n")
    (line,) = outlook(settings())
    assert line.startswith("fits by the plan: at most 67.4 of 79.2 GiB on a GPU (rollout); a KV cache of ")
    (line,) = outlook(settings(*COLOCATED))
    assert "of 79.2 GiB on a GPU (policy + rollout + reference + reward)" in line


def test_a_start_warns_of_what_will_probably_not_fit(gpu: Callable[[str], None]) -> None:
    gpu("81559\\n81559\\n")
    (line,) = outlook(settings(*COLOCATED, "trainer.reference_sharding=plain", "rollout.gpu_memory_utilization=0.4"))
    assert line.startswith("rollout.gpu_memory_utilization=0.4: lower it")
    assert "lrm-safety plan" in line and "\n" not in line


def test_a_start_refuses_what_certainly_cannot_fit(gpu: Callable[[str], None]) -> None:
    """Shards and optimiser of 16 N / 4 + 2 N / 4 bytes are 32 GiB; 15.2 GB of weights are more than an engine's share."""
    gpu("24564")
    with pytest.raises(ConfigError, match=r"cluster\.policy\.num_workers=4: raise it"):
        outlook(settings("rollout.gpu_memory_utilization=0.95"))
    gpu("81559")
    with pytest.raises(ConfigError, match=r"rollout\.tensor_parallel_size=1: the weights take 14\.2 GiB"):
        outlook(settings("rollout.gpu_memory_utilization=0.1"))


def test_the_gpus_of_a_cluster_that_is_joined_need_not_be_like_this_machines(
    gpu: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu("24564")
    (line,) = outlook(settings("rollout.gpu_memory_utilization=0.95", "cluster.address=head:6379"))
    assert line.startswith("cluster.policy.num_workers=4: raise it") and "an estimate" in line
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert len(outlook(settings("rollout.gpu_memory_utilization=0.95"))) == 1


def test_the_laptop_is_told_nothing() -> None:
    assert outlook(compose_settings(["experiment=miniature"])[0]) == []


def test_mamba_layers_without_their_kernels_are_spoken_of(gpu: Callable[[str], None]) -> None:
    gpu("")
    (line,) = outlook(compose_settings(["experiment=star1", "model=granite_4_0_tiny_preview"])[0])
    assert "mamba_ssm and causal_conv1d" in line and "model.path=ibm-granite" in line


def test_tokens_and_hours_by_hand() -> None:
    given = Assumptions(generate_tokens_per_second=2000.0, response_tokens=2048.0)
    time = make_plan(settings(), given).duration
    assert (time.updates, time.iterations, time.responses_per_iteration) == (500, 250, 256)
    assert time.generated_tokens == 250 * 256 * 2048
    assert time.trained_tokens_per_update == 128 * 2148
    operations = 989e12 * 0.3
    # Shares of 128 responses differ: by Blom's 0.589 standard deviations the larger of two is above the mean.
    uneven = 1 + 0.58946 * 0.5 / 128**0.5
    assert time.seconds["generate"] == pytest.approx(256 * 2048 / 4000 * uneven)
    assert time.seconds["update"] == pytest.approx(4 * 256 * FORWARD / (4 * operations))
    assert time.seconds["log-probs"] == pytest.approx(256 * FORWARD / (4 * operations))
    # The reward model, of Llama-8B's size and without a head, takes a trifle longer than the reference.
    reward = 2 * 2148 * 32 * (4096 * (4096 + 2 * 1024) + 4096 * 4096 + 3 * 4096 * 14_336) + 4 * 32 * 128 * 32 * PAIRS
    assert time.seconds["score"] == pytest.approx(256 * reward / operations) and reward > FORWARD
    assert time.seconds["sync"] == pytest.approx(2 * N / (3 * GIB))
    # The last 16 responses are scored when all others have been.
    seconds = 131.072 * uneven + 5 * 256 * FORWARD / (4 * operations) + 2 * N / (3 * GIB) + 16 * reward / operations
    assert time.hours == pytest.approx(250 * seconds / 3600)


def test_scoring_counts_where_it_is_longer_than_generating() -> None:
    endless = Assumptions(generate_tokens_per_second=1e9, decode_overhead_ms=1e-6, memory_tb_per_second=1e6)
    time = make_plan(settings(), endless).duration
    phases = time.seconds
    assert phases["score"] > phases["generate"]
    assert time.iteration_seconds == pytest.approx(sum(phases.values()) - phases["generate"])


def test_more_engines_do_not_shorten_the_longest_response() -> None:
    """4,096 steps of 4 ms and the reading of 15.2 GB at 3.35 TB/s: 35 s, however many engines share the rest."""
    floor = 4096 * (0.004 + 2 * N / 3.35e12)
    assert 30 < floor < 45
    two = make_plan(settings(), Assumptions()).duration.seconds["generate"]
    many = make_plan(settings("cluster.rollout.num_workers=20"), Assumptions()).duration.seconds["generate"]
    assert two == pytest.approx(256 * 2048 / (2 * 5000 * 8e9 / N) * (1 + 0.58946 * 0.5 / 128**0.5)) and 40 < two < 55
    assert many == pytest.approx(floor)


def test_taking_turns_takes_time() -> None:
    """Masters and moments of 12 N / 8 bytes, there and back; with LoRA those of 80.7 M adapters."""
    seconds = make_plan(settings(*COLOCATED), Assumptions()).duration.seconds
    assert seconds["exchange"] == pytest.approx(2 * (12 * N / 8) / (20 * GIB)) and 1 < seconds["exchange"] < 1.1
    adapters = make_plan(settings(*COLOCATED, "trainer=zero3_lora"), Assumptions()).duration.seconds["exchange"]
    assert adapters == pytest.approx(seconds["exchange"] * 80_740_352 / N, rel=1e-3)
    assert "exchange" not in make_plan(settings(), Assumptions()).duration.seconds


def test_prefixes_take_their_time() -> None:
    """8B of policy and reward: 2 steps add a text of half the length to each response, 8 steps seven of them."""

    def score(*overrides: str) -> float:
        return make_plan(settings("algorithm.kl.placement=none", *overrides), Assumptions()).duration.seconds["score"]

    segments = "reward.granularity=segment"
    assert score(segments, "reward.segment.max_steps=2") == pytest.approx(1.5 * score())
    assert score(segments, "reward.segment.max_steps=8") == pytest.approx(4.5 * score())


def test_one_update_an_iteration_needs_logprobs_for_a_kl_in_the_reward_alone() -> None:
    one = "algorithm.mini_batch_size=256"
    assert make_plan(settings(one), Assumptions()).duration.seconds["log-probs"] > 0
    in_loss = settings(one, "algorithm.kl.placement=loss", "algorithm.kl.estimator=k2")
    assert make_plan(in_loss, Assumptions()).duration.seconds["log-probs"] == 0


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
            "trainer.offload_optimizer: the 4 policy workers of a node",
        ),
        ([], Assumptions(gpus=4.0), "cluster: asks for 8 GPUs"),
        (["model.path=deepseek-ai/DeepSeek-R1-Distill-Llama-70B"], Assumptions(), "rollout.tensor_parallel_size=1"),
        (["rollout.gpu_memory_utilization=0.218"], Assumptions(), "rollout.gpu_memory_utilization=0.218: the KV cache"),
        (["trainer.micro_batch_tokens=400000"], Assumptions(), "trainer.micro_batch_tokens=400000: lower it"),
        (
            ["cluster=node_8gpu_colocated", "rollout=vllm_colocated", "rollout.gpu_memory_utilization=0.5"],
            Assumptions(),
            "rollout.gpu_memory_utilization=0.5: lower it",
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
        refuse_what_cannot_fit(make_plan(given, assumed), given, machine_bytes=0)
    assert str(refused.value).startswith(key)


def test_the_shipped_split_fits_80_gib_to_the_last_byte_it_needs() -> None:
    given = settings()
    planned = make_plan(given, Assumptions())
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
    planned = make_plan(given, Assumptions())
    total = sum(group.total * group.num_workers for group in planned.groups.values())
    assert not planned.shares and planned.num_gpus == 0
    refuse_what_cannot_fit(planned, given, machine_bytes=total)
    with pytest.raises(ConfigError, match=r"cluster\..*num_workers: all groups need"):
        refuse_what_cannot_fit(planned, given, machine_bytes=total - 1)
    offloaded = compose_settings(["experiment=miniature", "trainer.offload_optimizer=true"])[0]
    refuse_what_cannot_fit(make_plan(offloaded, Assumptions()), offloaded, machine_bytes=total)
    with pytest.raises(ConfigError, match=r"all groups need"):
        refuse_what_cannot_fit(make_plan(offloaded, Assumptions()), offloaded, machine_bytes=total - 1)
    # float32: the policy's weights are 4 bytes a parameter over 2 ranks
    assert planned.groups["policy"].parts["weights"] == 4 * num_parameters(planned.policy) // 2


def test_shape_of_the_miniature_is_its_own_file() -> None:
    shape = shape_of("package:lrm_safety/miniature/assets/policy", "model.path")
    assert shape.source == "config.json" and shape.tied and shape.qk_norm
    assert 0.8e6 < num_parameters(shape) < 1.0e6  # docs/miniature.md: 0.89 M


def test_a_mixture_in_a_folder_is_counted_in_its_files(tmp_path: Path) -> None:
    model = tiny_granite(mamba_n_heads=4)
    model.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path), "model.path")
    assert num_parameters(shape) == sum(parameter.numel() for parameter in model.parameters())
    assert shape.mamba_heads == 4 and "weight files" in shape.source


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
        ("plan.speed=1", "unknown key plan.speed"),
        ("plan.gpus=x", "a number"),
        ("plan.gpus=0", "above 0"),
    ):
        with pytest.raises(ConfigError, match=message):
            split([wrong])
    assert plan_command(["experiment=star1", "plan.generate_tokens_per_second=1500"]) == 0
    out = capsys.readouterr().out
    assert "7.616 B parameters" in out and "It fits" in out and "assumed" in out and "given" in out
    with pytest.raises(ConfigError, match="num_workers=4"):
        plan_command(["experiment=star1", "plan.gpu_memory_gib=30"])


def test_the_page_on_planning(repository_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (repository_root / "docs" / "planning.md").read_text()
    commands = [shlex.split(line)[2:] for line in page.splitlines() if line.startswith("lrm-safety plan ")]
    commands = [one for one in commands if "--from" not in one]
    assert len(commands) == 4
    for command in commands:
        assert plan_command(command) == 0, command
    large = commands[-1]
    planned = make_plan(compose_settings(large)[0], Assumptions())
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
