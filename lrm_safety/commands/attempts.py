"""What training commands share around their loop: the run's folder, its recorder, restarts, the export."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ..errors import ClusterError, WorkerError
from ..interruption import Interruption
from ..monitoring import Recorder
from ..preparation import PreparedRun
from ..settings import Settings
from ..sft_preparation import PreparedSft
from ..workers.groups import StartedGroups
from .export import write as write_export
from .model_card import write_model_card

Run = TypeVar("Run", PreparedRun, PreparedSft)


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
    """Run `attempt`, again from the last checkpoint when a worker dies, up to `trainer.max_restarts` times."""
    max_restarts = run.settings.trainer.max_restarts
    for number in range(max_restarts + 1):
        try:
            attempt(run)
            return
        except (WorkerError, ClusterError) as error:
            # Not simply the newest: checkpoint.resume may have named another line than the one in this folder.
            committed = run.store.committed
            checkpoint = run.store.open(committed) if committed else run.checkpoint
            if number == max_restarts:
                raise
            interruption.check()
            update = checkpoint.update if checkpoint else 0
            recorder.note(f"{error}; restart {number + 1} of {max_restarts} from update {update}")
            recorder.rewind(checkpoint.update if checkpoint else None)
            run = replace(run, checkpoint=checkpoint, restarts=number + 1)


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
        last = run.store.open(run.store.committed) if run.store.committed else run.store.latest()
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
            shutil.rmtree(target, ignore_errors=True)
            write_export(best, target)
            recorder.note(f"the best weights, of update {best.update}, exported to {target}")
