"""When a run ends, evaluates and saves, and how fast it learns: pure functions of counts and settings."""

from __future__ import annotations

import math

from .algorithm.schedules import lr_multiplier
from .settings import Settings


class Schedule:
    """The counts of a run: one iteration is one rollout batch and `updates_per_iteration` updates."""

    def __init__(self, settings: Settings, num_prompts: int) -> None:
        self._settings = settings
        self._num_prompts = num_prompts
        algorithm = settings.algorithm
        self.updates_per_iteration = (
            algorithm.rollout_batch_size * algorithm.samples_per_prompt // algorithm.mini_batch_size
        )

    def passes(self, iteration: int) -> float:
        """Passes over the prompts after so many iterations."""
        return iteration * self._settings.algorithm.rollout_batch_size / self._num_prompts

    def finished(self, update: int, iteration: int) -> bool:
        """Whether `max_updates`, `passes` or `stop_after_updates` is reached, whichever comes first."""
        schedule = self._settings.schedule
        if update >= min(schedule.max_updates, schedule.stop_after_updates or math.inf):
            return True
        return schedule.passes is not None and self.passes(iteration) >= schedule.passes

    def learning_rates(self, update: int) -> list[float]:
        """lr of each update of the iteration that begins at `update`."""
        trainer = self._settings.trainer
        return [
            trainer.lr
            * lr_multiplier(
                one,
                self._settings.schedule.max_updates,
                kind=trainer.lr_schedule,  # type: ignore[arg-type]
                warmup_fraction=trainer.warmup_fraction,
                min_ratio=trainer.min_lr_ratio,
                from_zero=trainer.warmup_from_zero,
            )
            for one in range(update, update + self.updates_per_iteration)
        ]

    def crossed(self, update: int, every: int) -> bool:
        """Whether the iteration that ended at `update` reached or passed a multiple of `every`; 0: never."""
        return bool(every) and update // every > (update - self.updates_per_iteration) // every

    @property
    def needs_old_logprobs(self) -> bool:
        """The recompute pass is skipped where nothing reads it: one update per rollout and no KL in the reward."""
        algorithm = self._settings.algorithm
        several = self.updates_per_iteration > 1
        return algorithm.old_logprobs == "recompute" and (several or algorithm.kl.placement == "reward")
