"""Checks of the configuration of `lrm-safety train` that need no model and no cluster; every failure names the key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from ..errors import ConfigError
from . import ClusterSettings, DataSettings, EvaluationSettings, ModelSettings, Settings, TrainerSettings
from .components import REWARDS, reward_kind
from .evaluation import BENCHMARKS, judge_arguments, judge_kind
from .system import Group
from .training import BASELINES
from .types import nothing_reads, shown

COLOCATED_GPU_MEMORY = 0.6
"""Share of a GPU beside which trainer, reference and reward model still find room."""
GROUPS: tuple[Group, ...] = get_args(Group)


def check(settings: Settings) -> None:
    """Raise ConfigError for the first value out of its limits or combination that cannot work."""
    check_data(settings.data)
    for rule in RULES:
        rule(settings)


def _check_policy_lora(settings: Settings) -> None:
    lora = settings.trainer.lora
    if lora.rank and lora.dropout and settings.run.invariants == "strict":
        raise ConfigError(
            f"trainer.lora.dropout={lora.dropout}: scoring has no dropout, so rho would not be 1 at the first update; use 0, or "
            "run.invariants=warn"
        )
    if lora.rank and lora.sync == "adapters":
        reason = "with trainer.lora.sync=adapters, which go through Ray's object store; use trainer.lora.sync=merged"
        nothing_reads(settings.rollout, ["weight_transfer"], reason, prefix="rollout.")


def _check_updates(settings: Settings) -> None:
    check_sequence_parallel(settings.trainer, settings.model, settings.cluster)
    algorithm = settings.algorithm
    check_every_rank_learns(
        algorithm.mini_batch_size, "algorithm.mini_batch_size", "a response", settings.trainer, settings.cluster
    )
    if algorithm.aggregation == "micro_batch_mean":
        _check_micro_batches(settings)
    updates = algorithm.num_responses // algorithm.mini_batch_size
    if settings.schedule.max_updates % updates:
        least = settings.schedule.max_updates // updates * updates
        near = f"{least} or {least + updates}" if least else f"{updates}"
        raise ConfigError(
            f"schedule.max_updates={settings.schedule.max_updates}: must be a multiple of the {updates} updates of a rollout batch"
            f", such as {near}; these are algorithm.rollout_batch_size={algorithm.rollout_batch_size} x "
            f"algorithm.samples_per_prompt={algorithm.samples_per_prompt} / algorithm.mini_batch_size={algorithm.mini_batch_size}"
        )
    own, lora = algorithm.old_logprobs == "rollout", settings.trainer.lora
    if updates == 1 and not own and not (lora.rank and lora.dropout):
        reason = "with one update a rollout batch, where rho is 1; use a smaller algorithm.mini_batch_size"
        nothing_reads(algorithm, ["clip_low", "clip_high", "dual_clip"], reason, prefix="algorithm.")


def check_every_rank_learns(size: int, key: str, what: str, trainer: TrainerSettings, cluster: ClusterSettings) -> None:
    """An update of `size` sequences, of which no rank or group of ranks may be without one."""
    ranks, together = cluster.policy.num_workers, trainer.sequence_parallel_size
    if size * together < ranks:
        raise ConfigError(
            f"{key}={size}: must be at least cluster.policy.num_workers={ranks}{_divided(together)}, so that every rank has "
            f"{what} to learn from"
        )


def _divided(together: int) -> str:
    return f" / trainer.sequence_parallel_size={together}" if together > 1 else ""


def check_sequence_parallel(trainer: TrainerSettings, model: ModelSettings, cluster: ClusterSettings) -> None:
    """`trainer.sequence_parallel_size` against the layout and how rows are read; what the model's layers allow is looked up
    where its folder is read."""
    if trainer.sequence_parallel_size == 1:
        return
    key = f"trainer.sequence_parallel_size={trainer.sequence_parallel_size}"
    if cluster.policy.num_workers % trainer.sequence_parallel_size:
        raise ConfigError(
            f"{key}: must divide cluster.policy.num_workers={cluster.policy.num_workers}, its ranks read rows together"
        )
    if cluster.policy.min_workers not in (None, cluster.policy.num_workers):
        raise ConfigError(
            f"cluster.policy.min_workers={cluster.policy.min_workers}: a smaller layout may hold a number of ranks that "
            f"{key} does not divide; leave it out"
        )
    if not model.packing:
        raise ConfigError(f"{key}: needs model.packing=true, only packed rows are split over ranks")
    if model.attention not in ("auto", "sdpa"):
        raise ConfigError(f"{key}: needs model.attention=sdpa, or auto, not {model.attention}")


def _check_micro_batches(settings: Settings) -> None:
    """The mean over a micro-batch is an objective only where the cut is stated: under a token budget it would follow the
    lengths of the responses and the number of ranks."""
    size, ranks = settings.trainer.micro_batch_sequences, settings.cluster.policy.num_workers
    together = settings.trainer.sequence_parallel_size
    if settings.cluster.policy.min_workers not in (None, ranks):
        raise ConfigError(
            f"cluster.policy.min_workers={settings.cluster.policy.min_workers}: with algorithm.aggregation=micro_batch_mean the "
            "objective depends on the number of ranks; leave it out"
        )
    if size is None:
        raise ConfigError(
            "algorithm.aggregation=micro_batch_mean: needs trainer.micro_batch_sequences (OpenRLHF 0.9: 4); under a token "
            "budget a response's weight would depend on its length and on the number of ranks"
        )
    if settings.algorithm.mini_batch_size % (size * (ranks // together)):
        raise ConfigError(
            f"algorithm.mini_batch_size={settings.algorithm.mini_batch_size}: must be a multiple of "
            f"trainer.micro_batch_sequences={size} x cluster.policy.num_workers={ranks}{_divided(together)}, so that with "
            "algorithm.aggregation=micro_batch_mean all micro-batches hold equally many responses"
        )


def _check_rollout(settings: Settings) -> None:
    rollout, algorithm = settings.rollout, settings.algorithm
    truncated = rollout.top_p < 1.0 or rollout.top_k > 0
    if truncated and (algorithm.old_logprobs != "rollout" or algorithm.correction != "off"):
        raise ConfigError(
            "rollout.top_p/top_k: a cut distribution is not the trainer's; use top_p=1 top_k=0, or algorithm.old_logprobs=rollout "
            "with algorithm.correction=off"
        )
    if algorithm.oversampling > 1 and rollout.dispatch == "fixed":
        raise ConfigError(
            f"algorithm.oversampling={algorithm.oversampling:g}: which responses end first depends on time; set "
            "rollout.dispatch=as_slots_free, or leave it at 1"
        )
    if settings.cluster.device == "cpu":
        if rollout.tensor_parallel_size != 1:
            raise ConfigError("rollout.tensor_parallel_size: must be 1 on cluster.device=cpu; use more rollout workers")
        if rollout.kv_cache_bytes is None:
            raise ConfigError("rollout.kv_cache_bytes: must be set on cluster.device=cpu (e.g. 268435456)")
        longest = rollout.max_prompt_tokens + rollout.max_response_tokens
        if rollout.max_num_batched_tokens is not None and rollout.max_num_batched_tokens < longest:
            # A prompt is never cut in two there (workers/rollout.py).
            raise ConfigError(
                f"rollout.max_num_batched_tokens={rollout.max_num_batched_tokens}: must be at least "
                f"rollout.max_prompt_tokens + max_response_tokens={longest}; null leaves it to vLLM"
            )
        if rollout.weight_transfer not in ("auto", "shm", "object_store"):
            raise ConfigError(f"rollout.weight_transfer={rollout.weight_transfer}: needs cluster.device=cuda; use auto")
        return
    if rollout.weight_transfer in ("shm", "object_store"):
        raise ConfigError(
            f"rollout.weight_transfer={rollout.weight_transfer}: is the CPU's; use auto, nccl or ipc on cluster.device=cuda"
        )
    together = any({"policy", "rollout"} <= set(names) for names in settings.cluster.colocate)
    if rollout.weight_transfer == ("nccl" if together else "ipc"):
        reason = "trainer and engine share a GPU, which cannot be two NCCL ranks" if together else "they share no GPU"
        raise ConfigError(f"rollout.weight_transfer={rollout.weight_transfer}: {reason}; use auto")
    if together and algorithm.max_staleness:
        raise ConfigError(
            f"algorithm.max_staleness={algorithm.max_staleness}: engines that share their GPUs with the trainer cannot sample "
            "while it updates; use 0, or a layout apart such as cluster=node_8gpu_split"
        )
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
        for key in ("min_workers", "strategy", "node_labels"):
            values = {name: getattr(getattr(cluster, name), key) for name in names}
            if any(value != values[names[0]] for value in values.values()):
                raise ConfigError(f"cluster.colocate: groups that share bundles need equal {key}, not {values}")
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
    if not any(model.weight * weight for model in reward.models.values() for weight in model.read_views().values()):
        raise ConfigError("reward.models: every weight is 0, so there is nothing to learn; give a model and a view one")
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
    check_evaluation(evaluation)
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


def _check_profile(settings: Settings) -> None:
    check_profile(settings.run.profile_updates, settings.schedule.max_updates, "schedule.max_updates")


def check_profile(updates: Sequence[int], last: int, what: str) -> None:
    """The updates of `run.profile_updates` against the run's last, which `what` says."""
    beyond = [update for update in updates if update > last]
    if beyond:
        raise ConfigError(
            f"run.profile_updates={shown(list(updates))}: update {beyond[0]} is beyond {what}={last}; name updates of the run"
        )


def check_data(data: DataSettings) -> None:
    """A place where the rows come from."""
    if data.path is None and data.hub_id is None:
        raise ConfigError("data.path: set it or data.hub_id; both are null")


def check_evaluation(evaluation: EvaluationSettings) -> None:
    """What benchmarks and kinds of judges ask for, options included."""
    for name, benchmark in evaluation.benchmarks.items():
        key = f"evaluation.benchmarks.{name}"
        BENCHMARKS.get(benchmark.task, f"{key}.task").check_options(benchmark.arguments, f"{key}.arguments")
    for name, judge in evaluation.judges.items():
        declared = judge_kind(judge.kind, f"evaluation.judges.{name}.kind")
        if "prefix" in judge.views and not declared.finds_beginnings:
            raise ConfigError(
                f"evaluation.judges.{name}.views: prefix needs a judge of harm; by kind={judge.kind} no beginning is safe "
                "before it refuses"
            )
        if declared.needs != "nothing" and judge.path is None:
            raise ConfigError(f"evaluation.judges.{name}.path: must be set for kind={judge.kind}")
        judge_arguments(name, judge)


RULES = (
    _check_policy_lora,
    _check_updates,
    _check_rollout,
    _check_cluster,
    _check_reward,
    _check_evaluation,
    _check_profile,
)
