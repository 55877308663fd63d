"""Schema of `lrm-safety sft`: what supervised fine-tuning has besides the groups it shares with training."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from omegaconf import MISSING
from pydantic import Field

from .components import DataSettings, ModelSettings
from .system import CheckpointSettings, ClusterSettings, ProfileUpdates, TrackingSettings
from .training import TrainerSettings
from .types import DIRECTORY, Conflict, Float, Int, PositiveFloat, PositiveInt, Seed, Text, Whole, rule

Targets = Literal["family", "raw"]


@dataclass
class SftRunSettings:
    """Identity of a run."""

    name: Text = "sft-${model.name}-${data.name}-${sft.name}"
    """Name of the run; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: Text = DIRECTORY
    """Folder of the run: configuration, metrics, checkpoints, export. Absolute on a cluster with shared storage."""
    objective: Text | None = None
    """Metric whose last value a run of -m gives to a sweeper that searches, such as hydra-optuna-sweeper; null: none. Example:
    sft/validation_loss."""
    profile_updates: ProfileUpdates = field(default_factory=list)
    """Updates whose iterations are profiled into RUN/profile: torch's profiler in every trainer rank, and Ray's
    timeline (docs/tracking.md). Such an iteration is slower and learns the same. Example: [3,4]."""


@dataclass
class SftScheduleSettings:
    """How long a run is; it stops at whichever limit comes first, and the lr schedule spans exactly that."""

    passes: PositiveFloat | None = 5.0
    """Passes (epochs) over the training rows, rounded up to whole updates; null: no limit."""
    max_updates: PositiveInt | None = None
    """Optimiser steps of the whole run; null: as many as the passes take."""
    stop_after_updates: PositiveInt | None = None
    """Leave early, with a checkpoint, once the run has done so many updates (a time-limited job); resume goes on. Not
    part of the run's identity."""

    @rule
    def _keys_go_together(self) -> None:
        if self.passes is None and self.max_updates is None:
            raise Conflict("passes: set it, or schedule.max_updates; otherwise the run has no end")


@dataclass
class SupervisedSettings:
    """Supervised targets and batches: conf/sft."""

    name: Text = "star1_authors"
    """Name of the recipe; the default run.name is made of it."""
    batch_size: PositiveInt = 128
    """Rows per update (optimiser step)."""
    max_sequence_tokens: Annotated[Int, Field(ge=2)] = 8192
    """Longest prompt and response together; a longer row is never cut but treated by `overlong`."""
    overlong: Literal["error", "drop"] = "error"
    """A row over max_sequence_tokens: stop before anything starts, or leave it out and count it."""
    targets: Targets = "family"
    """family: trace and answer as the model's family writes them. raw: the response's text as it stands in the data,
    after the prompt; where the prompt opens the trace by itself, that trains on a second opening tag."""
    response_field: Text = "response"
    """Column of the response."""
    trace_field: Text | None = None
    """Column of the trace, if it has one of its own; null: the response is `<think>trace</think>answer`."""
    validation_fraction: Annotated[Float, Field(ge=0, le=0.5)] = 0.0
    """Share of the rows, chosen by the seed, that is held out; their loss is measured before the first update, after
    every pass and at the end."""

    @rule
    def _keys_go_together(self) -> None:
        if self.targets == "raw" and self.trace_field is not None:
            raise Conflict(
                f"targets=raw: takes the response as it stands; with sft.trace_field={self.trace_field} use targets=family"
            )


@dataclass
class SftSettings(Whole):
    """The whole resolved configuration of `lrm-safety sft`."""

    run: SftRunSettings = field(default_factory=SftRunSettings)
    """Identity of the run."""
    seed: Seed = 0
    """Seed of everything random: order of the rows, choice of the held-out ones."""
    model: ModelSettings = MISSING
    """The model to fine-tune."""
    data: DataSettings = MISSING
    """Questions with their responses; `data.overlong` is not read (sft.overlong)."""
    sft: SupervisedSettings = field(default_factory=SupervisedSettings)
    """Targets and batches."""
    schedule: SftScheduleSettings = field(default_factory=SftScheduleSettings)
    """Length of the run."""
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    """Optimiser and ZeRO-3."""
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Machines; of the groups only `policy` is read."""
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    """Checkpoints and resume."""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    """Metrics, console, W&B."""
