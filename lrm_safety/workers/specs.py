"""What each kind of worker is told: the groups of settings that it reads, and no others."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import ClusterSettings, ModelSettings, RolloutSettings, Settings


@dataclass(frozen=True)
class EngineSpec:
    """Rollout engines. `rollout` is read for its engine and its lengths; how a response is sampled comes with the request."""

    model: ModelSettings
    rollout: RolloutSettings
    cluster: ClusterSettings
    """The device, the `rollout` group, who shares GPUs, and limits of time."""
    seed: int
    """The engine's own; requests have theirs."""

    @classmethod
    def of(cls, settings: Settings) -> EngineSpec:
        """The engines of an RL run. Those of an evaluation: `evaluation.engine.engine_spec`."""
        return cls(settings.model, settings.rollout, settings.cluster, settings.seed)
