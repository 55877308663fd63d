"""The typed configuration: what conf/ may say, checked before any actor starts."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from .components import (
    DataSettings,
    EvaluationSetSettings,
    EvaluationSettings,
    ModelSettings,
    RewardModelSettings,
    RewardSettings,
)
from .system import CheckpointSettings, ClusterSettings, GroupSettings, RunSettings, TrackingSettings
from .training import AlgorithmSettings, KLSettings, RolloutSettings, ScheduleSettings, TrainerSettings


@dataclass
class Settings:
    """The whole resolved configuration of one run."""

    run: RunSettings = field(default_factory=RunSettings)
    """Identity of the run."""
    seed: int = 0
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


__all__ = [
    "AlgorithmSettings",
    "CheckpointSettings",
    "ClusterSettings",
    "DataSettings",
    "EvaluationSetSettings",
    "EvaluationSettings",
    "GroupSettings",
    "KLSettings",
    "ModelSettings",
    "RewardModelSettings",
    "RewardSettings",
    "RolloutSettings",
    "RunSettings",
    "ScheduleSettings",
    "Settings",
    "TrackingSettings",
    "TrainerSettings",
]
