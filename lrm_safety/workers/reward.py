"""One member of the reward group: a copy of every reward model, scoring what the controller sends."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from lrm_safety.errors import RewardError
from lrm_safety.rewards import Conversation, Scores, build_scorer
from lrm_safety.settings import Settings

if TYPE_CHECKING:
    from lrm_safety.rewards import RewardMixture

GIB = 1024.0**3


class RewardWorker:
    """Scores conversations. Equal batches give equal scores; which conversations form a batch is the caller's
    choice."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        cluster = settings.cluster
        # Ray hides no GPU from a worker that reserved none, so the reservation decides.
        self._device = "cuda" if cluster.device == "cuda" and cluster.reward.gpus_per_worker > 0 else "cpu"
        self._mixture: RewardMixture | None = None

    def start(self) -> dict[str, float]:
        """Load the reward models; returns `load_seconds`. Raises ConfigError or ModelError."""
        began = time.monotonic()
        self._mixture = build_scorer(self._settings.reward, self._device)
        return {"load_seconds": time.monotonic() - began}

    def score(self, conversations: list[Conversation]) -> Scores:
        """Raw scores, [n] in the order given. Raises RewardError."""
        if self._mixture is None:
            raise RewardError("the reward worker was asked for scores before start()")
        return self._mixture.score(conversations)

    def memory(self) -> dict[str, float]:
        """Resident memory of the process and, on CUDA, its peak of device memory since the start, in GiB."""
        import psutil

        report = {"rss_gib": psutil.Process().memory_info().rss / GIB, "cuda_peak_gib": 0.0}
        if self._device == "cuda":
            import torch

            report["cuda_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
        return report
