"""What RL and SFT share around their steps: resume, step until the schedule ends, evaluate and save when due, save at a stop."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

from .checkpoints import Checkpoint
from .datasets.prompts import PromptSource
from .errors import DataError, FolderLostError, JudgeError
from .interruption import Interruption, StopRequested
from .monitoring.recorder import Recorder
from .preparation import Prepared
from .speed import Speed
from .workers.protocols import SupervisedGroups

Run = TypeVar("Run", bound=Prepared[Any])
GroupsOf = TypeVar("GroupsOf", bound=SupervisedGroups)


class TrainingRun(ABC, Generic[Run, GroupsOf]):
    """One run from its present state to its end. Subclasses take the steps."""

    best_figure: str | None
    """The metric that checkpoints are compared by; None: by none."""

    def __init__(self, run: Run, groups: GroupsOf, recorder: Recorder, interruption: Interruption) -> None:
        self.run: Run = run
        self.schedule = run.schedule
        self.groups: GroupsOf = groups
        self.recorder, self.interruption = recorder, interruption
        self.speed = Speed(run.settings, groups.cluster, groups.cards())
        groups.usage()  # what the start took is no iteration's
        self.update = 0
        self.last_evaluation: dict[str, float] = {}
        """Figures of held-out data, with the `update` whose weights they are of."""
        self.saved_update: int | None = None
        self.saved_at = time.monotonic()
        self.longest_seconds = 0.0
        """Of a step with its evaluation and checkpoint, so far."""

    # --- what a kind of training is

    source: PromptSource

    @property
    @abstractmethod
    def steps(self) -> int:
        """Steps taken: iterations of RL, updates of SFT."""

    @abstractmethod
    def step(self) -> None:
        """Take one step; a stop request in its middle leaves the state as it was, or comes after it."""

    @abstractmethod
    def evaluate_if_due(self) -> None:
        """Measure held-out data, and call `evaluated`."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Everything that the controller must know to go on; JSON."""

    @abstractmethod
    def load_state(self, state: dict[str, Any]) -> None:
        """What `state` returned."""

    def restored(self) -> None:
        """Called once, when the trainer's weights are those to begin with."""

    # --- what all of it does

    def train(self) -> None:
        """Resume or begin, step until the schedule ends, save.

        A stop request, or a judge or grader that fails, saves the last whole step first.
        """
        self.begin()
        boundary = self.state()
        try:
            while not self.finished:
                boundary, began = self.state(), time.monotonic()
                self.interruption.check()
                self.interruption.check_deadline(self.run.settings.checkpoint.stop_after_minutes, self.longest_seconds)
                with self.profiled():
                    self.step()
                boundary = self.state()
                self.evaluate_if_due()
                self.checkpoint_if_due()
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - began)
        except FolderLostError:
            self.checkpoint(self.state())  # the step was whole: its record is what found out
            raise
        except (StopRequested, JudgeError) as stop:
            if not (isinstance(stop, StopRequested) and stop.at_once):
                self.checkpoint(boundary)
            raise
        self.checkpoint(self.state())

    @contextmanager
    def profiled(self) -> Iterator[None]:
        """Around a step: a profile of it into RUN/profile where `run.profile_updates` names one of its updates."""
        updates = range(self.update + 1, self.update + 1 + self.schedule.updates_per_iteration)
        if not set(self.run.settings.run.profile_updates).intersection(updates):
            yield
            return
        phase, folder = partial(self.recorder.phases.phase, "profile"), self.run.directory / "profile"
        with phase():
            self.groups.begin_profile()
        yield
        with phase():
            self.groups.end_profile(folder, f"update-{self.update:06d}")
        self.recorder.note(f"update {self.update}: its profile is in {folder}")

    @property
    def finished(self) -> bool:
        """Whether the schedule ends here."""
        return self.schedule.finished(self.update, self.steps)

    def begin(self) -> None:
        """Restore the checkpoint, if any."""
        checkpoint: Checkpoint | None = self.run.checkpoint
        if checkpoint is not None:
            with self.interruption.deferred():  # half-restored weights must not be saved as this update's
                self.groups.policy.load(checkpoint.path, checkpoint.files)
                self.load_state(checkpoint.state)
                self.saved_update = self.update
            self.recorder.note(f"resumed from update {self.update} ({checkpoint.path})")
            if (ranks := self.groups.policy.num_ranks) != checkpoint.num_ranks:
                self.recorder.note(
                    f"{checkpoint.num_ranks} trainer ranks wrote it and {ranks} go on: weights and optimiser are the same to the "
                    "bit, what follows agrees to float32 rounding"
                )
        self.restored()
        self.evaluate_if_due()  # update 0, or one that was stopped between its step and its evaluation
        if checkpoint is not None:
            self.checkpoint_if_due()

    def load_source(self, state: dict[str, Any]) -> bool:
        """Where in the data to go on; other data begin a new pass, where the configuration allows them, and False tells of it."""
        try:
            self.source.load_state_dict(state)
        except DataError as error:
            if not self.run.settings.checkpoint.allow_changes:
                raise
            self.recorder.note(f"{error}; a new pass begins (checkpoint.allow_changes=true)")
            return False
        return True

    def evaluated(self, figures: dict[str, float]) -> None:
        """Keep and record the figures of the present weights."""
        self.last_evaluation = {"update": float(self.update)} | figures
        self.recorder.record(self.update, figures)
        if self.run.settings.checkpoint.best_metric is not None:
            self.saved_update = None  # a checkpoint of this update lacks its figures

    @property
    def is_evaluated(self) -> bool:
        """Whether the last evaluation is of the present weights."""
        return self.last_evaluation.get("update") == self.update

    def checkpoint_if_due(self) -> None:
        """Every `checkpoint.every_updates` and `every_minutes`, on SIGUSR1, and whatever `checkpoint.best_metric` compares;
        the end saves by itself."""
        settings = self.run.settings.checkpoint
        asked = self.interruption.take_save_request()
        compared = settings.best_metric is not None and self.is_evaluated and self.update > 0
        late = settings.every_minutes is not None and time.monotonic() - self.saved_at > 60 * settings.every_minutes
        if asked or compared or late or self.schedule.crossed(self.update, settings.every_updates):
            self.checkpoint(self.state())
        if asked:
            self.recorder.note(f"SIGUSR1: update {self.saved_update} is saved")

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Write one whole checkpoint of `state`, whose update is that of the trainer's weights."""
        update = state["update"]
        if self.saved_update == update:
            return
        last = self.last_evaluation
        figures = last if last.get("update") == update else {}  # of these very weights
        with self.interruption.deferred(), self.recorder.phases.phase("checkpoint"):
            folder = self.run.store.begin(update)
            files = self.groups.policy.save(folder)
            self.run.store.commit(
                folder,
                update,
                state=state,
                config=self.run.identity,
                data_fingerprint=self.run.data_fingerprint,
                files=files,
                metric=figures.get(self.best_figure or ""),
            )
        self.saved_update, self.saved_at = update, time.monotonic()
