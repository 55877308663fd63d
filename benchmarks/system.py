"""The policy and rollout groups of one model, started when first used: one trainer rank, one engine."""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import ray

from lrm_safety.preparation import resolved
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import join_ray
from lrm_safety.workers.placement import Placement, release, reserve
from lrm_safety.workers.policy_group import PolicyGroup
from lrm_safety.workers.rollout_group import RolloutGroup
from lrm_safety.workers.specs import EngineSpec, PolicySpec

EXPERIMENTS = {"miniature": "miniature", "smollm2": "smollm2_star1"}
SIZES: dict[str, dict[str, int]] = {
    "miniature": {"rollout.stream_chunk_size": 16},
    "smollm2": {},
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
    return resolved(settings)


def without_end_token(folder: Path, copy: Path) -> Path:
    """The same model, of which vLLM knows no end-of-sequence token: every response then has the length asked for.

    vLLM stops at the checkpoint's own end token whatever stop tokens a request names. The weights are linked.
    """
    copy.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        target = copy / file.name
        target.unlink(missing_ok=True)
        if file.name in ("config.json", "generation_config.json"):
            values = json.loads(file.read_text(encoding="utf-8"))
            target.write_text(json.dumps(values | {"eos_token_id": None}), encoding="utf-8")
        else:
            target.symlink_to(file.absolute())
    return copy


class System:
    """Both groups of one model, as a context manager: no actor outlives it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._placements: list[Placement] = []
        self._groups: list[PolicyGroup | RolloutGroup] = []

    @cached_property
    def policy(self) -> PolicyGroup:
        """The policy group, started."""
        group = PolicyGroup(PolicySpec.of(self.settings), self._place("policy"), lambda: None)
        self._groups.append(group)
        group.start()
        return group

    @cached_property
    def rollout(self) -> RolloutGroup:
        """The rollout group, started."""
        return self.another_rollout()

    def another_rollout(self, **changes: Any) -> RolloutGroup:
        """One more rollout group, started, its spec with changes."""
        spec = replace(EngineSpec.of(self.settings), **changes)
        group = RolloutGroup(spec, self._place("rollout"), lambda: None)
        self._groups.append(group)
        group.start()
        return group

    def _place(self, name: str) -> Placement:
        if not ray.is_initialized():
            join_ray(self.settings.cluster)
        placement = reserve([name], self.settings.cluster)[name]
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
        self.overrides = overrides
        """Of the command line."""
        self._running: tuple[str, System] | None = None
        self._folder = tempfile.TemporaryDirectory()

    def settings(self, model: str) -> Settings:
        """Settings of `miniature` or `smollm2`, without end token; converts SmolLM2 when it is not there yet."""
        settings = settings_of(model, self._threads, self.overrides)
        endless = without_end_token(Path(settings.model.path), Path(self._folder.name, model))
        return replace(settings, model=replace(settings.model, path=str(endless)))

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
