"""What a run checks by itself (docs/reinforce_plus_plus.md, self-checks); `run.invariants` says whether a failure stops it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from .algorithm.token_statistics import Differences
from .errors import InvariantError
from .experience import RolloutBatch
from .rollouts import TokenIds, TrainingSequence, Update
from .settings import RolloutSettings, RunSettings
from .workers.protocols import Engine, Trainer

PROBE_SEQUENCES, PROBE_TOKENS = 4, 128
"""The probe: small enough to cost a fraction of a second."""

MEAN_SHARE, LARGEST_SHARE = 0.25, 4.0
"""A tolerance bounds the difference of 99 of 100 tokens; a quarter of it bounds the mean, and beyond four times of it the
largest one is worth a word. Two bfloat16 computations of the same weights differ by some 0.05 nats in the mean, 0.2 at the
99 % quantile and, over hundreds of thousands of tokens, by anything at the largest (docs/gpu.md)."""


class SkippedSteps:
    """Updates whose loss or gradient was no finite number: skipped by the trainer, counted here, and so many in a row
    end the run. Whatever `run.invariants` says: a run that learns nothing any more is no run."""

    def __init__(self, most_in_row: int, warn: Callable[[str], None]) -> None:
        self._most = most_in_row
        self._warn = warn
        self._in_row = 0

    def count(self, update: int, updates: Sequence[Update]) -> None:
        """Look at the steps after `update` updates. Raises InvariantError for one skipped step too many in a row."""
        for number, step in enumerate(updates, start=update + 1):
            self._in_row = 0 if step.taken else self._in_row + 1
            if step.taken:
                continue
            text = f"update {number}: loss or gradient is NaN or infinite (loss {step.loss:g}); no such step was taken"
            if self._in_row > self._most:
                raise InvariantError(
                    f"{text}, {self._in_row} in a row (trainer.max_skipped_steps={self._most}); lower trainer.lr, or resume "
                    "from the last checkpoint"
                )
            self._warn(text)


class SelfChecks:
    """The checks, with what to do about a failure."""

    def __init__(self, settings: RunSettings, warn: Callable[[str], None]) -> None:
        self._strict = settings.invariants == "strict"
        assert settings.invariant_tolerance is not None, "preparation states it"
        self._tolerance = settings.invariant_tolerance
        self._warn = warn
        self._said: set[str] = set()

    def starts_at_reference(self, update: int, batch: RolloutBatch) -> None:
        """Before the first update the policy is the reference: their log-probs agree token by token, as soon as known."""
        if update > 0 or not batch.reference or not batch.policy:
            return
        gap = batch.flat(batch.policy, "logprobs") - batch.flat(batch.reference, "logprobs")
        self._require(
            Differences.of(gap.abs()),
            self._tolerance,
            "KL(policy, reference) is not 0 before the first update; model.path and the reference must be the same weights "
            "(or state run.invariant_tolerance for this dtype)",
        )

    def not_too_old(self, batch: RolloutBatch, max_staleness: int) -> None:
        """No token was sampled by weights more than `max_staleness` syncs older than those that learn, nor by newer ones."""
        ages = np.concatenate(batch.ages())
        if ages.min() < 0 or ages.max() > max_staleness:
            self._fail(
                f"tokens were sampled by weights {ages.min()} to {ages.max()} syncs older than those that learn from them "
                f"(algorithm.max_staleness={max_staleness})"
            )

    def ratio_is_one(self, update: Update, sequences: Sequence[TrainingSequence]) -> None:
        """The first update on fresh rollouts starts from the policy that sampled: rho = 1 for every token."""
        gaps = [
            np.abs(np.expm1(update.scores[sequence.index].logprobs - sequence.old_logprobs))
            for sequence in sequences
            if sequence.old_logprobs is not None
        ]
        self._require(
            _differences(gaps),
            self._tolerance,
            "rho is not 1 at the first update of a rollout batch: two forward passes of the same weights differ "
            "(state run.invariant_tolerance for this dtype)",
        )

    def after_sync(
        self,
        engine: Engine,
        policy: Trainer,
        version: int,
        sequences: Sequence[TokenIds],
        settings: RolloutSettings,
    ) -> dict[str, float]:
        """Prove by version and, every `probe_every_syncs`, by probe that the engines hold what the trainer holds."""
        self.versions_agree(engine.weights_versions(), version)
        if not settings.probe_every_syncs or version % settings.probe_every_syncs:
            return {}
        longest = min(PROBE_TOKENS, settings.max_prompt_tokens + settings.max_response_tokens - 1)
        probe = [ids[:longest] for ids in sequences[:PROBE_SEQUENCES]]
        engines, trainer = engine.probe(probe), policy.probe_scores(probe)
        assert settings.probe_tolerance is not None, "preparation states it"
        gap = self.probe_agrees(engines, trainer, settings.probe_tolerance)
        return {
            "sync/probe_mean_abs": gap.mean,
            "sync/probe_q99_abs": gap.q99,
            "sync/probe_max_abs": gap.largest,
        }

    def versions_agree(self, engines: Sequence[int], trainer: int) -> None:
        """After a weight sync every engine states the trainer's version."""
        if any(version != trainer for version in engines):
            self._fail(f"rollout engines hold weights versions {sorted(set(engines))}, the trainer published {trainer}")

    def probe_agrees(
        self, engines: Sequence[Sequence[np.ndarray]], trainer: Sequence[np.ndarray], tolerance: float
    ) -> Differences:
        """After a weight sync every engine and the trainer give the probe the same log-probs; returns the differences of
        the engine that is furthest away."""
        gaps = [
            _differences([np.abs(seen - own) for seen, own in zip(engine, trainer, strict=True)]) for engine in engines
        ]
        for gap in gaps:
            self._require(
                gap,
                tolerance,
                "the engines do not compute what the trainer does after a weight sync (rollout.probe_tolerance)",
            )
        return max(gaps, key=lambda gap: (gap.mean != gap.mean, gap.mean))

    def _require(self, gap: Differences, tolerance: float, message: str) -> None:
        """Mean and 99 % quantile decide; a single token that is further off than these allow is said once."""
        figures = f"mean difference {gap.mean:.3g}, 99 % of the tokens within {gap.q99:.3g}, largest {gap.largest:.3g}"
        mean_limit, largest_limit = MEAN_SHARE * tolerance, LARGEST_SHARE * tolerance
        if not (gap.mean <= mean_limit and gap.q99 <= tolerance):  # NaN fails too
            self._fail(f"{message}: {figures}; tolerance {tolerance:g} for the 99 %, {mean_limit:g} for the mean")
        elif gap.largest > largest_limit and message not in self._said:
            self._said.add(message)
            self._warn(f"self-check passed, but single tokens are far off ({figures}): {message}")

    def _fail(self, message: str) -> None:
        if self._strict:
            raise InvariantError(f"{message}; run.invariants=warn goes on all the same")
        self._warn(f"self-check failed: {message}")


def _differences(parts: Sequence[np.ndarray]) -> Differences:
    return Differences.of(torch.from_numpy(np.concatenate([np.empty(0, dtype=np.float32), *parts])))
