"""One member of the reward group: a copy of every reward model, scoring what the controller sends."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import credentials
from ..errors import RewardError
from ..modeling import distributed
from ..progress import tells_phases
from ..quick_imports import release
from ..rewards.conversation import Conversation
from ..rewards.scorer import PrefixScores, Scores, build_scorer
from .specs import RewardSpec

if TYPE_CHECKING:
    from ..rewards.scorer import RewardMixture


@tells_phases
class RewardWorker:
    """Scores conversations. Equal batches give equal scores; which conversations form a batch is the caller's
    choice."""

    def __init__(self, spec: RewardSpec) -> None:
        self._spec = spec
        cluster = spec.cluster
        # Ray hides no GPU from a worker that reserved none, so the reservation decides.
        self._device = "cuda" if cluster.device == "cuda" and cluster.reward.gpus_per_worker > 0 else "cpu"
        self._mixture: RewardMixture | None = None

    def start(self) -> None:
        """Load the reward models. Raises ConfigError or ModelError."""
        credentials.load()
        self._mixture = build_scorer(self._spec.reward, self._device)  # each kind imports what it needs
        release()

    def score(
        self, conversations: list[Conversation], prefixes: Sequence[Sequence[Conversation]] | None = None
    ) -> Scores:
        """Raw scores, [n] in the order given, and those of each one's prefixes if there are any. Raises RewardError.

        The prefixes form a batch of their own: whether there are any changes no score of a response.
        """
        if self._mixture is None:
            raise RewardError("the reward worker was asked for scores before start()")
        started = time.perf_counter()
        scores = self._mixture.score(conversations)
        if prefixes is not None:
            responses_done = time.perf_counter()
            by_response = self._mixture.score_prefixes(prefixes)
            seconds = time.perf_counter() - responses_done
            scores = replace(scores, prefixes=PrefixScores(by_response, seconds, responses_done - started))
        if self._spec.cluster.reward.gpus_per_worker < 1:  # whoever shares the GPU may need the room
            distributed.release_cached_memory()
        return scores

    def memory(self) -> dict[str, float]:
        """`rss_gib`, `rss_peak_gib` and on CUDA `cuda_peak_gib` of this process."""
        return distributed.memory_usage()
