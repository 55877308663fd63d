"""How fast an iteration was: tokens a second and a GPU, the share of the GPUs' peak (MFU), the share of the time at work.

Names of metrics as in monitoring/registry.py; docs/tracking.md says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .modeling.cards import peak_flops
from .modeling.flops import forward_flops, generation_flops, update_flops
from .modeling.shapes import adapter_parameters, shape_if_known
from .settings import ClusterSettings, Settings, SftSettings
from .settings.system import devices, num_gpus

PHASES = {"generate": "rollout", "logprobs": "policy", "update": "policy"}
"""Phases that read or make every token of an iteration, and the group that does."""
BESIDE = ("startup", "evaluate", "checkpoint", "profile")
"""Phases that are no part of an iteration, though they lie between two records."""
IDLE = ("startup", "profile")
"""Those of them in which no worker is at work, as far as that is counted."""


class Speed:
    """Measures iterations on one layout."""

    def __init__(
        self, settings: Settings | SftSettings, cluster: ClusterSettings, cards: Mapping[str, str | None]
    ) -> None:
        """`cluster` is the layout as it was started, `cards` the groups of the run and the name of each one's GPUs."""
        rollout = settings.rollout if isinstance(settings, Settings) else None
        # What is computed while others sample has no time of its own.
        beside = isinstance(settings, Settings) and settings.trainer_waits_for_samples
        self._phases = {phase: group for phase, group in PHASES.items() if phase != "logprobs" or not beside}
        parallel = rollout.tensor_parallel_size if rollout else 1
        self._shape = shape_if_known(settings.model.path)
        self._adapters = adapter_parameters(self._shape, settings.trainer.lora) if self._shape else 0
        self._shares_prompts = rollout is not None and rollout.enable_prefix_caching
        self._on_gpu = cluster.device == "cuda"
        self._devices = {group: devices(cluster, parallel, group) for group in cards}
        self._num_gpus = num_gpus(cluster, parallel, cards)
        self._peaks = {group: _peak(cluster, card) for group, card in cards.items()}
        self._apart = self._on_gpu and all(getattr(cluster, group).gpus_per_worker in (0, 1) for group in cards)
        self._gpu_groups = [group for group in cards if getattr(cluster, group).gpus_per_worker > 0]

    def metrics(
        self,
        prompts: Sequence[int],
        responses: Sequence[int],
        seconds: Mapping[str, float],
        work: Mapping[str, Sequence[float]],
        prompt_indices: Sequence[int] = (),
    ) -> dict[str, float]:
        """Of one iteration.

        Args:
            prompts, responses: tokens of each sequence.
            seconds: what `Phases.take` gave.
            work: see `Usage.work`.
            prompt_indices: of each sequence, the row of its prompt; only what was generated has one.
        """
        tokens, found = sum(responses), dict[str, float]()
        operations = self._operations(np.asarray(prompts), np.asarray(responses), prompt_indices)
        for phase, group in self._phases.items():
            lasted = seconds.get(f"time/{phase}_seconds", 0.0)
            if not lasted:
                continue
            found |= self._rate(f"speed/{phase}_tokens_per_second", tokens / lasted, self._devices[group])
            peak = self._peaks[group]
            if peak is not None and operations:
                found[f"speed/mfu_{phase}"] = operations[phase] / (lasted * self._devices[group] * peak)

        def without(phases: Sequence[str]) -> float:
            beside = sum(seconds.get(f"time/{phase}_seconds", 0.0) for phase in phases)
            return seconds["time/iteration_seconds"] - beside

        found |= self._rate("speed/tokens_per_second", tokens / without(BESIDE), self._num_gpus)
        return found | self._busy(work, without(IDLE))

    def _rate(self, name: str, value: float, gpus: float) -> dict[str, float]:
        """For the whole group and, on CUDA, for one of its GPUs."""
        return {name: value} | ({f"{name}_per_gpu": value / gpus} if self._on_gpu else {})

    def _operations(
        self, prompts: np.ndarray, responses: np.ndarray, prompt_indices: Sequence[int]
    ) -> dict[str, float]:
        """By phase; empty where the model's shape is not known."""
        if self._shape is None:
            return {}
        is_first = np.ones(len(prompts), dtype=bool)
        if self._shares_prompts and len(prompt_indices):
            is_first[:] = False
            is_first[np.unique(np.asarray(prompt_indices), return_index=True)[1]] = True
        lengths = prompts + responses
        return {
            "generate": generation_flops(self._shape, prompts, responses, is_first=is_first),
            "logprobs": forward_flops(self._shape, lengths, responses, adapters=self._adapters),
            "update": update_flops(self._shape, lengths, responses, adapters=self._adapters),
        }

    def _busy(self, work: Mapping[str, Sequence[float]], seconds: float) -> dict[str, float]:
        shares = {group: sum(one) / len(one) / seconds for group, one in work.items()}
        found = {f"speed/busy_{group}": share for group, share in shares.items()}
        if self._apart and all(group in shares for group in self._gpu_groups):
            gpus = sum(self._devices[group] for group in self._gpu_groups)
            found["speed/busy_gpus"] = sum(shares[group] * self._devices[group] for group in self._gpu_groups) / gpus
        return found


def _peak(cluster: ClusterSettings, card: str | None) -> float | None:
    """Operations a second of one device; None: not known."""
    if cluster.peak_tflops is not None:
        return cluster.peak_tflops * 1e12
    return peak_flops(card) if card else None
