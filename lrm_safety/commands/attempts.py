"""What training commands share around their loop: the run's folder, its recorder, restarts, the export."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import ClusterError, ConfigError, LrmSafetyError, WorkerError
from ..files import storage_problem
from ..interruption import Interruption
from ..lab.planning.shapes import adapter_parameters, num_parameters, shape_of
from ..monitoring import Recorder
from ..preparation import PreparedRun
from ..settings import Settings
from ..sft_preparation import PreparedSft
from ..workers.group import HourlyBudget
from ..workers.groups import StartedGroups
from .export import write as write_export
from .model_card import write_model_card

Run = TypeVar("Run", PreparedRun, PreparedSft)
LONGEST_PAUSE_SECONDS = 600.0


def open_recorder(
    run: PreparedRun | PreparedSft, settings: Settings, config: Mapping[str, Any] | None = None
) -> Recorder:
    """The run's recorder, which goes on where its checkpoint stands."""
    checkpoint = run.checkpoint
    return Recorder(
        run.directory,
        settings,
        resume_state=checkpoint.state["recorder"] if checkpoint else None,
        resume_update=checkpoint.update if checkpoint else None,
        config=config,
    )


def with_restarts(run: Run, recorder: Recorder, interruption: Interruption, attempt: Callable[[Run], None]) -> None:
    """Run `attempt`, again from the last checkpoint when a worker dies, up to `trainer.max_restarts` times an hour, and as
    often from one checkpoint: what fails an hour after it each time would otherwise be done again for ever.

    What the cluster lacks at the first start no restart brings.
    """
    trainer = run.settings.trainer
    budget = HourlyBudget(trainer.max_restarts)
    begun_from: list[int] = []
    while True:
        try:
            with interruption.handled():  # Ray sets a SIGTERM handler of its own and leaves it behind
                attempt(run)
            return
        except (WorkerError, ClusterError) as error:
            # Not simply the newest: checkpoint.resume may have named another line than the one in this folder.
            committed = run.store.committed
            checkpoint = run.store.open(committed) if committed else run.checkpoint
            update = checkpoint.update if checkpoint else 0
            if isinstance(error, ClusterError) and not begun_from and not committed:
                raise
            if begun_from.count(update) >= trainer.max_restarts or not budget.spend():
                raise
            interruption.check()
            begun_from.append(update)
            pause = min(trainer.restart_pause_seconds * 2 ** (budget.spent - 1), LONGEST_PAUSE_SECONDS)
            recorder.alert(
                "restart",
                f"{error}; restart {budget.spent} of {trainer.max_restarts} within the hour from update {update}"
                + (f", in {pause:g} s" if pause else ""),
            )
            _pause(pause, interruption)
            recorder.rewind(checkpoint.update if checkpoint else None)
            run = replace(run, checkpoint=checkpoint, restarts=run.restarts + 1)


def _pause(seconds: float, interruption: Interruption) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        interruption.check()
        time.sleep(min(1.0, left))


def on_replacement(run: PreparedRun | PreparedSft, recorder: Recorder) -> Callable[[str], None]:
    """What groups call with a line for each worker that they replace: it is said, sent as an alert, and counted."""

    def replaced(line: str) -> None:
        run.replacements += 1
        recorder.alert("a worker was replaced", line)

    return replaced


def check_room(run: PreparedRun | PreparedSft) -> None:
    """Raise ConfigError where the disk under the run's folder has no room for a checkpoint and the export.

    A checkpoint is weights, float32 masters and AdamW's two moments of what is trained. A model whose size the planner does not
    know is not looked at.
    """
    settings = run.settings
    try:
        shape = shape_of(settings.model.path, "model.path")
    except LrmSafetyError:
        return
    value = 4 if settings.model.dtype == "float32" else 2
    trained = adapter_parameters(shape, settings.trainer.lora) or num_parameters(shape)
    needed = trained * (12 + value) + (num_parameters(shape) * value if settings.checkpoint.export != "none" else 0)
    if problem := storage_problem(run.directory, needed):
        raise ConfigError(
            f"run.directory={run.directory}: {problem} for one checkpoint and the export; choose another place"
        )


def tell_start(run: PreparedRun | PreparedSft, recorder: Recorder) -> None:
    """The first line of a resume: where it goes on."""
    if run.checkpoint is not None:
        recorder.note(f"goes on from update {run.checkpoint.update} ({run.checkpoint.path})")


def export_policy(
    run: PreparedRun | PreparedSft, groups: StartedGroups, recorder: Recorder, interruption: Interruption
) -> None:
    """Write what checkpoint.export asks for: the last weights, the best ones, or both; call it at the end of the run."""
    wanted = run.settings.checkpoint.export
    if wanted == "none":
        return
    with interruption.deferred():
        export = run.directory / "export"
        best = run.store.best() if wanted in ("best", "both") else None
        last = run.store.open(run.store.committed) if run.store.committed else run.checkpoint
        if wanted == "best" and best is None:
            recorder.note(
                f"no checkpoint has a value of {run.settings.checkpoint.best_metric}: the last weights are exported"
            )
        if wanted != "best" or best is None:
            groups.policy.export(export)
            if last is not None:
                write_model_card(export, last)
            recorder.note(f"exported to {export}")
        if best is not None:
            # From the files, so that the groups keep what they hold.
            target = export if wanted == "best" else run.directory / "export-best"
            write_export(best, target)
            recorder.note(f"the best weights, of update {best.update}, exported to {target}")
