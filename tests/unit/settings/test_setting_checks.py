"""Each check of a composed configuration has an example that breaks it alone, and its message names the key."""

from __future__ import annotations

import copy
from dataclasses import asdict
from functools import cache

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lrm_safety.algorithm.kl import AdaptiveKL
from lrm_safety.errors import ConfigError
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import TRAIN, compose_settings

# The values that the rules below speak of are stated here: the experiment's own are free to change.
BASE = (
    "experiment=miniature",
    "checkpoint.best_metric=null",
    "algorithm.rollout_batch_size=64",
    "algorithm.mini_batch_size=32",
    "schedule.max_updates=120",
    "rollout.max_response_tokens=96",
)
CUDA = ("cluster=node_8gpu_split", "rollout=vllm")
ADAPTIVE = "algorithm.kl.controller=adaptive"
SEGMENT = "reward.granularity=segment"

BROKEN = {
    "choice": (["trainer.lr_schedule=step"], ["trainer.lr_schedule=step", "cosine, constant, linear"]),
    "choice inside a dictionary": (["reward.models.miniature.kind=magic"], ["reward.models.miniature.kind=magic"]),
    "too low": (["algorithm.samples_per_prompt=0"], ["algorithm.samples_per_prompt=0", "at least 1"]),
    "too high": (["trainer.min_lr_ratio=1.5"], ["trainer.min_lr_ratio=1.5", "at most 1"]),
    "negative": (["algorithm.clip_low=-0.1"], ["algorithm.clip_low=-0.1", "at least 0"]),
    "NaN": (["trainer.lr=nan"], ["trainer.lr=nan", "finite"]),
    "infinite": (["reward.clip_high=inf"], ["reward.clip_high=inf", "finite", "null"]),
    "limit of a benchmark": (["evaluation.benchmarks.safety.limit=0"], ["evaluation.benchmarks.safety.limit=0"]),
    "dual clip at 1": (["algorithm.dual_clip=1"], ["algorithm.dual_clip=1", "above 1"]),
    "an alpha that does nothing": (["trainer=zero3_lora", "trainer.lora.alpha=0"], ["trainer.lora.alpha=0", "above 0"]),
    "everything dropped": (["trainer=zero3_lora", "trainer.lora.dropout=1"], ["trainer.lora.dropout=1", "below 1"]),
    "no layer for adapters": (["trainer=zero3_lora", "trainer.lora.target_modules=[]"], ["target_modules", "empty"]),
    "all layers and more": (
        ["trainer=zero3_lora", "trainer.lora.target_modules=[all-linear,q_proj]"],
        ["trainer.lora.target_modules", "alone"],
    ),
    "adapters by a way of whole weights": (
        ["trainer=zero3_lora", "trainer.lora.sync=adapters", "rollout.weight_transfer=shm"],
        ["rollout.weight_transfer=shm: does nothing", "trainer.lora.sync=adapters", "leave it at auto"],
    ),
    "another way to sync adapters": (["trainer=zero3_lora", "trainer.lora.sync=files"], ["trainer.lora.sync=files"]),
    "a negative rank": (["trainer.lora.rank=-1"], ["trainer.lora.rank=-1", "at least 0"]),
    "dropout against strict checks": (
        ["trainer=zero3_lora", "trainer.lora.dropout=0.05"],
        ["trainer.lora.dropout=0.05", "rho", "run.invariants=warn"],
    ),
    "beta1 at 1": (["trainer.beta1=1"], ["trainer.beta1=1", "below 1"]),
    "beta2 at 1": (["trainer.beta2=1"], ["trainer.beta2=1", "below 1"]),
    "empty nucleus": (
        ["rollout.top_p=0", "algorithm.old_logprobs=rollout", "algorithm.correction=off"],
        ["rollout.top_p=0"],
    ),
    "a view that is none": (
        ["evaluation.judges.refusal_rules.views=[prompt]"],
        ["views", "prompt", "trace, answer, full"],
    ),
    "a judge of beginnings alone": (
        ["evaluation.judges.refusal_rules.kind=llm", "evaluation.judges.refusal_rules.views=[prefix]"],
        ["refusal_rules.views", "beside prefix"],
    ),
    "beginnings that refuse": (
        ["evaluation.judges.refusal_rules.views=[trace,prefix]"],
        ["refusal_rules.views", "judge of harm"],
    ),
    "a judge without views": (["evaluation.judges.refusal_rules.views=[]"], ["refusal_rules.views"]),
    "a judge without its model": (
        ["evaluation.judges.refusal_rules.kind=guard"],
        ["evaluation.judges.refusal_rules.path", "kind=guard"],
    ),
    "an update profiled twice": (["run.profile_updates=[3,4,3]"], ["run.profile_updates=[3,4,3]", "update 3 twice"]),
    "an update before the first": (["run.profile_updates=[4,0]"], ["run.profile_updates", "at least 1"]),
    "an update that is none": (["run.profile_updates=[-1]"], ["run.profile_updates", "at least 1"]),
    "an update beyond the last": (
        ["run.profile_updates=[120,121]"],
        ["run.profile_updates=[120,121]", "update 121", "schedule.max_updates=120"],
    ),
    "a machine that can do nothing": (["cluster.peak_tflops=0"], ["cluster.peak_tflops=0", "above 0"]),
    "torn mini-batch": (["algorithm.mini_batch_size=24"], ["algorithm.mini_batch_size=24", "divide the 64 responses"]),
    "ranks without a response": (
        ["algorithm.mini_batch_size=1", "schedule.max_updates=64"],
        ["algorithm.mini_batch_size=1", "cluster.policy.num_workers=2"],
    ),
    "baseline of one sample": (["algorithm.baseline=leave_one_out"], ["algorithm.baseline=leave_one_out", "2 or more"]),
    "group of one sample": (["algorithm.normalisation=group"], ["algorithm.normalisation=group", "2 or more"]),
    "updates left over": (
        ["schedule.max_updates=121"],
        ["schedule.max_updates=121", "multiple of the 2 updates", "such as 120 or 122", "algorithm.mini_batch_size="],
    ),
    "k1 in the loss": (["algorithm.kl.placement=loss"], ["algorithm.kl.estimator=k1", "use k2 or k3"]),
    "k2 in the reward": (["algorithm.kl.estimator=k2"], ["algorithm.kl.estimator=k2", "use k1"]),
    "adaptive from 0": ([ADAPTIVE, "algorithm.kl.coef=0"], ["algorithm.kl.coef=0", "above 0"]),
    "adaptive to 0": ([ADAPTIVE, "algorithm.kl.target=0"], ["algorithm.kl.target=0", "above 0"]),
    "adaptive too fast": ([ADAPTIVE, "algorithm.kl.horizon=12"], ["algorithm.kl.horizon=12", "64 responses"]),
    "nucleus": (["rollout.top_p=0.9"], ["rollout.top_p", "old_logprobs=rollout"]),
    "top-k, corrected": (["rollout.top_k=5", "algorithm.old_logprobs=rollout"], ["top_k=0", "correction=off"]),
    "tensor parallel on the CPU": (["rollout.tensor_parallel_size=2"], ["rollout.tensor_parallel_size", "cpu"]),
    "no cache size on the CPU": (["rollout.kv_cache_bytes=null"], ["rollout.kv_cache_bytes", "cpu"]),
    "CUDA's transfer on the CPU": (["rollout.weight_transfer=nccl"], ["rollout.weight_transfer=nccl", "cuda"]),
    "the CPU's transfer on CUDA": ([*CUDA, "rollout.weight_transfer=shm"], ["rollout.weight_transfer=shm", "cuda"]),
    "Ray's store for CUDA": ([*CUDA, "rollout.weight_transfer=object_store"], ["weight_transfer=object_store", "nccl"]),
    "older weights that nothing corrects": (
        ["algorithm.max_staleness=1", "algorithm.correction=off"],
        ["algorithm.max_staleness=1", "algorithm.correction=tis", "old_logprobs=rollout"],
    ),
    "sampling ahead on the trainer's GPU": (
        ["cluster=node_8gpu_colocated", "rollout=vllm_colocated", "algorithm.max_staleness=1"],
        ["algorithm.max_staleness=1", "share their GPUs", "cluster=node_8gpu_split"],
    ),
    "cut off, and dealt beforehand": (
        ["algorithm.oversampling=1.5"],
        ["algorithm.oversampling=1.5", "rollout.dispatch=as_slots_free"],
    ),
    "more in flight than fit into two batches": (
        ["algorithm.oversampling=2.5", "rollout.dispatch=as_slots_free"],
        ["algorithm.oversampling", "2"],
    ),
    "unknown group colocated": (["cluster.colocate=[[policy,judge]]"], ["cluster.colocate", "judge"]),
    "group colocated twice": (
        ["cluster.colocate=[[reward,reference],[reward,rollout]]"],
        ["cluster.colocate", "reward", "two sets"],
    ),
    "unequal groups colocated": (
        ["cluster.colocate=[[policy,rollout]]"],
        ["cluster.colocate", "'policy': 2", "'rollout': 1"],
    ),
    "tensor parallel colocated": (
        ["cluster=node_8gpu_colocated", "rollout=vllm_colocated", "rollout.tensor_parallel_size=2"],
        ["cluster.colocate", "tensor-parallel"],
    ),
    "no GPU on CUDA": ([*CUDA, "cluster.policy.gpus_per_worker=0"], ["cluster.policy.gpus_per_worker", "above 0"]),
    "GPU on the CPU": (["cluster.reward.gpus_per_worker=1"], ["cluster.reward.gpus_per_worker", "must be 0"]),
    "no reward": (["~reward.models.miniature"], ["reward.models", "empty"]),
    "classifier without a path": (
        ["reward.models.miniature.path=null"],
        ["reward.models.miniature.path", "classifier"],
    ),
    "python without a function": (["reward.models.miniature.kind=python"], ["reward.models.miniature.function"]),
    "http without a url": (["reward.models.miniature.kind=http"], ["reward.models.miniature.url"]),
    "unknown view": (
        ["+reward.models.miniature.views.summary=1"],
        ["reward.models.miniature.views.summary", "full, trace, answer"],
    ),
    "weight that is no number": (
        ["reward.models.miniature.views.full=nan"],
        ["reward.models.miniature.views.full=nan", "finite"],
    ),
    "clip bounds crossed": (["reward.clip_low=2", "reward.clip_high=2"], ["reward.clip_low=2", "reward.clip_high=2"]),
    "granularity that is none": (["reward.granularity=token"], ["reward.granularity=token", "response, segment"]),
    "unit that is none": (["reward.segment.unit=words"], ["reward.segment.unit=words", "sentences, lines"]),
    "one step only": (["reward.segment.max_steps=1"], ["reward.segment.max_steps=1", "at least 2"]),
    "segments discounted": ([SEGMENT, "algorithm.gamma=0.99"], [SEGMENT, "algorithm.gamma=1, not 0.99"]),
    "segments of a z-score": (
        [SEGMENT, "algorithm.baseline=group_zscore", "algorithm.samples_per_prompt=2"],
        [SEGMENT, "algorithm.baseline=group_zscore"],
    ),
    "segments of answers": (
        [SEGMENT, "reward.models.miniature.views.full=0", "+reward.models.miniature.views.answer=1"],
        [SEGMENT, "no reward model scores prefixes"],
    ),
    "segments of a function about whole responses": (
        [SEGMENT, "reward.models.miniature.kind=python", "reward.models.miniature.function=a:b"],
        [SEGMENT, "reward.models.NAME.prefixes=true"],
    ),
    "buffer over the limit": (["reward.overlong_buffer_tokens=97"], ["reward.overlong_buffer_tokens"]),
    "a length penalty without its width": (
        ["reward.overlong_penalty=1"],
        ["reward.overlong_penalty=1", "reward.overlong_buffer_tokens=0"],
    ),
    "a width without a length penalty": (
        ["reward.overlong_buffer_tokens=16"],
        ["reward.overlong_buffer_tokens=16", "reward.overlong_penalty=0"],
    ),
    "a controller of no KL": (
        [ADAPTIVE, "algorithm.kl.placement=none"],
        ["algorithm.kl.controller=adaptive", "algorithm.kl.placement=none"],
    ),
    "a clamp of no KL": (
        ["algorithm.kl.clamp=10", "algorithm.kl.placement=none"],
        ["algorithm.kl.clamp=10", "algorithm.kl.placement=none"],
    ),
    "a target of a fixed coefficient": (
        ["algorithm.kl.target=3"],
        ["algorithm.kl.target=3", "algorithm.kl.controller=fixed", "leave it at 6.0"],
    ),
    "a mask of weights that are 1": (
        ["algorithm.correction=mask", "algorithm.old_logprobs=rollout"],
        ["algorithm.correction=mask", "algorithm.old_logprobs=rollout"],
    ),
    "icepop of weights that are 1": (
        ["algorithm.correction=icepop", "algorithm.old_logprobs=rollout"],
        ["algorithm.correction=icepop", "algorithm.old_logprobs=rollout"],
    ),
    "a cap of no correction": (
        ["algorithm.correction=off", "algorithm.correction_cap=3"],
        ["algorithm.correction_cap=3", "algorithm.correction=off"],
    ),
    "a cap of weights that are 1": (
        ["algorithm.old_logprobs=rollout", "algorithm.correction_cap=3"],
        ["algorithm.correction_cap=3", "algorithm.old_logprobs=rollout"],
    ),
    "a clip of a ratio that is 1": (
        ["algorithm.clip_high=0.28", "algorithm.mini_batch_size=64"],
        ["algorithm.clip_high=0.28", "algorithm.mini_batch_size"],
    ),
    "a dual clip of a ratio that is 1": (
        ["algorithm.dual_clip=3", "algorithm.mini_batch_size=64"],
        ["algorithm.dual_clip=3", "rho is 1", "leave it at null"],
    ),
    "micro-batches by tokens weigh by length": (
        ["algorithm.aggregation=micro_batch_mean"],
        ["algorithm.aggregation=micro_batch_mean", "trainer.micro_batch_sequences"],
    ),
    "micro-batches of unequal count": (
        ["algorithm.aggregation=micro_batch_mean", "trainer.micro_batch_sequences=5"],
        ["algorithm.mini_batch_size=32", "trainer.micro_batch_sequences=5", "cluster.policy.num_workers=2"],
    ),
    "rows split over ranks that are left over": (
        ["trainer.sequence_parallel_size=3"],
        ["trainer.sequence_parallel_size=3", "cluster.policy.num_workers=2"],
    ),
    "padded rows split": (
        ["trainer.sequence_parallel_size=2", "model.packing=false"],
        ["trainer.sequence_parallel_size=2", "model.packing=true"],
    ),
    "rows split under another kernel": (
        ["trainer.sequence_parallel_size=2", "model.attention=eager"],
        ["trainer.sequence_parallel_size=2", "model.attention=sdpa", "eager"],
    ),
    "rows split over ranks that may be missing": (
        ["trainer.sequence_parallel_size=2", "cluster.policy.min_workers=1"],
        ["cluster.policy.min_workers=1", "trainer.sequence_parallel_size=2"],
    ),
    "groups of ranks without a response": (
        [
            "trainer.sequence_parallel_size=2",
            "cluster.policy.num_workers=4",
            "algorithm.mini_batch_size=1",
            "schedule.max_updates=64",
        ],
        ["algorithm.mini_batch_size=1", "num_workers=4 / trainer.sequence_parallel_size=2"],
    ),
    "micro-batches of unequal count over groups of ranks": (
        [
            "algorithm.aggregation=micro_batch_mean",
            "trainer.micro_batch_sequences=5",
            "trainer.sequence_parallel_size=2",
        ],
        ["num_workers=2 / trainer.sequence_parallel_size=2", "trainer.micro_batch_sequences=5"],
    ),
    "a tolerance of no probe": (
        ["rollout.probe_tolerance=0.1", "rollout.probe_every_syncs=0"],
        ["rollout.probe_tolerance=0.1", "rollout.probe_every_syncs=0"],
    ),
    "steps of whole responses": (
        ["reward.segment.max_steps=4"],
        ["reward.segment.max_steps=4", "reward.granularity=response"],
    ),
    "how to sync adapters of rank 0": (
        ["trainer.lora.sync=merged"],
        ["trainer.lora.sync=merged", "trainer.lora.rank=0"],
    ),
    "adapters of rank 0": (["trainer.lora.alpha=64"], ["trainer.lora.alpha=64", "trainer.lora.rank=0"]),
    "layers of adapters of rank 0": (
        ["trainer.lora.target_modules=[q_proj]"],
        ["target_modules", "trainer.lora.rank=0"],
    ),
    "an end of a constant rate": (
        ["trainer.lr_schedule=constant", "trainer.min_lr_ratio=0.5"],
        ["trainer.min_lr_ratio=0.5", "trainer.lr_schedule=constant"],
    ),
    "a mode of no best": (
        ["checkpoint.best_metric=null", "checkpoint.best_mode=min"],
        ["checkpoint.best_mode=min", "checkpoint.best_metric=null"],
    ),
    "records of no diagnosis": (
        ["tracking.diagnosis=false", "tracking.diagnosis_min_records=5"],
        ["tracking.diagnosis_min_records=5", "tracking.diagnosis=false"],
    ),
    "a function of a classifier": (
        ["reward.models.miniature.function=mine:score"],
        ["reward.models.miniature.function=mine:score", "reward.models.miniature.kind=python"],
    ),
    "a url of a classifier": (
        ["reward.models.miniature.url=http://127.0.0.1:1/"],
        ["reward.models.miniature.url=", "reward.models.miniature.kind=http"],
    ),
    "a score of texts that stop the run": (
        ["reward.models.miniature.overlong=error", "reward.models.miniature.overlong_score=-5"],
        ["reward.models.miniature.overlong_score=-5", "overlong=error"],
    ),
    "a reward of weight 0": (["reward.models.miniature.weight=0"], ["reward.models", "every weight is 0"]),
    "views of weight 0": (["reward.models.miniature.views.full=0"], ["reward.models", "every weight is 0"]),
    "no pass": (["schedule.passes=0"], ["schedule.passes=0", "above 0"]),
    "a seed that no generator takes": (["seed=4294967296"], ["seed=4294967296", "at most 4294967295"]),
    "a seed of the evaluation that no generator takes": (
        ["evaluation.seed=1099511627776"],
        ["evaluation.seed=1099511627776", "at most 4294967295"],
    ),
    "a model without a path": (["model.path=''"], ["model.path", "empty"]),
    "a folder that is blank": (["run.directory=' '"], ["run.directory", "empty"]),
    "a model of a reward that is empty": (["reward.models.miniature.path=''"], ["reward.models.miniature.path"]),
    "an empty tag": (["tracking.tags=['']"], ["tracking.tags", "empty"]),
    "a step below its sequences": (
        ["rollout.max_num_batched_tokens=100"],
        ["rollout.max_num_batched_tokens=100", "rollout.max_num_seqs=128"],
    ),
    "a step below the longest sequence": (
        ["rollout.max_num_batched_tokens=150"],
        ["rollout.max_num_batched_tokens=150", "max_prompt_tokens + max_response_tokens=160"],
    ),
    "no data": (["data.path=null"], ["data.path", "data.hub_id"]),
    "nothing to evaluate": (
        ["evaluation=none", "evaluation.every_updates=5", "checkpoint.best_metric=null"],
        ["evaluation.every_updates=5", "nothing to evaluate"],
    ),
    "best of no evaluation": (["evaluation.every_updates=0"], ["checkpoint.best_metric", "evaluation.every_updates=0"]),
    "best of an unknown set": (
        ["checkpoint.best_metric=evaluation/saftey"],
        ["checkpoint.best_metric=evaluation/saftey", "safety, arithmetic, benign"],
    ),
    "best of a training metric": (
        ["checkpoint.best_metric=reward/raw_mean"],
        ["checkpoint.best_metric=reward/raw_mean", "evaluation/NAME"],
    ),
    "negative seed": (["seed=-1"], ["seed=-1", "at least 0"]),
    "engines that take the trainer's GPU": (
        ["cluster=node_8gpu_colocated", "rollout=vllm"],
        ["rollout.gpu_memory_utilization=0.85", "rollout=vllm_colocated"],
    ),
    "two NCCL ranks on one GPU": (
        ["cluster=node_8gpu_colocated", "rollout=vllm_colocated", "rollout.weight_transfer=nccl"],
        ["rollout.weight_transfer=nccl", "share a GPU"],
    ),
    "handles of a GPU that is not shared": (
        ["cluster=node_8gpu_split", "rollout=vllm", "rollout.weight_transfer=ipc"],
        ["rollout.weight_transfer=ipc", "share no GPU"],
    ),
    "a reference without a GPU": (
        ["cluster=node_8gpu_split", "rollout=vllm", "cluster.reference.gpus_per_worker=0"],
        ["cluster.reference.gpus_per_worker", "above 0"],
    ),
    "no time": (["rollout.timeout_seconds=0.5"], ["rollout.timeout_seconds=0.5", "at least 1"]),
}


@cache
def composed(choices: tuple[str, ...]) -> DictConfig:
    settings, _ = compose_settings([*BASE, *choices])
    settings.checkpoint.best_metric = "evaluation/safety"
    return OmegaConf.create(asdict(settings))


def changed(overrides: list[str]) -> Settings:
    """The miniature with other groups and values; values are set on a copy, since composing anew takes far longer."""
    choices = tuple(item for item in overrides if "." not in item.partition("=")[0])
    config = copy.deepcopy(composed(choices))
    for item in OverridesParser.create().parse_overrides([item for item in overrides if item not in choices]):
        if item.is_delete():
            parent, _, name = item.key_or_group.rpartition(".")
            del OmegaConf.select(config, parent)[name]
        else:
            OmegaConf.update(config, item.key_or_group, item.value(), force_add=item.is_add())
    return TRAIN.settings_of(config)[0]


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_rule_names_its_key(name: str) -> None:
    overrides, expected = BROKEN[name]
    with pytest.raises(ConfigError) as refused:
        changed(overrides)
    for part in expected:
        assert part in str(refused.value)


# The nearest configuration on the right side of a rule.
WHOLE = {
    "a mini-batch that is the whole batch": ["algorithm.mini_batch_size=64"],
    "one response a rank": ["algorithm.mini_batch_size=2", "schedule.max_updates=64"],
    "a baseline of two samples": ["algorithm.baseline=leave_one_out", "algorithm.samples_per_prompt=2"],
    "a group of two samples": ["algorithm.normalisation=group", "algorithm.samples_per_prompt=2"],
    "k3 in the loss": ["algorithm.kl.placement=loss", "algorithm.kl.estimator=k3"],
    "any estimator where none is used": ["algorithm.kl.placement=none", "algorithm.kl.estimator=k3"],
    "no clip at all": ["algorithm.clip_low=null", "algorithm.clip_high=null"],
    "a dual clip": ["algorithm.dual_clip=1.01"],
    "cut off on the trainer's GPU, and sampled again": [
        "cluster=node_8gpu_colocated",
        "rollout=vllm_colocated",
        "algorithm.oversampling=1.25",
        "rollout.dispatch=as_slots_free",
    ],
    "sampling ahead beside the trainer": [*CUDA, "algorithm.max_staleness=2"],
    "sampling ahead under the engine's own log-probs": [
        "algorithm.max_staleness=1",
        "algorithm.old_logprobs=rollout",
        "algorithm.correction=off",
    ],
    "top-k under the engine's own log-probs": [
        "rollout.top_k=5",
        "rollout.top_p=0.9",
        "algorithm.old_logprobs=rollout",
        "algorithm.correction=off",
    ],
    "an adaptive controller": [ADAPTIVE, "algorithm.kl.horizon=13"],
    "equal groups colocated": ["cluster.colocate=[[reward,reference]]"],
    "segments of two samples": [SEGMENT, "algorithm.baseline=group_mean", "algorithm.samples_per_prompt=2"],
    "segments of a function that reads prefixes": [
        SEGMENT,
        "reward.models.miniature.kind=python",
        "reward.models.miniature.function=a:b",
        "reward.models.miniature.prefixes=true",
    ],
    "discounting of whole responses": ["algorithm.gamma=0.99"],
    "a buffer as long as a response": ["reward.overlong_buffer_tokens=96", "reward.overlong_penalty=1"],
    "truncation of weights that are 1, the default": ["algorithm.old_logprobs=rollout"],
    "a clip of the engine's ratio": [
        "algorithm.clip_high=0.28",
        "algorithm.mini_batch_size=64",
        "algorithm.old_logprobs=rollout",
    ],
    "micro-batches of four": ["algorithm.aggregation=micro_batch_mean", "trainer.micro_batch_sequences=4"],
    "micro-batches of any count where their cut is no weight": ["trainer.micro_batch_sequences=5"],
    "a view that is only watched": ["+reward.models.miniature.views.trace=0"],
    "the largest seed": ["seed=4294967295"],
    "a system prompt that says nothing": ["model.system_prompt=''"],
    "a step of one sequence": ["rollout.max_num_batched_tokens=160"],
    "a prompt set on the hub": ["data.path=null", "data.hub_id=someone/prompts"],
    "the best of a secondary figure": ["checkpoint.best_metric=evaluation/safety/rate"],
    "greedy evaluation": ["evaluation.temperature=0"],
}


@pytest.mark.parametrize("name", WHOLE)
def test_the_other_side_of_a_rule_is_let_through(name: str) -> None:
    changed(WHOLE[name])


def test_the_horizon_is_refused_exactly_where_the_controller_would_refuse_its_first_batch() -> None:
    with pytest.raises(ValueError, match="fifth"):
        AdaptiveKL(0.02, target=6.0, horizon=12).update(6.0, 64)
    AdaptiveKL(0.02, target=6.0, horizon=13).update(6.0, 64)


@pytest.mark.parametrize(
    ("overrides", "waits"),
    [
        ((), True),
        (("cluster.policy.num_workers=17", "rollout.stream_chunk_size=16"), False),
        (("cluster.policy.num_workers=32", "trainer.sequence_parallel_size=2", "rollout.stream_chunk_size=16"), True),
        (("algorithm.max_staleness=1",), False),
        (("cluster=node_8gpu_colocated", "rollout=vllm_colocated"), False),
        (CUDA, True),
    ],
)
def test_a_trainer_scores_what_is_sampled_where_it_has_nothing_else_to_do(
    overrides: tuple[str, ...], waits: bool
) -> None:
    assert changed(list(overrides)).trainer_waits_for_samples is waits
