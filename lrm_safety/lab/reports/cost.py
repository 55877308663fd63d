"""What a run cost: seconds, tokens and GPU-hours, summed over its metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .folders import EvaluationRun, TrainingRun

GROUPS = ("policy", "rollout", "reference", "reward")


@dataclass(frozen=True)
class Cost:
    """Of one training run. Tokens are None where their speed was not recorded."""

    updates: int
    seconds: float
    phases: Mapping[str, float]
    """Seconds by phase."""
    generated_tokens: float | None
    trained_tokens: float | None
    gpu_hours: float

    @property
    def seconds_after_start(self) -> float:
        """What its iterations took, without the start of their processes, which a resumed run has several times."""
        return self.seconds - self.phases.get("startup", 0.0)


def cost_of(run: TrainingRun) -> Cost:
    """Sum of time/* over all records; tokens are speed times time, phase by phase."""
    phases = {
        name.removeprefix("time/").removesuffix("_seconds"): math.fsum(value for _, value in points)
        for name, points in run.series.items()
        if name.startswith("time/") and name not in ("time/iteration_seconds",)
    }
    seconds = math.fsum(value for _, value in run.series.get("time/iteration_seconds", ())) or math.fsum(
        phases.values()
    )
    return Cost(
        run.updates,
        seconds,
        phases,
        _tokens(run, "speed/generate_tokens_per_second", "time/generate_seconds"),
        _tokens(run, "speed/update_tokens_per_second", "time/update_seconds"),
        seconds / 3600 * num_gpus(run.config),
    )


def _tokens(run: TrainingRun, speed: str, seconds: str) -> float | None:
    lasting = dict(run.series.get(seconds, ()))
    if speed not in run.series:
        return None
    return math.fsum(value * lasting.get(update, 0.0) for update, value in run.series[speed])


def num_gpus(config: Mapping[str, Any]) -> float:
    """GPUs that the run's config.yaml reserves; 0 on the CPU, and where nothing is known.

    As workers/placement.py reserves them: workers of a colocated set add up on the same GPU.
    """
    cluster = config.get("cluster") or {}
    if cluster.get("device") != "cuda":
        return 0.0
    kl = ((config.get("algorithm") or {}).get("kl") or {}).get("placement")
    tensor_parallel = (config.get("rollout") or {}).get("tensor_parallel_size", 1)
    total = 0.0
    for name in GROUPS:
        group = cluster.get(name) or {}
        needed = {"rollout": "rollout" in config, "reward": "reward" in config, "reference": kl not in (None, "none")}
        if needed.get(name, True):
            each = group.get("gpus_per_worker", 0.0) * (tensor_parallel if name == "rollout" else 1)
            total += group.get("num_workers", 0) * each
    return round(total, 6)


def evaluation_seconds(evaluation: EvaluationRun) -> float:
    """Generating, judging, grading and logging of one evaluation."""
    return math.fsum(evaluation.results.seconds.values())
