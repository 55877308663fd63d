"""Supervised fine-tuning on the policy group: the loop. Read `SftTrainer.step` first."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from .datasets import PromptSource, SupervisedRow
from .errors import DataError, FolderLostError, InvariantError
from .interruption import Interruption, StopRequested
from .invariants import SkippedSteps
from .monitoring import Recorder
from .rollouts import TokenScores, TrainingSequence
from .schedule import Schedule
from .sft_preparation import PreparedSft
from .workers.groups import PolicyOnly


class SftTrainer:
    """Runs one supervised run from its present state to its end."""

    def __init__(self, run: PreparedSft, groups: PolicyOnly, recorder: Recorder, interruption: Interruption) -> None:
        self.run, self.groups, self.recorder, self.interruption = run, groups, recorder, interruption
        settings = run.settings
        self.source = PromptSource(len(run.rows), settings.algorithm.mini_batch_size, settings.seed)
        self.schedule = Schedule(settings, len(run.rows))
        self.skipped = SkippedSteps(settings.trainer.max_skipped_steps, recorder.note)
        self.update = 0
        self.last_validation: dict[str, float] = {}
        self.saved_update: int | None = None
        self.saved_at = time.monotonic()
        self.longest_seconds = 0.0
        """Of an update with its validation and checkpoint, so far."""

    def train(self) -> None:
        """Resume or begin, update until the schedule ends, save. A stop request saves first; it loses no update."""
        self.begin()
        try:
            while not self.schedule.finished(self.update, self.update):
                began = time.monotonic()
                self.interruption.check()
                self.interruption.check_deadline(self.run.settings.checkpoint.stop_after_minutes, self.longest_seconds)
                self.step()
                self.validate_if_due()
                self.checkpoint_if_due()
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        except FolderLostError:
            with self.interruption.deferred():
                self.checkpoint()
            raise
        except StopRequested as stop:
            if not stop.at_once:
                with self.interruption.deferred():
                    self.checkpoint()
            raise
        with self.interruption.deferred():
            self.checkpoint()

    def step(self) -> None:
        """One batch, one update."""
        phases = self.recorder.phases
        with self.interruption.deferred():  # order and weights change together
            rows = [self.run.rows[index] for index in self.source.next_batch()]
            with phases.phase("update"):
                (result,) = self.groups.policy.supervised_update(
                    [training_sequences(rows)], self.schedule.learning_rates(self.update)
                )
            try:
                self.skipped.count(self.update, [result])
            except InvariantError as error:
                raise InvariantError(f"{error} (rows {', '.join(row.id for row in rows[:8])} and so on)") from error
            self.update += 1
            seconds = phases.take()
            num_tokens = sum(len(row.response_ids) for row in rows)
            self.recorder.record(
                self.update,
                supervised_metrics(rows, result.scores)
                | {
                    "sft/loss": result.loss,
                    "sft/num_dropped": self.run.num_dropped,
                    "sft/num_respelled": self.run.num_respelled,
                    "train/gradient_norm": result.gradient_norm,
                    "train/lr": result.lr,
                    "train/num_skipped": float(not result.taken),
                    "train/iteration": self.update,
                    "train/passes": self.schedule.passes(self.update),
                    "run/restarts": self.run.restarts,
                    "speed/update_tokens_per_second": num_tokens / seconds["time/update_seconds"],
                }
                | seconds
                | self.groups.memory(),
            )

    def begin(self) -> None:
        """Restore the checkpoint, if any."""
        checkpoint = self.run.checkpoint
        if checkpoint is not None:
            with self.interruption.deferred():  # half-restored weights must not be saved as this update's
                self.groups.policy.load(checkpoint.path, checkpoint.files)
                self.load_state(checkpoint.state)
            self.recorder.note(f"resumed from update {self.update} ({checkpoint.path})")
        self.validate_if_due()  # update 0, or one that was stopped between its update and its validation
        if checkpoint is not None:
            self.checkpoint_if_due()

    def validate_if_due(self) -> None:
        """Loss of the held-out rows before the first update, after every pass, and at the end."""
        if not self.run.validation or self.last_validation.get("update") == self.update:
            return
        passes = [int(self.schedule.passes(update)) for update in (self.update - 1, self.update)]
        ends = self.schedule.finished(self.update, self.update)
        if self.update > 0 and passes[0] == passes[1] and not ends:
            return
        with self.recorder.phases.phase("evaluate"):
            scores = self.groups.policy.logprobs(training_sequences(self.run.validation), temperature=1.0)
        loss = -mean([scores[index].logprobs for index in range(len(self.run.validation))])
        self.last_validation = {"update": float(self.update), "sft/validation_loss": loss}
        self.recorder.record(self.update, {"sft/validation_loss": loss})
        if self.run.settings.checkpoint.best_metric is not None:
            self.saved_update = None  # a checkpoint of this update lacks its figure

    def state(self) -> dict[str, Any]:
        """Everything the trainer must know to go on; JSON."""
        return {
            "update": self.update,
            "source": self.source.state_dict(),
            "last_validation": self.last_validation,
            "recorder": self.recorder.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """What `state` returned."""
        self.update = self.saved_update = state["update"]
        self.last_validation = state["last_validation"]
        try:
            self.source.load_state_dict(state["source"])
        except DataError as error:
            if not self.run.settings.checkpoint.allow_changes:
                raise
            self.recorder.note(f"{error}; a new pass begins (checkpoint.allow_changes=true)")

    def checkpoint_if_due(self) -> None:
        """Every `checkpoint.every_updates` and `every_minutes`, on SIGUSR1, and whatever `checkpoint.best_metric` compares;
        the end saves by itself."""
        settings = self.run.settings.checkpoint
        asked = self.interruption.take_save_request()
        late = settings.every_minutes is not None and time.monotonic() - self.saved_at > 60 * settings.every_minutes
        compared = settings.best_metric is not None and self.last_validation.get("update") == self.update > 0
        if asked or compared or late or self.schedule.crossed(self.update, settings.every_updates):
            with self.interruption.deferred():
                self.checkpoint()
        if asked:
            self.recorder.note(f"SIGUSR1: update {self.saved_update} is saved")

    def checkpoint(self) -> None:
        """Write one whole checkpoint of the present state."""
        if self.saved_update == self.update:
            return
        last = self.last_validation if self.last_validation.get("update") == self.update else {}
        with self.recorder.phases.phase("checkpoint"):
            folder = self.run.store.begin(self.update)
            files = self.groups.policy.save(folder)
            self.run.store.commit(
                folder,
                self.update,
                state=self.state(),
                config=self.run.identity,
                data_fingerprint=self.run.fingerprint,
                files=files,
                metric=last.get("sft/validation_loss"),
            )
        self.saved_update, self.saved_at = self.update, time.monotonic()


def training_sequences(rows: list[SupervisedRow]) -> list[TrainingSequence]:
    """The rows for the policy group; `index` is the position in `rows`."""
    return [TrainingSequence(index, row.prompt_ids, row.response_ids) for index, row in enumerate(rows)]


def supervised_metrics(rows: list[SupervisedRow], scores: dict[int, TokenScores]) -> dict[str, float]:
    """Loss over traces and over answers, entropy and length; a part without tokens has no figure.

    `scores` are by position in `rows`, under the weights before the update.
    """
    cuts = [(scores[index], row.num_trace_tokens) for index, row in enumerate(rows)]
    parts = {
        "sft/trace_loss": [-one.logprobs[:cut] for one, cut in cuts],
        "sft/answer_loss": [-one.logprobs[cut:] for one, cut in cuts],
        "sft/entropy": [one.entropy for one, _ in cuts],
    }
    figures = {name: mean(values) for name, values in parts.items() if any(map(len, values))}
    return figures | {"sft/response_length_mean": sum(len(row.response_ids) for row in rows) / len(rows)}


def mean(parts: list[np.ndarray]) -> float:
    """Mean over all tokens of all parts, in float64."""
    return float(np.concatenate(parts).mean(dtype=np.float64))
