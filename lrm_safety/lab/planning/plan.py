"""A plan: memory, tokens, hours of a configuration, what keeps it from fitting, and what is said of it before a start."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace

import psutil

from ...errors import ConfigError, ModelError
from ...modeling.cards import ask_driver
from ...modeling.shapes import ModelShape, shape_of
from ...settings import Settings
from ...settings.system import devices, num_gpus
from .assumptions import Assumptions
from .disk import Disk, disk_of
from .duration import Duration, duration
from .memory import GIB, NODE_GPUS, GroupMemory, kv_tokens, memory_of, rollout_memory
from .sampling import response_tokens


@dataclass(frozen=True)
class Share:
    """What lies on one GPU: several groups where they are colocated, several workers where they take a part each."""

    groups: tuple[str, ...]
    num_gpus: int
    training_bytes: int
    generating_bytes: int
    stored_bytes: int
    """Of them weights, gradients and optimiser states while the policy trains."""

    @property
    def peak_bytes(self) -> int:
        return max(self.training_bytes, self.generating_bytes)


@dataclass(frozen=True)
class Plan:
    """Everything that `lrm-safety plan` prints."""

    policy: ModelShape
    rewards: Mapping[str, ModelShape]
    groups: Mapping[str, GroupMemory]
    shares: tuple[Share, ...]
    """By GPU; empty on the CPU."""
    num_gpus: float
    kv_tokens: int
    sequence_tokens: int
    """Longest prompt and response."""
    duration: Duration
    disk: Disk
    assumed: Assumptions

    @property
    def gpu_hours(self) -> float:
        return self.num_gpus * self.duration.hours


def shapes(settings: Settings, assumed: Assumptions) -> tuple[ModelShape, dict[str, ModelShape]]:
    """Of the policy and, by name, of the classifiers among the reward models; raises as `make_plan`."""
    rewards = {
        name: shape_of(one.path or "", f"reward.models.{name}.path", head=False, config=assumed.reward_config)
        for name, one in settings.reward.models.items()
        if one.kind == "classifier"
    }
    return shape_of(settings.model.path, "model.path", config=assumed.model_config), rewards


def concurrency(settings: Settings, policy: ModelShape, assumed: Assumptions) -> float:
    """Responses that the KV cache of an engine holds at a time, each as long as the mean with its prompt."""
    length = response_tokens(settings, assumed) + min(assumed.prompt_tokens, settings.rollout.max_prompt_tokens)
    return kv_tokens(settings, policy, rollout_memory(settings, policy, assumed)) / length


def make_plan(settings: Settings, assumed: Assumptions) -> Plan:
    """Work it out; raises ConfigError or ModelError for a model whose shape cannot be known."""
    policy, rewards = shapes(settings, assumed)
    models = settings.reward.models
    groups = memory_of(settings, policy, {name: (models[name], shape) for name, shape in rewards.items()}, assumed)
    return Plan(
        policy=policy,
        rewards=rewards,
        groups=groups,
        shares=_shares(settings, groups) if settings.cluster.device == "cuda" else (),
        num_gpus=num_gpus(settings.cluster, settings.rollout.tensor_parallel_size, tuple(groups)),
        kv_tokens=kv_tokens(settings, policy, groups["rollout"]),
        sequence_tokens=settings.rollout.max_prompt_tokens + settings.rollout.max_response_tokens,
        duration=duration(settings, policy, rewards, assumed, concurrency=concurrency(settings, policy, assumed)),
        disk=disk_of(settings, policy, assumed),
        assumed=assumed,
    )


def _shares(settings: Settings, groups: Mapping[str, GroupMemory]) -> tuple[Share, ...]:
    cluster = settings.cluster
    colocated = {name for together in cluster.colocate for name in together}
    shares = []
    for together in [*map(list[str], cluster.colocate), *([name] for name in groups if name not in colocated)]:
        names = tuple(name for name in together if name in groups)
        if not names:
            continue
        if len(names) == 1:
            group, each = groups[names[0]], getattr(cluster, names[0]).gpus_per_worker
            if not each:
                continue  # in host memory
            on_one = min(int(1 / each), group.num_workers) if each < 1 else 1
            gpus = devices(cluster, settings.rollout.tensor_parallel_size, names[0])
            shares.append(Share(names, gpus, group.total * on_one, group.total * on_one, group.stored * on_one))
            continue
        # The policy has a turn, then the others; whose turn it is not rests, and the policy makes room for engines.
        moved = groups["policy"].offloaded if {"policy", "rollout"} <= set(names) else 0
        training = sum(
            groups[name].total
            if name == "policy"
            else _asleep(groups[name])
            if name == "rollout"
            else groups[name].at_rest
            for name in names
        )
        generating = sum(groups[name].at_rest - moved if name == "policy" else groups[name].total for name in names)
        stored = sum(groups[name].stored for name in names if name != "rollout")
        shares.append(Share(names, groups[names[0]].num_workers, training, generating, stored))
    return tuple(shares)


def _asleep(engine: GroupMemory) -> int:
    """What a sleeping engine keeps on its GPU."""
    return engine.parts.get("engine overhead", 0)


def refuse_what_cannot_fit(planned: Plan, settings: Settings, machine_bytes: int) -> None:
    """Raise ConfigError for the first thing that cannot fit, naming the key to change. `machine_bytes`: for cluster.device=cpu."""
    assumed, rollout = planned.assumed, settings.rollout
    if assumed.disk_gib is not None and planned.disk.total > assumed.disk_gib * GIB:
        raise ConfigError(
            f"checkpoint.keep_last={settings.checkpoint.keep_last}: the run's folder takes {planned.disk.total / GIB:.1f} GiB, "
            f"{planned.disk.parts['checkpoints'] / GIB:.1f} of them checkpoints, plan.disk_gib={assumed.disk_gib:g}; lower it, or "
            "set run.directory to a larger disk"
        )
    if settings.cluster.device == "cpu":
        taken = {name: (one.total + one.host_bytes) * one.num_workers for name, one in planned.groups.items()}
        needed = sum(taken.values())
        room = round(assumed.host_memory_gib * GIB) if assumed.host_memory_gib else machine_bytes
        if needed > room:
            largest = max(taken, key=taken.__getitem__)
            raise ConfigError(
                f"cluster.{largest}.num_workers: all groups need {needed / GIB:.1f} GiB of memory, there are "
                f"{room / GIB:.1f}; the {largest} group takes most: use fewer workers, a smaller model, or smaller "
                "trainer.micro_batch_tokens and rollout.kv_cache_bytes"
            )
        return
    room = round(assumed.gpu_memory_gib * GIB)
    if assumed.gpus is not None and planned.num_gpus > assumed.gpus:
        raise ConfigError(
            f"cluster: asks for {planned.num_gpus:g} GPUs, plan.gpus={assumed.gpus:g}; choose another cluster=OPTION or lower "
            "cluster.*.num_workers"
        )
    # An engine whose weights leave no room says so more clearly than the sum of a GPU does.
    if planned.kv_tokens == 0:
        raise ConfigError(
            f"rollout.tensor_parallel_size={rollout.tensor_parallel_size}: the weights take "
            f"{planned.groups['rollout'].parts['weights'] / GIB:.1f} GiB of each GPU of an engine, its share is "
            f"{rollout.gpu_memory_utilization * assumed.gpu_memory_gib:.1f} (rollout.gpu_memory_utilization="
            f"{rollout.gpu_memory_utilization:g}) and nothing is left for the KV cache; raise it"
        )
    if planned.kv_tokens < planned.sequence_tokens:
        raise ConfigError(
            f"rollout.gpu_memory_utilization={rollout.gpu_memory_utilization:g}: the KV cache of an engine holds "
            f"{planned.kv_tokens:,} tokens, one response of rollout.max_prompt_tokens + max_response_tokens needs "
            f"{planned.sequence_tokens:,}; raise it, or rollout.tensor_parallel_size={rollout.tensor_parallel_size}, or shorten "
            "rollout.max_response_tokens"
        )
    for share in planned.shares:
        if share.peak_bytes > room:
            raise ConfigError(
                f"{_mend(share, planned, settings)}: {' + '.join(share.groups)} take {share.peak_bytes / GIB:.1f} GiB on a GPU of "
                f"{assumed.gpu_memory_gib:g} (plan.gpu_memory_gib)"
            )
    on_host = {name: one.host_bytes * min(NODE_GPUS, one.num_workers) for name, one in planned.groups.items()}
    host = sum(on_host.values())
    if assumed.host_memory_gib is not None and host > assumed.host_memory_gib * GIB:
        largest = max(on_host, key=on_host.__getitem__)
        if largest == "rollout":
            key = f"trainer.lora.sync={settings.trainer.lora.sync}"
            mend = (
                "engines that sleep keep their weights there; set it to merged, or take groups apart (cluster.colocate)"
            )
        elif settings.trainer.offload_optimizer:
            key, mend = "trainer.offload_optimizer", "use more nodes (cluster.policy.num_workers) or switch it off"
        else:
            key, mend = "cluster.colocate", "the policy's optimiser moves there for the engines; take groups apart"
        raise ConfigError(
            f"{key}: the {min(NODE_GPUS, planned.groups[largest].num_workers)} {largest} workers of a node keep "
            f"{on_host[largest] / GIB:.0f} GiB in host memory, all groups {host / GIB:.0f}, plan.host_memory_gib="
            f"{assumed.host_memory_gib:g}; {mend}"
        )


def _mend(share: Share, planned: Plan, settings: Settings) -> str:
    """The key whose change helps most: by the largest part of the group that is largest there."""
    if len(share.groups) > 1 and share.generating_bytes > share.training_bytes and "rollout" in share.groups:
        return f"rollout.gpu_memory_utilization={settings.rollout.gpu_memory_utilization:g}: lower it, or take groups apart"
    group = max(
        (planned.groups[name] for name in share.groups if name != "rollout"), key=lambda one: one.total, default=None
    )
    if group is None:
        return f"rollout.tensor_parallel_size={settings.rollout.tensor_parallel_size}: raise it"
    if group.group == "policy":
        part = max(group.parts, key=group.parts.__getitem__)
        if part in ("activations", "log-probs"):
            return (
                f"trainer.micro_batch_tokens={settings.trainer.micro_batch_tokens}: lower it, with rollout.max_response_tokens "
                "or a higher trainer.sequence_parallel_size"
            )
        more = "" if settings.trainer.offload_optimizer else ", or set trainer.offload_optimizer=true"
        return f"cluster.policy.num_workers={group.num_workers}: raise it{more}"
    if group.group == "reference":
        return "trainer.reference_sharding=zero3 with more cluster.reference.num_workers" + (
            ", which is already on" if settings.trainer.reference_sharding == "zero3" else ""
        )
    return "reward: choose a smaller reward model, or a lower reward.models.NAME.micro_batch_tokens"


USABLE = 0.995
"""Share of what the driver reports that a process can use: 79.2 of the 79.6 GiB of an H100 of 80 GB."""
MAMBA_KERNELS = ("mamba_ssm", "causal_conv1d")


def outlook(settings: Settings) -> list[str]:
    """What to say before a run on GPUs starts: that it fits, or what will probably not, naming the key to change; and of Mamba
    layers that will run slowly.

    Nothing can be told where the model's shape or the GPUs' memory is not known here, and nothing is where workers fit into
    the memory of a machine without GPUs.
    Raises ConfigError where it is certain: weights and optimiser states alone are more than a GPU holds. Of a cluster that
    the run joins nothing is certain: its GPUs need not be like this machine's.
    """
    assumed = Assumptions()
    on_gpu = settings.cluster.device == "cuda"
    gpu_gib = gpu_memory_gib() if on_gpu else None
    if gpu_gib is not None:
        assumed = replace(assumed, gpu_memory_gib=gpu_gib * USABLE)
    try:
        planned = make_plan(settings, assumed)
    except (ConfigError, ModelError):
        return []
    lines = _slow_mamba(settings) if on_gpu and planned.policy.mamba_heads else []
    if on_gpu and gpu_gib is None:
        return lines
    joined = (settings.cluster.address or os.environ.get("RAY_ADDRESS") or "local") != "local"
    try:
        refuse_what_cannot_fit(planned, settings, psutil.virtual_memory().total)
    except ConfigError as error:
        if not joined and _certainly(planned, settings):
            raise
        lines.append(f"{error} (an estimate; `lrm-safety plan` with the same arguments shows it)")
    else:
        if on_gpu and planned.shares:
            fullest = max(planned.shares, key=lambda share: share.peak_bytes)
            lines.append(
                f"fits by the plan: at most {fullest.peak_bytes / GIB:.1f} of {assumed.gpu_memory_gib:.1f} GiB on a GPU "
                f"({' + '.join(fullest.groups)}); a KV cache of {planned.kv_tokens:,} tokens an engine"
                + (" (an estimate for GPUs like this machine's)" if joined else "")
            )
    return lines


def _slow_mamba(settings: Settings) -> list[str]:
    absent = [name for name in MAMBA_KERNELS if importlib.util.find_spec(name) is None]
    if not absent:
        return []
    return [
        f"model.path={settings.model.path}: has Mamba layers, and without {' and '.join(absent)} the trainer runs them by "
        "transformers' slower code in several GiB more; see docs/gpu.md"
    ]


def gpu_memory_gib() -> float | None:
    """Memory of this machine's smallest GPU as its driver reports it; None where there is none."""
    try:
        return min(map(float, ask_driver("memory.total"))) / 1024
    except ValueError:
        return None


def _certainly(planned: Plan, settings: Settings) -> bool:
    """Whether no assumption is needed to see that it cannot fit."""
    room = planned.assumed.gpu_memory_gib * GIB
    engine = planned.groups["rollout"].parts["weights"]
    too_small = engine > settings.rollout.gpu_memory_utilization * room
    return settings.cluster.device == "cuda" and (too_small or any(one.stored_bytes > room for one in planned.shares))
