"""When a run ends, evaluates and saves, and how fast it learns: pure functions of counts and settings."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .algorithm.schedules import lr_multiplier
from .settings import AlgorithmSettings, ScheduleSettings, Settings, TrainerSettings


@dataclass(frozen=True)
class Schedule:
    """The counts of a run: an iteration draws `batch_size` rows (prompts) and makes `updates_per_iteration` updates of them."""

    limits: ScheduleSettings
    trainer: TrainerSettings
    """Of which the learning rate's course is read."""
    num_rows: int
    batch_size: int
    updates_per_iteration: int = 1

    @classmethod
    def of(cls, settings: Settings, num_prompts: int) -> Schedule:
        """Of an RL run: one iteration is one rollout batch."""
        algorithm = settings.algorithm
        num_responses = algorithm.rollout_batch_size * algorithm.samples_per_prompt
        return cls(
            settings.schedule,
            settings.trainer,
            num_prompts,
            algorithm.rollout_batch_size,
            num_responses // algorithm.mini_batch_size,
        )

    def passes(self, iteration: int) -> float:
        """Passes over the rows after so many iterations."""
        return iteration * self.batch_size / self.num_rows

    def finished(self, update: int, iteration: int) -> bool:
        """Whether `max_updates`, `passes` or `stop_after_updates` is reached, whichever comes first."""
        limits = self.limits
        if update >= min(limits.max_updates, limits.stop_after_updates or math.inf):
            return True
        return limits.passes is not None and self.passes(iteration) >= limits.passes

    def learning_rates(self, update: int) -> list[float]:
        """lr of each update of the iteration that begins at `update`."""
        trainer = self.trainer
        return [
            trainer.lr
            * lr_multiplier(
                one,
                self.limits.max_updates,
                kind=trainer.lr_schedule,
                warmup_fraction=trainer.warmup_fraction,
                min_ratio=trainer.min_lr_ratio,
                from_zero=trainer.warmup_from_zero,
            )
            for one in range(update, update + self.updates_per_iteration)
        ]

    def crossed(self, update: int, every: int) -> bool:
        """Whether the iteration that ended at `update` reached or passed a multiple of `every`; 0: never."""
        return bool(every) and update // every > (update - self.updates_per_iteration) // every


def needs_old_logprobs(algorithm: AlgorithmSettings, updates_per_iteration: int) -> bool:
    """The recompute pass is skipped where nothing reads it: one update per rollout and no KL in the reward."""
    several = updates_per_iteration > 1
    return algorithm.old_logprobs == "recompute" and (several or algorithm.kl.placement == "reward")
