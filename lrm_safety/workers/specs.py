"""What each kind of worker is told: the groups of settings that it reads, and no others."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import (
    AlgorithmSettings,
    ClusterSettings,
    LoraSettings,
    ModelSettings,
    RewardSettings,
    RolloutSettings,
    Settings,
    SftSettings,
    TrainerSettings,
)


@dataclass(frozen=True)
class EngineSpec:
    """Rollout engines. `rollout` is read for its engine and its lengths; how a response is sampled comes with the request."""

    model: ModelSettings
    rollout: RolloutSettings
    cluster: ClusterSettings
    """The device, the `rollout` group, who shares GPUs, and limits of time."""
    seed: int
    """The engine's own; requests have theirs."""
    lora: LoraSettings | None = None
    """The policy's adapters where weight syncs may bring them alone; None: they bring every weight."""

    @classmethod
    def of(cls, settings: Settings) -> EngineSpec:
        """The engines of an RL run. Those of an evaluation: `evaluation.engine.engine_spec`."""
        lora = settings.trainer.lora
        return cls(
            settings.model, settings.rollout, settings.cluster, settings.seed, lora if lora.syncs_alone else None
        )


@dataclass(frozen=True)
class PolicySpec:
    """Trainer ranks."""

    model: ModelSettings
    trainer: TrainerSettings
    cluster: ClusterSettings
    """The device, the `policy` group, who shares GPUs, and limits of time."""
    seed: int
    algorithm: AlgorithmSettings | None
    """The policy loss; None: the likelihood of the responses."""
    engines: EngineSpec | None
    """Who samples from these weights and has to be given them; None: nobody."""

    @classmethod
    def of(cls, settings: Settings | SftSettings) -> PolicySpec:
        """The ranks of an RL run, or of a supervised one."""
        if isinstance(settings, Settings):
            algorithm, engines = settings.algorithm, EngineSpec.of(settings)
        else:
            algorithm, engines = None, None
        return cls(settings.model, settings.trainer, settings.cluster, settings.seed, algorithm, engines)

    @property
    def temperature(self) -> float:
        """Of the distribution that log-probs are of: the one that is sampled from; a likelihood is the model's own."""
        return self.engines.rollout.temperature if self.engines else 1.0


@dataclass(frozen=True)
class ReferenceSpec:
    """The frozen reference."""

    model: ModelSettings
    trainer: TrainerSettings
    """`reference_sharding`, what ZeRO-3 needs for it, and the sizes of what is scored at one time."""
    cluster: ClusterSettings
    """The device, the `reference` group, and limits of time."""
    seed: int
    temperature: float
    """Of the policy's log-probs, which its own are compared with."""

    @classmethod
    def of(cls, settings: Settings) -> ReferenceSpec:
        """The reference of an RL run."""
        return cls(settings.model, settings.trainer, settings.cluster, settings.seed, settings.rollout.temperature)


@dataclass(frozen=True)
class RewardSpec:
    """Reward scorers."""

    reward: RewardSettings
    """Its `models`; shaping is the controller's."""
    cluster: ClusterSettings
    """The device, the `reward` group, and limits of time."""

    @classmethod
    def of(cls, settings: Settings) -> RewardSpec:
        """The scorers of an RL run."""
        return cls(settings.reward, settings.cluster)
