"""What training commands share around their loop: the run's folder, its recorder, restarts, the export."""

from __future__ import annotations

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
    """Write RUN/export where checkpoint.export asks for it."""
    if run.settings.checkpoint.export:
        with interruption.deferred():
            export = run.directory / "export"
            groups.policy.export(export)
            recorder.note(f"exported to {export}")
