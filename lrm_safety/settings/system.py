"""Schema of where a run lives: cluster, checkpoints, tracking."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from .types import (
    DIRECTORY,
    Conflict,
    Device,
    Float,
    Int,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Text,
    Unfit,
    nothing_reads,
    rule,
)


def _no_update_twice(updates: list[int]) -> list[int]:
    twice = [update for update in dict.fromkeys(updates) if updates.count(update) > 1]
    if twice:
        raise Unfit(f"names update {twice[0]} twice; name each once")
    return updates


Group = Literal["policy", "rollout", "reference", "reward"]
"""A group of workers."""
Strategy = Literal["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]
"""How the workers of a group lie on the nodes, in Ray's words."""
ProfileUpdates = Annotated[list[PositiveInt], AfterValidator(_no_update_twice)]
"""Numbers of updates, each once."""
INTERFACE_VARIABLES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")
"""The variables in which gloo and NCCL look for `cluster.network_interface`."""


def _export_of_old(value: Any) -> Any:
    """What checkpoint.export was before there was a choice."""
    return {"True": "last", "False": "none"}.get(str(value).capitalize(), value)


@dataclass
class GroupSettings:
    """One group of Ray actors."""

    num_workers: PositiveInt = 1
    """Actors in the group: ZeRO-3 ranks, vLLM engines, copies of a model."""
    min_workers: PositiveInt | None = None
    """Fewest actors to start with where not all of them get their resources within cluster.placement_timeout_seconds, as after
    the loss of a node; null: all."""
    cpus_per_worker: NonNegativeFloat = 1.0
    """CPUs each actor reserves in Ray; fractions are fine."""
    gpus_per_worker: NonNegativeFloat = 0.0
    """GPUs each actor reserves; a rollout worker reserves this times tensor_parallel_size."""
    threads_per_worker: PositiveInt = 1
    """OpenMP threads of each actor."""
    strategy: Strategy | None = None
    """How the group's workers lie on the nodes; null: cluster.strategy."""
    node_labels: dict[Text, Text] = field(default_factory=dict)
    """Labels (`ray start --labels`) of the nodes that the group may lie on. Example: {role: train}."""
    resources: dict[Text, Annotated[Float, Field(ge=0.0001)]] = field(default_factory=dict)
    """Custom resources (`ray start --resources`) that each actor reserves besides. Example: {trainer: 0.01}."""

    @rule
    def _keys_go_together(self) -> None:
        for resource in {"CPU", "GPU"} & set(self.resources):
            raise Conflict(f"resources={resource}: is Ray's own; use {resource.lower()}s_per_worker")
        if self.min_workers is not None and self.min_workers > self.num_workers:
            raise Conflict(f"min_workers={self.min_workers}: is above num_workers={self.num_workers}; lower it")


@dataclass
class ClusterSettings:
    """Machines and groups: conf/cluster. With conf/rollout what differs between a laptop and a cluster."""

    name: Text = "laptop"
    """Name of the layout."""
    device: Device = "cpu"
    """Where the models live."""
    peak_tflops: PositiveFloat | None = None
    """What one GPU (with device=cpu one worker) can do at most, in 10^12 operations a second of model.dtype, dense: speed/mfu_* is
    the share of it. null: by the GPU's name in bfloat16; without a figure there is no speed/mfu_*."""
    address: Text | None = None
    """Ray cluster to join (auto, host:port); null starts a local one unless a Ray job or RAY_ADDRESS names one."""
    local_num_cpus: PositiveInt | None = None
    """Logical CPUs of a local Ray; null: as many as the machine has."""
    policy: GroupSettings = field(default_factory=GroupSettings)
    """Trainer ranks (DeepSpeed ZeRO-3)."""
    rollout: GroupSettings = field(default_factory=GroupSettings)
    """vLLM engines."""
    reference: GroupSettings = field(default_factory=GroupSettings)
    """Frozen reference; not started when kl.placement=none."""
    reward: GroupSettings = field(default_factory=GroupSettings)
    """Reward scorers."""
    colocate: list[list[Group]] = field(default_factory=list)
    """Sets of groups whose i-th workers share one bundle (and its GPU); vLLM sleeps while the policy trains."""
    strategy: Strategy = "PACK"
    """How each group's workers lie on the nodes: on as few as possible (PACK), on one (STRICT_PACK), on as many as possible
    (SPREAD), on one each (STRICT_SPREAD)."""
    expected_nodes: PositiveInt | None = None
    """Nodes that the cluster will have, its head among them: until so many have joined, a layout that does not fit is waited
    for; null: those that are there, and what they can never hold is refused at once."""
    network_interface: Text | None = None
    """Interface over which workers on several nodes meet and talk (gloo, NCCL), e.g. eth0; null: the one of the address by which
    Ray knows each node."""
    placement_timeout_seconds: Annotated[Float, Field(ge=0.1)] = 45.0
    """Limit for getting the resources; the error prints what was asked for and what the cluster has."""
    start_timeout_seconds: Annotated[Float, Field(ge=0.1)] = 900.0
    """Limit for loading the models."""
    call_timeout_seconds: Annotated[Float, Field(ge=0.1)] = 1800.0
    """Limit of any other call to a worker."""
    silent_seconds: Annotated[Float, Field(ge=5)] = 30.0
    """Seconds without a heartbeat after which a worker whose process is stopped (SIGSTOP, a debugger) counts as hung and is
    killed. An engine, a reward or a whole reference is replaced; a trainer rank ends or restarts the run."""
    stall_seconds: Annotated[Float, Field(ge=1)] = 300.0
    """The same for a worker that makes no progress, whether it beats or not: so long at least, ten times its longest micro-batch,
    engine step or call of the kind so far (scaled to larger sizes), and start_timeout_seconds for the first of a kind. A call
    that tells no such pieces (a save, an export, a reward in Python) has call_timeout_seconds."""


def num_gpus(cluster: ClusterSettings, tensor_parallel_size: int, groups: Iterable[str]) -> float:
    """GPUs that the groups reserve; parts of one, as in a colocated set, add up."""
    total = 0.0
    for name in groups:
        group = getattr(cluster, name)
        total += group.num_workers * group.gpus_per_worker * (tensor_parallel_size if name == "rollout" else 1)
    return round(total, 6)


def devices(cluster: ClusterSettings, tensor_parallel_size: int, group: str) -> int:
    """GPUs that a group computes on, with others or alone; on the CPU, or of a group without a GPU, its workers."""
    settings: GroupSettings = getattr(cluster, group)
    count = settings.num_workers * (tensor_parallel_size if group == "rollout" else 1)
    each = settings.gpus_per_worker
    if each == 0 or each >= 1 or any(group in together for together in cluster.colocate):
        return count
    return -(-count // int(1 / each))  # workers that reserve a part of a GPU share it


@dataclass
class CheckpointSettings:
    """Checkpoints in RUN/checkpoints."""

    every_updates: NonNegativeInt = 50
    """Save every so many updates, and at the end; 0: only at the end."""
    every_minutes: Annotated[Float, Field(ge=0.01)] | None = None
    """Save also when so many minutes have passed since the last checkpoint, after a whole iteration; null: by updates alone."""
    stop_after_minutes: Annotated[Float, Field(ge=0.01)] | None = None
    """Save and leave before so many minutes have passed since the command began, for jobs with a time limit: no iteration is
    begun that, at the pace of the longest so far, would end later. Exit status 75; the same command goes on. null: no limit."""
    keep_last: PositiveInt = 2
    """Most recent checkpoints to keep."""
    best_metric: Text | None = None
    """Metric whose best checkpoint is kept besides, written whenever the metric is measured after update 0; null: none.
    Example: evaluation/safety."""
    best_mode: Literal["max", "min"] = "max"
    """Whether a larger or a smaller best_metric is better."""
    resume: Text = "auto"
    """auto: go on from the newest whole checkpoint of the run folder, if any. never: refuse a folder that has one. Or
    the folder of a checkpoint."""
    allow_changes: bool = False
    """Resume although the configuration or the data changed; the difference is logged. What was trained before stays of the old
    values, so that the result is of neither configuration and comparable with no run of them."""
    export: Annotated[Literal["last", "best", "both", "none"], BeforeValidator(_export_of_old)] = "last"
    """What is written as a Hugging Face folder at the end: the last weights, the best ones by best_metric, both (the best
    into RUN/export-best), none. The others go to RUN/export. true and false mean last and none. `lrm-safety export` writes
    those of any checkpoint later."""

    @rule
    def _keys_go_together(self) -> None:
        if self.best_metric is None:
            if self.export in ("best", "both"):
                raise Conflict(f"export={self.export}: needs checkpoint.best_metric, which says what is best")
            nothing_reads(self, ["best_mode"], "with checkpoint.best_metric=null; set it")


@dataclass
class TrackerSettings:
    """W&B of any command: conf/tracking (docs/tracking.md)."""

    wandb: Literal["offline", "online", "disabled"] = "offline"
    """W&B mode; offline needs no account (`wandb sync` later); if W&B cannot be reached the run goes on offline."""
    project: Text = "lrm_safety"
    """W&B project."""
    entity: Text | None = None
    """W&B team or user."""
    name: Text | None = None
    """Name of the run in W&B; null: run.name, followed under -m by the overrides that tell this run from the others."""
    group: Text | None = None
    """W&B group; null: under -m run.name, with what differs besides the seed where seeds are swept; otherwise none."""
    job_type: Text | None = None
    """W&B job type; null: train, sft, evaluate, audit, analyze or reward, as the command is."""
    tags: list[Text] = field(default_factory=list)
    """W&B tags."""
    notes: Text | None = None
    """W&B notes: a description of the run, in Markdown."""
    system_metrics: bool = False
    """Sample CPU, memory, disk, network and GPUs of the controller's machine into W&B. tracking=online switches it on."""
    console_log: bool = False
    """Keep what the command prints in W&B's log tab."""


@dataclass
class TrackingSettings(TrackerSettings):
    """Metrics, console, W&B: conf/tracking. metrics.jsonl is always written."""

    log_text: bool = False
    """Log prompts and responses as text. Off: hashes, lengths and scores only, since the text may be harmful."""
    table_rows: NonNegativeInt = 8
    """Rollouts per iteration in the table of samples."""
    table_every: PositiveInt = 10
    """Iterations from which the W&B table takes rollouts: the first, then every so many, and the last."""
    tensorboard: bool = False
    """Write RUN/tensorboard besides, for `tensorboard --logdir outputs`."""
    worker_logs: bool = False
    """Print what the workers print (vLLM, DeepSpeed). Off: it stays in Ray's session folder."""
    console: Literal["auto", "live", "plain", "off"] = "auto"
    """live: progress bar and key metrics. plain: one line an iteration. auto: live on a terminal, otherwise plain."""
    diagnosis: bool = True
    """Look for failure signatures after every record: console, W&B alerts, findings.jsonl (docs/report.md)."""
    diagnosis_min_records: Annotated[Int, Field(ge=2)] = 10
    """Records of training before the diagnosis speaks: with fewer there is no beginning and end to compare."""

    @rule
    def _keys_go_together(self) -> None:
        if not self.diagnosis:
            nothing_reads(self, ["diagnosis_min_records"], "with tracking.diagnosis=false; set it to true")


@dataclass
class RunSettings:
    """Identity of a run."""

    name: Text = "${model.name}-${data.name}-${algorithm.name}"
    """Name of the run; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: Text = DIRECTORY
    """Folder of the run: configuration, metrics, checkpoints, export. Absolute on a cluster with shared storage."""
    objective: Text | None = None
    """Metric whose last value a run of -m gives to a sweeper that searches, such as hydra-optuna-sweeper; null: none. Example:
    evaluation/safety."""
    profile_updates: ProfileUpdates = field(default_factory=list)
    """Updates whose iterations are profiled into RUN/profile: torch's profiler in every trainer rank and engine, and Ray's
    timeline (docs/tracking.md). Such an iteration is slower and learns the same. Example: [3,4]."""
    invariants: Literal["strict", "warn"] = "strict"
    """What a failed self-check does: stop the run, or warn."""
    invariant_tolerance: NonNegativeFloat | None = None
    """|rho - 1| and KL at the first update: 99 % of the tokens within it and the mean within a quarter of it; single tokens
    beyond four times of it are a note. null: 1e-4 in float32, 0.4 in bfloat16 (docs/gpu.md)."""
