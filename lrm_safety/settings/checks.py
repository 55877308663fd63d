"""Checks of the configuration of `lrm-safety train` that need no model and no cluster; every failure names the key."""

from __future__ import annotations

from typing import get_args

from ..errors import ConfigError
from . import Settings
from .components import REWARDS, reward_kind
from .shared_checks import (
    check_data,
    check_export,
    check_judges,
    check_lora,
    check_read,
    read_by_trainer,
)
from .system import Group
from .training import BASELINES, CORRECTIONS

COLOCATED_GPU_MEMORY = 0.6
"""Share of a GPU beside which trainer, reference and reward model still find room."""
GROUPS: tuple[Group, ...] = get_args(Group)


def check(settings: Settings) -> None:
    """Raise ConfigError for the first value out of its limits or combination that cannot work."""
    for rule in RULES:
        rule(settings)


def _check_policy_lora(settings: Settings) -> None:
    lora = settings.trainer.lora
    check_lora(settings.trainer)
    if lora.rank and lora.dropout and settings.run.invariants == "strict":
        raise ConfigError(
            f"trainer.lora.dropout={lora.dropout}: scoring has no dropout, so rho would not be 1 at the first update; use 0, or "
            "run.invariants=warn"
        )


def _check_algorithm(settings: Settings) -> None:
    algorithm = settings.algorithm
    responses = algorithm.rollout_batch_size * algorithm.samples_per_prompt
    if responses % algorithm.mini_batch_size:
        raise ConfigError(
            f"algorithm.mini_batch_size={algorithm.mini_batch_size}: must divide the {responses} responses of a rollout batch "
            f"(rollout_batch_size {algorithm.rollout_batch_size} x samples_per_prompt {algorithm.samples_per_prompt})"
        )
    if algorithm.mini_batch_size < settings.cluster.policy.num_workers:
        raise ConfigError(
            f"algorithm.mini_batch_size={algorithm.mini_batch_size}: must be at least cluster.policy.num_workers="
            f"{settings.cluster.policy.num_workers}, so that every rank has a response to learn from"
        )
    needed = BASELINES.get(algorithm.baseline, "algorithm.baseline").min_samples
    if algorithm.samples_per_prompt < needed:
        raise ConfigError(
            f"algorithm.baseline={algorithm.baseline}: needs algorithm.samples_per_prompt of {needed} or more to compare samples"
        )
    CORRECTIONS.get(algorithm.correction, "algorithm.correction")
    if algorithm.normalisation == "group" and algorithm.samples_per_prompt < 2:
        raise ConfigError("algorithm.normalisation=group: needs algorithm.samples_per_prompt of 2 or more")
    if algorithm.aggregation == "micro_batch_mean":
        _check_micro_batches(settings)
    if settings.schedule.max_updates % (responses // algorithm.mini_batch_size):
        raise ConfigError(
            f"schedule.max_updates={settings.schedule.max_updates}: must be a multiple of the "
            f"{responses // algorithm.mini_batch_size} updates of one rollout batch"
        )


def _check_micro_batches(settings: Settings) -> None:
    """The mean over a micro-batch is an objective only where the cut is stated: under a token budget it would follow the
    lengths of the responses and the number of ranks."""
    size, ranks = settings.trainer.micro_batch_sequences, settings.cluster.policy.num_workers
    if size is None:
        raise ConfigError(
            "algorithm.aggregation=micro_batch_mean: needs trainer.micro_batch_sequences (OpenRLHF 0.9: 4); under a token "
            "budget a response's weight would depend on its length and on the number of ranks"
        )
    if settings.algorithm.mini_batch_size % (size * ranks):
        raise ConfigError(
            f"algorithm.mini_batch_size={settings.algorithm.mini_batch_size}: must be a multiple of "
            f"trainer.micro_batch_sequences={size} x cluster.policy.num_workers={ranks}, so that with "
            "algorithm.aggregation=micro_batch_mean all micro-batches hold equally many responses"
        )


def _check_kl(settings: Settings) -> None:
    algorithm, kl = settings.algorithm, settings.algorithm.kl
    if kl.placement == "loss" and kl.estimator == "k1":
        raise ConfigError(
            "algorithm.kl.estimator=k1: with kl.placement=loss its gradient is zero on average and pulls nowhere; use k2 or k3"
        )
    if kl.placement == "reward" and kl.estimator != "k1":
        raise ConfigError(
            f"algorithm.kl.estimator={kl.estimator}: with kl.placement=reward only k1 gives the paper's return; use k1"
        )
    if kl.controller == "adaptive":
        for name, value in (("coef", kl.coef), ("target", kl.target)):
            if value <= 0:
                raise ConfigError(f"algorithm.kl.{name}={value}: must be above 0 for kl.controller=adaptive")
        responses = algorithm.rollout_batch_size * algorithm.samples_per_prompt
        if responses >= 5 * kl.horizon:
            raise ConfigError(
                f"algorithm.kl.horizon={kl.horizon}: must be above a fifth of the {responses} responses of a rollout batch, "
                "or the coefficient could fall to zero"
            )


def _check_rollout(settings: Settings) -> None:
    rollout, algorithm = settings.rollout, settings.algorithm
    truncated = rollout.top_p < 1.0 or rollout.top_k > 0
    if truncated and (algorithm.old_logprobs != "rollout" or algorithm.correction != "off"):
        raise ConfigError(
            "rollout.top_p/top_k: a cut distribution is not the trainer's; use top_p=1 top_k=0, or algorithm.old_logprobs=rollout "
            "with algorithm.correction=off"
        )
    if rollout.max_num_batched_tokens is not None:
        # On the CPU a prompt is never cut in two (workers/rollout.py).
        longest = rollout.max_prompt_tokens + rollout.max_response_tokens if settings.cluster.device == "cpu" else 1
        for key, least in (
            ("max_num_seqs", rollout.max_num_seqs),
            ("max_prompt_tokens + max_response_tokens", longest),
        ):
            if rollout.max_num_batched_tokens < least:
                raise ConfigError(
                    f"rollout.max_num_batched_tokens={rollout.max_num_batched_tokens}: must be at least rollout.{key}={least}; "
                    "null leaves it to vLLM"
                )
    if settings.cluster.device == "cpu":
        if rollout.tensor_parallel_size != 1:
            raise ConfigError("rollout.tensor_parallel_size: must be 1 on cluster.device=cpu; use more rollout workers")
        if rollout.kv_cache_bytes is None:
            raise ConfigError("rollout.kv_cache_bytes: must be set on cluster.device=cpu (e.g. 268435456)")
        if rollout.weight_transfer not in ("auto", "shm"):
            raise ConfigError(
                f"rollout.weight_transfer={rollout.weight_transfer}: needs cluster.device=cuda; use auto or shm"
            )
        return
    if rollout.weight_transfer == "shm":
        raise ConfigError("rollout.weight_transfer=shm: is the CPU's; use auto, nccl or ipc on cluster.device=cuda")
    together = any({"policy", "rollout"} <= set(names) for names in settings.cluster.colocate)
    if rollout.weight_transfer == ("nccl" if together else "ipc"):
        reason = "trainer and engine share a GPU, which cannot be two NCCL ranks" if together else "they share no GPU"
        raise ConfigError(f"rollout.weight_transfer={rollout.weight_transfer}: {reason}; use auto")
    if together and rollout.gpu_memory_utilization > COLOCATED_GPU_MEMORY:
        raise ConfigError(
            f"rollout.gpu_memory_utilization={rollout.gpu_memory_utilization}: engines that share their GPUs with the trainer "
            f"may take at most {COLOCATED_GPU_MEMORY}; use rollout=vllm_colocated"
        )


def _check_cluster(settings: Settings) -> None:
    cluster = settings.cluster
    seen: set[str] = set()
    for names in cluster.colocate:
        for name in names:
            if name in seen:
                raise ConfigError(f"cluster.colocate: group {name} stands in two sets")
            seen.add(name)
        sizes = {name: getattr(cluster, name).num_workers for name in names}
        if len(set(sizes.values())) > 1:
            raise ConfigError(f"cluster.colocate: groups that share bundles need equal num_workers, not {sizes}")
        if settings.rollout.tensor_parallel_size > 1 and "rollout" in names:
            raise ConfigError(
                "cluster.colocate: a tensor-parallel rollout engine cannot share a single bundle; use split"
            )
    if cluster.device == "cuda":
        for name in ("policy", "rollout", "reference"):
            if getattr(cluster, name).gpus_per_worker <= 0:
                raise ConfigError(f"cluster.{name}.gpus_per_worker: must be above 0 on cluster.device=cuda")
    else:
        for name in GROUPS:
            if getattr(cluster, name).gpus_per_worker:
                raise ConfigError(f"cluster.{name}.gpus_per_worker: must be 0 on cluster.device=cpu")


def _check_reward(settings: Settings) -> None:
    reward = settings.reward
    if not reward.models:
        raise ConfigError("reward.models: is empty; choose a reward, e.g. reward=skywork_v2_llama_8b")
    for name, model in reward.models.items():
        declared = reward_kind(model, f"reward.models.{name}")
        if declared.reads and not getattr(model, declared.reads[0]):
            raise ConfigError(f"reward.models.{name}.{declared.reads[0]}: must be set for kind={model.kind}")
        for other, kind in (("function", "python"), ("url", "http")):
            if getattr(model, other) and other not in declared.reads:
                raise ConfigError(
                    f"reward.models.{name}.{other}={getattr(model, other)}: does nothing with kind={model.kind}; set "
                    f"reward.models.{name}.kind={kind}"
                )
        if model.arguments and model.kind in REWARDS.ours:
            raise ConfigError(
                f"reward.models.{name}.arguments: are those of a kind of your own; kind={model.kind} has keys beside it"
            )
        if model.overlong_score and model.kind == "classifier" and model.overlong == "error":
            raise ConfigError(
                f"reward.models.{name}.overlong_score={model.overlong_score:g}: does nothing with overlong=error; use "
                "overlong=score or drop_trace_middle"
            )
    if not any(model.weight * weight for model in reward.models.values() for weight in model.read_views().values()):
        raise ConfigError("reward.models: every weight is 0, so there is nothing to learn; give a model and a view one")
    if reward.clip_low is not None and reward.clip_high is not None and reward.clip_low >= reward.clip_high:
        raise ConfigError(f"reward.clip_low={reward.clip_low}: must be below reward.clip_high={reward.clip_high}")
    if bool(reward.overlong_penalty) != bool(reward.overlong_buffer_tokens):
        given, lacking = ("overlong_penalty", "overlong_buffer_tokens")[:: 1 if reward.overlong_penalty else -1]
        raise ConfigError(
            f"reward.{given}={getattr(reward, given):g}: does nothing with reward.{lacking}=0; set both, or neither"
        )
    if reward.overlong_buffer_tokens > settings.rollout.max_response_tokens:
        raise ConfigError("reward.overlong_buffer_tokens: must not exceed rollout.max_response_tokens")
    if reward.granularity == "segment":
        _check_segments(settings)


def _check_segments(settings: Settings) -> None:
    gamma, baseline = settings.algorithm.gamma, settings.algorithm.baseline
    if gamma != 1:
        raise ConfigError(
            f"reward.granularity=segment: needs algorithm.gamma=1, not {gamma:g}: discounted, the shares of a score no longer "
            "sum to it and the best policy moves"
        )
    if BASELINES.get(baseline, "algorithm.baseline").rescales:
        raise ConfigError(
            f"reward.granularity=segment: algorithm.baseline={baseline} divides each group's scores by a deviation that their "
            "prefixes do not have; use another baseline"
        )
    if not any(model.prefix_views() for model in settings.reward.models.values()):
        raise ConfigError(
            "reward.granularity=segment: no reward model scores prefixes; one needs a view full or trace, and a python "
            "function or endpoint needs reward.models.NAME.prefixes=true"
        )


def _check_evaluation(settings: Settings) -> None:
    evaluation, best = settings.evaluation, settings.checkpoint.best_metric or ""
    if evaluation.every_updates and not evaluation.benchmarks:
        raise ConfigError(
            f"evaluation.every_updates={evaluation.every_updates}: there is nothing to evaluate; choose evaluation=OPTION, "
            "add evaluation.benchmarks.NAME, or set it to 0"
        )
    check_judges(evaluation)
    if not best:
        return
    if not best.startswith("evaluation/"):
        raise ConfigError(f"checkpoint.best_metric={best}: must be a figure of the evaluation, evaluation/NAME")
    if not evaluation.every_updates:
        raise ConfigError("checkpoint.best_metric: is an evaluation figure, but evaluation.every_updates=0")
    if best.removeprefix("evaluation/").partition("/")[0] not in evaluation.benchmarks:
        raise ConfigError(
            f"checkpoint.best_metric={best}: no such benchmark; evaluation.benchmarks has "
            f"{', '.join(evaluation.benchmarks)}"
        )


def _check_read(settings: Settings) -> None:
    """Keys that nothing reads in this configuration. Left out are those that presets state for when they are read: the
    estimator and coefficient of a KL that is switched off, tags of a tracker that is."""
    algorithm, kl, rollout, reward = settings.algorithm, settings.algorithm.kl, settings.rollout, settings.reward
    own = algorithm.old_logprobs == "rollout"
    corrects = algorithm.correction != "off" and not own
    if own and algorithm.correction in ("mask", "icepop"):
        raise ConfigError(
            f"algorithm.correction={algorithm.correction}: does nothing with algorithm.old_logprobs=rollout, where every weight "
            "is 1; use old_logprobs=recompute, or correction=off"
        )
    updates = algorithm.rollout_batch_size * algorithm.samples_per_prompt // algorithm.mini_batch_size
    moves = updates > 1 or own or bool(settings.trainer.lora.rank and settings.trainer.lora.dropout)
    clips = ("clip_low", "clip_high", "dual_clip")
    check_read(
        [
            (
                kl,
                "algorithm.kl",
                ("controller", "clamp"),
                kl.placement != "none",
                "with algorithm.kl.placement=none; use reward or loss",
            ),
            (
                kl,
                "algorithm.kl",
                ("target", "horizon"),
                kl.controller == "adaptive",
                "with algorithm.kl.controller=fixed; use adaptive",
            ),
            (
                algorithm,
                "algorithm",
                ("correction_cap",),
                corrects,
                "with algorithm.old_logprobs=rollout; use recompute"
                if own
                else "with algorithm.correction=off; use tis, mask or icepop",
            ),
            (
                algorithm,
                "algorithm",
                clips,
                moves,
                "with one update a rollout batch, where rho is 1; use a smaller algorithm.mini_batch_size",
            ),
            (
                rollout,
                "rollout",
                ("probe_tolerance",),
                rollout.probe_every_syncs > 0,
                "with rollout.probe_every_syncs=0; set it",
            ),
            (
                reward.segment,
                "reward.segment",
                ("unit", "max_steps"),
                reward.granularity == "segment",
                "with reward.granularity=response; use segment",
            ),
            (
                settings.trainer,
                "trainer",
                ("min_lr_ratio",),
                settings.trainer.lr_schedule != "constant",
                "with trainer.lr_schedule=constant; use cosine or linear",
            ),
            *read_by_trainer(settings),
        ]
    )


RULES = (
    check_export,
    _check_policy_lora,
    _check_algorithm,
    _check_kl,
    _check_rollout,
    _check_cluster,
    _check_reward,
    check_data,
    _check_evaluation,
    _check_read,
)
