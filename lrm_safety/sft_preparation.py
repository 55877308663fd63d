"""Everything that can be found out about a supervised run before any actor starts."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .checkpoints import Checkpoint, CheckpointStore
from .conversation import get_family
from .datasets import SupervisedRow, hold_out, load_prompts, render_supervised
from .errors import ConfigError
from .modeling.load import load_tokenizer
from .preparation import check_policy, find_checkpoint, model_content, resolved
from .settings import (
    AlgorithmSettings,
    KLSettings,
    RewardSettings,
    RolloutSettings,
    RunSettings,
    ScheduleSettings,
    Settings,
    SftSettings,
)


@dataclass
class PreparedSft:
    """A checked supervised run."""

    settings: Settings
    """What policy group, schedule and recorder read, with every path resolved: see `as_run`."""
    identity: dict[str, Any]
    """The configuration as the user gave it, and fingerprints of what it names: what a checkpoint is compared with."""
    directory: Path
    rows: list[SupervisedRow]
    """To train on, in the order of the set."""
    validation: list[SupervisedRow]
    """Held out; may be empty."""
    data_fingerprint: str
    """sha256 of the rows."""
    num_dropped: int
    num_respelled: int
    store: CheckpointStore
    checkpoint: Checkpoint | None
    """Where to go on from; None: a fresh run."""
    restarts: int = 0
    """Times the run has restarted itself."""
    replacements: int = 0
    """Workers replaced so far, over all restarts."""


def prepare_sft(settings: SftSettings, directory: Path) -> PreparedSft:
    """Check and load what the trainer needs. Raises ConfigError, DataError or ModelError with one line."""
    identity = asdict(settings)
    sft = settings.sft
    run = resolved(as_run(settings))
    family = get_family(run.model.family)
    num_embeddings = check_policy(run)
    tokenizer = load_tokenizer(run.model)
    prompts = load_prompts(
        run.data.path,
        None if run.data.path else run.data.hub_id,
        split=run.data.split,
        question_field=run.data.question_field,
        revision=run.data.revision,
    )
    if run.data.limit is not None:
        prompts = replace(prompts, rows=prompts.rows[: run.data.limit])
    supervised = render_supervised(
        prompts,
        family,
        tokenizer,
        system_prompt=run.model.system_prompt,
        targets=sft.targets,  # type: ignore[arg-type]
        response_field=sft.response_field,
        trace_field=sft.trace_field,
        max_sequence_tokens=sft.max_sequence_tokens,
        overlong=sft.overlong,
        num_embeddings=num_embeddings,
    )
    identity["content"] = model_content(run) | {"prompts and responses as rendered": supervised.token_fingerprint}
    rows, validation = hold_out(supervised.rows, sft.validation_fraction, settings.seed)
    if sft.batch_size > len(rows):
        raise ConfigError(
            f"sft.batch_size={sft.batch_size}: is above the {len(rows)} training rows of {supervised.source}; lower it or "
            "use more rows"
        )
    run = replace(run, schedule=replace(run.schedule, max_updates=num_updates(settings, len(rows))))
    store = CheckpointStore(
        directory / "checkpoints",
        keep_last=settings.checkpoint.keep_last,
        best_mode=settings.checkpoint.best_mode,
        best_metric=settings.checkpoint.best_metric,
    )
    return PreparedSft(
        settings=run,
        identity=identity,
        directory=directory,
        rows=rows,
        validation=validation,
        data_fingerprint=supervised.fingerprint,
        num_dropped=supervised.num_dropped,
        num_respelled=supervised.num_respelled,
        store=store,
        checkpoint=find_checkpoint(run, identity, SftSettings, supervised.fingerprint, store),
    )


def as_run(settings: SftSettings) -> Settings:
    """The settings of a run without sampling: what the policy group, the schedule and the recorder read of one.

    An iteration is one batch and one update; no group but the policy is ever asked for. `schedule.max_updates` is set
    once the number of rows is known.
    """
    batch_size = settings.sft.batch_size
    return Settings(
        run=RunSettings(name=settings.run.name, directory=settings.run.directory),
        seed=settings.seed,
        model=settings.model,
        reward=RewardSettings(),
        data=settings.data,
        algorithm=AlgorithmSettings(
            name="sft", rollout_batch_size=batch_size, mini_batch_size=batch_size, kl=KLSettings(placement="none")
        ),
        schedule=ScheduleSettings(stop_after_updates=settings.schedule.stop_after_updates),
        trainer=settings.trainer,
        rollout=RolloutSettings(temperature=1.0),
        cluster=settings.cluster,
        checkpoint=settings.checkpoint,
        tracking=replace(settings.tracking, job_type=settings.tracking.job_type or "sft"),
    )


def num_updates(settings: SftSettings, num_rows: int) -> int:
    """Updates of the whole run: what the passes take, the last batch whole, and at most schedule.max_updates."""
    schedule = settings.schedule
    limits = [] if schedule.max_updates is None else [schedule.max_updates]
    if schedule.passes is not None:
        # 0.7 * 10 / 1 is 7.000000000000001 in floating point on some ways: without the slack it would take 8 updates.
        limits.append(max(1, math.ceil(schedule.passes * num_rows / settings.sft.batch_size - 1e-9)))
    return min(limits)
