"""What a training command says before it starts anything: the plan held against this machine."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from dataclasses import replace

import psutil

from ...errors import ConfigError, ModelError
from ...settings import Settings
from .assumptions import Assumptions
from .memory import GIB
from .plan import Plan, plan, refuse_what_cannot_fit

USABLE = 0.995
"""Share of what the driver reports that a process can use: 79.2 of the 79.6 GiB of an H100 of 80 GB."""
MAMBA_KERNELS = ("mamba_ssm", "causal_conv1d")


def cautions(settings: Settings) -> list[str]:
    """Lines on what will probably not fit, naming the key to change, and on Mamba layers that will run slowly.

    Empty where all is well, or where nothing can be told because the model's shape or the GPUs' memory is not known here.
    Raises ConfigError where it is certain: weights and optimiser states alone are more than a GPU holds. Of a cluster that
    the run joins nothing is certain: its GPUs need not be like this machine's.
    """
    assumed = Assumptions()
    on_gpu = settings.cluster.device == "cuda"
    gpu_gib = gpu_memory_gib() if on_gpu else None
    if gpu_gib is not None:
        assumed = replace(assumed, gpu_memory_gib=gpu_gib * USABLE)
    try:
        planned = plan(settings, assumed)
    except (ConfigError, ModelError):
        return []
    lines = _slow_mamba(settings) if on_gpu and planned.policy.mamba_heads else []
    if on_gpu and gpu_gib is None:
        return lines
    try:
        refuse_what_cannot_fit(planned, settings, psutil.virtual_memory().total)
    except ConfigError as error:
        joined = (settings.cluster.address or os.environ.get("RAY_ADDRESS") or "local") != "local"
        if not joined and _certainly(planned, settings):
            raise
        lines.append(f"{error} (an estimate; `lrm-safety plan` with the same arguments shows it)")
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
    """Memory of this machine's smallest GPU as its driver reports it; None where there is none. CUDA itself is not asked:
    that would take some of it."""
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
        return min(float(line) for line in answer.split("\n") if line.strip()) / 1024
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def _certainly(planned: Plan, settings: Settings) -> bool:
    """Whether no assumption is needed to see that it cannot fit."""
    room = planned.assumed.gpu_memory_gib * GIB
    engine = planned.groups["rollout"].parts["weights"]
    too_small = engine > settings.rollout.gpu_memory_utilization * room
    return settings.cluster.device == "cuda" and (too_small or any(one.stored_bytes > room for one in planned.shares))
