"""The typed configuration: what conf/ may say, checked before any actor starts."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from .analysis import AnalysisSettings, AnalyzedModelSettings, AnalyzeRunSettings, AnalyzeSettings
from .components import (
    DataSettings,
    ModelSettings,
    RewardModelSettings,
    RewardSettings,
    SegmentSettings,
)
from .evaluation import (
    BenchmarkSettings,
    EndpointSettings,
    EvaluatedModelSettings,
    EvaluateRunSettings,
    EvaluationSettings,
    JudgeSettings,
)
from .sft import SftRunSettings, SftScheduleSettings, SftSettings, SupervisedSettings
from .system import CheckpointSettings, ClusterSettings, GroupSettings, RunSettings, TrackerSettings, TrackingSettings
from .training import AlgorithmSettings, KLSettings, LoraSettings, RolloutSettings, ScheduleSettings, TrainerSettings
from .types import Seed, Whole


@dataclass
class Settings(Whole):
    """The whole resolved configuration of one run."""

    run: RunSettings = field(default_factory=RunSettings)
    """Identity of the run."""
    seed: Seed = 0
    """Seed of everything random: prompt order, sampling, initialisation of new weights."""
    model: ModelSettings = MISSING
    """The policy and, frozen, the reference."""
    reward: RewardSettings = MISSING
    """Reward models and shaping."""
    data: DataSettings = MISSING
    """Training prompts."""
    algorithm: AlgorithmSettings = field(default_factory=AlgorithmSettings)
    """REINFORCE++ and relatives."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    """Length of the run."""
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    """Optimiser and ZeRO-3."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """Sampling and engines."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Machines and groups."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Evaluation during training."""
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    """Checkpoints and resume."""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    """Metrics, console, W&B."""

    @property
    def answers_later(self) -> bool:
        """Whether engines are asked now and answer later, instead of sampling a batch that is dealt to them."""
        return self.algorithm.max_staleness > 0 or self.rollout.dispatch == "as_slots_free"

    @property
    def trainer_waits_for_samples(self) -> bool:
        """Whether the trainer has nothing to do while responses are sampled, and devices of its own to do it on.

        A chunk has to hold a row for every rank: with fewer, all would gather every weight to score what a few of them read.
        """
        rows = self.cluster.policy.num_workers // self.trainer.sequence_parallel_size
        is_free = not self.algorithm.max_staleness and not any("policy" in shared for shared in self.cluster.colocate)
        return is_free and self.rollout.stream_chunk_size >= rows


@dataclass
class EvaluateSettings(Whole):
    """The whole resolved configuration of `lrm-safety evaluate`."""

    run: EvaluateRunSettings = field(default_factory=EvaluateRunSettings)
    """Identity of the evaluation."""
    seed: Seed = 0
    """Seed of sampling and bootstrap: what `evaluation.seed` is unless it is given itself."""
    model: EvaluatedModelSettings = MISSING
    """The model to be measured."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """Benchmarks, judges, protocol."""
    rollout: RolloutSettings = field(default_factory=RolloutSettings)
    """The engine; sampling keys of this group are not read (evaluation.protocol)."""
    tracking: TrackerSettings = field(default_factory=TrackerSettings)
    """W&B; conf/evaluate.yaml disables it."""


__all__ = [
    "AlgorithmSettings",
    "AnalysisSettings",
    "AnalyzeRunSettings",
    "AnalyzeSettings",
    "AnalyzedModelSettings",
    "BenchmarkSettings",
    "CheckpointSettings",
    "ClusterSettings",
    "DataSettings",
    "EndpointSettings",
    "EvaluateRunSettings",
    "EvaluateSettings",
    "EvaluatedModelSettings",
    "EvaluationSettings",
    "GroupSettings",
    "JudgeSettings",
    "KLSettings",
    "LoraSettings",
    "ModelSettings",
    "RewardModelSettings",
    "RewardSettings",
    "RolloutSettings",
    "RunSettings",
    "ScheduleSettings",
    "SegmentSettings",
    "Settings",
    "SftRunSettings",
    "SftScheduleSettings",
    "SftSettings",
    "SupervisedSettings",
    "TrackerSettings",
    "TrackingSettings",
    "TrainerSettings",
]
