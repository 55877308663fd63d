"""Everything that can be found out about a supervised run before any actor starts: see `preparation.py` for what RL shares."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .conversation.families import get_family
from .datasets.supervised import SupervisedRow, SupervisedSet, hold_out, render_supervised
from .errors import ConfigError
from .modeling.configuration import load_tokenizer
from .preparation import Prepared, check_policy, find_checkpoint, load_rows, model_content, open_store, with_paths
from .schedule import Schedule
from .settings import DataSettings, ModelSettings, ScheduleSettings, SftSettings, SupervisedSettings
from .settings.checks import check_profile

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(kw_only=True)
class PreparedSft(Prepared[SftSettings]):
    """A checked supervised run."""

    rows: list[SupervisedRow]
    """To train on, in the order of the set."""
    validation: list[SupervisedRow]
    """Held out; may be empty."""
    num_dropped: int
    num_respelled: int


def prepare_sft(settings: SftSettings, directory: Path) -> PreparedSft:
    """Check and load what the trainer needs. Raises ConfigError, DataError or ModelError with one line."""
    identity = asdict(settings)
    settings = with_paths(settings)
    sft = settings.sft
    num_embeddings = check_policy(settings.model, settings.trainer)
    supervised = supervised_set(settings.data, sft, settings.model, load_tokenizer(settings.model), num_embeddings)
    identity["content"] = model_content(settings.model) | {
        "prompts and responses as rendered": supervised.token_fingerprint
    }
    rows, validation = hold_out(supervised.rows, sft.validation_fraction, settings.seed)
    if sft.batch_size > len(rows):
        raise ConfigError(
            f"sft.batch_size={sft.batch_size}: is above the {len(rows)} training rows of {supervised.source}; lower it or "
            "use more rows"
        )
    check_profile(settings.run.profile_updates, num_updates(settings, len(rows)), "the updates of the run")
    store = open_store(settings.checkpoint, directory)
    return PreparedSft(
        settings=settings,
        identity=identity,
        directory=directory,
        data_fingerprint=supervised.fingerprint,
        schedule=schedule_of(settings, len(rows)),
        store=store,
        checkpoint=find_checkpoint(settings, identity, supervised.fingerprint, store),
        rows=rows,
        validation=validation,
        num_dropped=supervised.num_dropped,
        num_respelled=supervised.num_respelled,
    )


def supervised_set(
    data: DataSettings,
    sft: SupervisedSettings,
    model: ModelSettings,
    tokenizer: PreTrainedTokenizerBase,
    num_embeddings: int | None = None,
) -> SupervisedSet:
    """The rows at `data.path` as `sft` trains on them. Raises DataError for a row that cannot be, see `render_supervised`."""
    return render_supervised(
        load_rows(data),
        get_family(model.family),
        tokenizer,
        system_prompt=model.system_prompt,
        targets=sft.targets,
        response_field=sft.response_field,
        trace_field=sft.trace_field,
        max_sequence_tokens=sft.max_sequence_tokens,
        overlong=sft.overlong,
        num_embeddings=num_embeddings,
    )


def schedule_of(settings: SftSettings, num_rows: int) -> Schedule:
    """An iteration is one batch and one update."""
    limits = ScheduleSettings(
        max_updates=num_updates(settings, num_rows), stop_after_updates=settings.schedule.stop_after_updates
    )
    return Schedule(limits, settings.trainer, num_rows, settings.sft.batch_size)


def num_updates(settings: SftSettings, num_rows: int) -> int:
    """Updates of the whole run: what the passes take, the last batch whole, and at most schedule.max_updates."""
    schedule = settings.schedule
    limits = [] if schedule.max_updates is None else [schedule.max_updates]
    if schedule.passes is not None:
        # 0.7 * 10 / 1 is 7.000000000000001 in floating point on some ways: without the slack it would take 8 updates.
        limits.append(max(1, math.ceil(schedule.passes * num_rows / settings.sft.batch_size - 1e-9)))
    return min(limits)
