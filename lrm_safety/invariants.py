"""What a run checks by itself (docs/reinforce_plus_plus.md, self-checks); `run.invariants` says whether a failure stops it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .errors import InvariantError
from .experience import RolloutBatch
from .rollouts import TokenIds, TrainingSequence, Update
from .settings import RolloutSettings, RunSettings

if TYPE_CHECKING:
    from .workers.groups import Groups

PROBE_SEQUENCES, PROBE_TOKENS = 4, 128
"""The probe: small enough to cost a fraction of a second."""


class SelfChecks:
    """The checks, with what to do about a failure."""

    def __init__(self, settings: RunSettings, warn: Callable[[str], None]) -> None:
        self._strict = settings.invariants == "strict"
        assert settings.invariant_tolerance is not None, "preparation states it"
        self._tolerance = settings.invariant_tolerance
        self._warn = warn

    def starts_at_reference(self, update: int, batch: RolloutBatch) -> None:
        """Before the first update the policy is the reference: their log-probs agree token by token, as soon as known."""
        if update > 0 or not batch.reference or not batch.policy:
            return
        gap = batch.flat(batch.policy, "logprobs") - batch.flat(batch.reference, "logprobs")
        self._require(
            float(gap.abs().max()),
            self._tolerance,
            "KL(policy, reference) is not 0 before the first update; model.path and the reference must be the same weights "
            "(or state run.invariant_tolerance for this dtype)",
        )

    @staticmethod
    def finite(update: int, updates: Sequence[Update]) -> None:
        """Loss and gradient of every step are numbers; this one is never only a warning.

        Args:
            update: updates done before `updates`.
        """
        for number, step in enumerate(updates, start=update + 1):
            if not math.isfinite(step.gradient_norm) or not math.isfinite(step.loss):
                raise InvariantError(
                    f"update {number}: loss or gradient is NaN or infinite; no such step was taken; lower trainer.lr, or "
                    "resume from the last checkpoint"
                )

    def ratio_is_one(self, update: Update, sequences: Sequence[TrainingSequence]) -> None:
        """The first update on fresh rollouts starts from the policy that sampled: rho = 1 for every token."""
        gaps = [
            np.abs(np.expm1(update.scores[sequence.index].logprobs - sequence.old_logprobs)).max()
            for sequence in sequences
            if sequence.old_logprobs is not None
        ]
        self._require(
            float(np.max([0.0, *gaps])),  # unlike max(), np.max does not lose a NaN
            self._tolerance,
            "rho is not 1 at the first update of a rollout batch: two forward passes of the same weights differ "
            "(state run.invariant_tolerance for this dtype)",
        )

    def after_sync(
        self, groups: Groups, version: int, sequences: Sequence[TokenIds], settings: RolloutSettings
    ) -> dict[str, float]:
        """Prove by version and, every `probe_every_syncs`, by probe that the engines hold what the trainer holds."""
        self.versions_agree(groups.rollout.weights_versions(), version)
        if not settings.probe_every_syncs or version % settings.probe_every_syncs:
            return {}
        longest = min(PROBE_TOKENS, settings.max_prompt_tokens + settings.max_response_tokens - 1)
        probe = [ids[:longest] for ids in sequences[:PROBE_SEQUENCES]]
        engines, trainer = groups.rollout.probe(probe), groups.policy.probe_scores(probe)
        assert settings.probe_tolerance is not None, "preparation states it"
        return {"sync/probe_max_abs": self.probe_agrees(engines, trainer, settings.probe_tolerance)}

    def versions_agree(self, engines: Sequence[int], trainer: int) -> None:
        """After a weight sync every engine states the trainer's version."""
        if any(version != trainer for version in engines):
            self._fail(f"rollout engines hold weights versions {sorted(set(engines))}, the trainer published {trainer}")

    def probe_agrees(
        self, engines: Sequence[Sequence[np.ndarray]], trainer: Sequence[np.ndarray], tolerance: float
    ) -> float:
        """After a weight sync engine and trainer give the probe the same log-probs; returns the largest difference."""
        gap = float(
            np.max([np.abs(seen - own).max() for engine in engines for seen, own in zip(engine, trainer, strict=True)])
        )
        self._require(
            gap,
            tolerance,
            "the engines do not compute what the trainer does after a weight sync (rollout.probe_tolerance)",
        )
        return gap

    def _require(self, value: float, tolerance: float, message: str) -> None:
        if not value <= tolerance:  # NaN fails too
            self._fail(f"{message}: largest difference {value:.3g}, tolerance {tolerance:g}")

    def _fail(self, message: str) -> None:
        if self._strict:
            raise InvariantError(f"{message}; run.invariants=warn goes on all the same")
        self._warn(f"self-check failed: {message}")
