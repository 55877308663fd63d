"""The policy and rollout groups of one model, started when first used: one trainer rank, one engine."""

from __future__ import annotations

from functools import cached_property

import ray

from lrm_safety.preparation import resolve_paths
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import join_ray
from lrm_safety.workers.placement import Placement, release, reserve
from lrm_safety.workers.policy_group import PolicyGroup
from lrm_safety.workers.rollout_group import RolloutGroup

EXPERIMENTS = {"miniature": "miniature", "smollm2": "smollm2_star1"}
SIZES = {
    "miniature": {"rollout.stream_chunk_size": 16},
    # As the experiment, with micro-batches small enough for several rounds within a minute.
    "smollm2": {"trainer.micro_batch_tokens": 512},
}


def settings_of(model: str, threads: int, overrides: list[str]) -> Settings:
    """Settings of a model's ready-made experiment at one rank and one engine; `overrides` come last."""
    wanted = {
        **SIZES[model],
        "cluster.policy.num_workers": 1,
        "cluster.rollout.num_workers": 1,
        "cluster.colocate": "[]",
        "cluster.policy.threads_per_worker": threads,
        "cluster.rollout.threads_per_worker": threads,
    }
    forced = [f"{key}={value}" for key, value in wanted.items()]
    settings, _ = compose_settings([f"experiment={EXPERIMENTS[model]}", *forced, *overrides])
    return resolve_paths(settings)


class System:
    """Both groups of one model, as a context manager: no actor outlives it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._placements: list[Placement] = []
        self._groups: list[PolicyGroup | RolloutGroup] = []

    @cached_property
    def policy(self) -> PolicyGroup:
        """The policy group, started."""
        group = PolicyGroup(self.settings, self._place("policy"), lambda: None)
        self._groups.append(group)
        group.start()
        return group

    @cached_property
    def rollout(self) -> RolloutGroup:
        """The rollout group, started."""
        group = RolloutGroup(self.settings, self._place("rollout"), lambda: None)
        self._groups.append(group)
        group.start()
        return group

    def _place(self, name: str) -> Placement:
        if not ray.is_initialized():
            join_ray(self.settings)
        placement = reserve([name], self.settings)[name]
        self._placements.append(placement)
        return placement

    def end(self) -> None:
        """Kill every actor, give the reservations back, leave Ray."""
        for group in self._groups:
            group.end()
        release([placement.placement_group for placement in self._placements])
        self._groups, self._placements = [], []
        if ray.is_initialized():
            ray.shutdown()


class Systems:
    """At most one running system: asking for another model ends the one before."""

    def __init__(self, threads: int, overrides: list[str]) -> None:
        self._threads = threads
        self._overrides = overrides
        self._running: tuple[str, System] | None = None

    def settings(self, model: str) -> Settings:
        """Settings of `miniature` or `smollm2`; converts SmolLM2 when it is not there yet."""
        return settings_of(model, self._threads, self._overrides)

    def get(self, model: str) -> System:
        """The system of a model."""
        if self._running is None or self._running[0] != model:
            self.end()
            self._running = (model, System(self.settings(model)))
        return self._running[1]

    def end(self) -> None:
        """End what runs."""
        if self._running is not None:
            self._running[1].end()
            self._running = None
