"""Schema of `lrm-safety sft`: what supervised fine-tuning has besides the groups it shares with training."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from .components import DataSettings, ModelSettings
from .fields import DIRECTORY, choice, integer, number, random_seed
from .system import CheckpointSettings, ClusterSettings, TrackingSettings
from .training import TrainerSettings


@dataclass
class SftRunSettings:
    """Identity of a run."""

    name: str = "sft-${model.name}-${data.name}-${sft.name}"
    """Name of the run; its folder is outputs/NAME unless `directory` says otherwise."""
    directory: str = DIRECTORY
    """Folder of the run: configuration, metrics, checkpoints, export. Absolute on a cluster with shared storage."""


@dataclass
class SftScheduleSettings:
    """How long a run is; it stops at whichever limit comes first, and the lr schedule spans exactly that."""

    passes: float | None = number(5.0, low=0.0)
    """Passes (epochs) over the training rows, rounded up to whole updates; null: no limit."""
    max_updates: int | None = integer(None, low=1)
    """Optimiser steps of the whole run; null: as many as the passes take."""
    stop_after_updates: int | None = integer(None, low=1)
    """Leave early, with a checkpoint, once the run has done so many updates (a time-limited job); resume goes on. Not
    part of the run's identity."""


@dataclass
class SupervisedSettings:
    """Supervised targets and batches: conf/sft."""

    name: str = "star1_authors"
    """Name of the recipe; the default run.name is made of it."""
    batch_size: int = integer(128, low=1)
    """Rows per update (optimiser step)."""
    max_sequence_tokens: int = integer(8192, low=2)
    """Longest prompt and response together; a longer row is never cut but treated by `overlong`."""
    overlong: str = choice("error", "drop")
    """A row over max_sequence_tokens: stop before anything starts, or leave it out and count it."""
    targets: str = choice("family", "raw")
    """family: trace and answer as the model's family writes them. raw: the response's text as it stands in the data,
    after the prompt; where the prompt opens the trace by itself, that trains on a second opening tag."""
    response_field: str = "response"
    """Column of the response."""
    trace_field: str | None = None
    """Column of the trace, if it has one of its own; null: the response is `<think>trace</think>answer`."""
    validation_fraction: float = number(0.0, low=0.0, high=0.5)
    """Share of the rows, chosen by the seed, that is held out; their loss is measured before the first update, after
    every pass and at the end."""


@dataclass
class SftSettings:
    """The whole resolved configuration of `lrm-safety sft`."""

    run: SftRunSettings = field(default_factory=SftRunSettings)
    """Identity of the run."""
    seed: int = random_seed()
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
