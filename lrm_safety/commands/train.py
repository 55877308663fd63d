"""`lrm-safety train`: one run from a checked configuration to its export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import yaml

from ..controller import Controller
from ..errors import ClusterError, WorkerError
from ..evaluation.in_loop import InLoopEvaluation
from ..interruption import Interruption
from ..monitoring import Recorder
from ..preparation import PreparedRun, prepare
from ..settings import Settings
from ..workers.groups import Groups, join_ray


def train(settings: Settings, resolved: dict[str, object], directory: Path) -> None:
    """Run to the end of the schedule and export.

    Raises LrmSafetyError with the one line to show, or StopRequested after a signal (a checkpoint has been written).
    A trainer that dies is started again from the last checkpoint up to `trainer.max_restarts` times.
    """
    run = prepare(settings, directory)
    evaluation = InLoopEvaluation(run.settings, run.family, run.tokenizer, run.parser, run.sampling)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.yaml").write_text(yaml.safe_dump(resolved, sort_keys=False), encoding="utf-8")
    checkpoint = run.checkpoint
    with Recorder(
        directory,
        settings,
        resume_state=checkpoint.state["recorder"] if checkpoint else None,
        resume_update=checkpoint.update if checkpoint else None,
    ) as recorder:
        interruption = Interruption()  # one for all attempts: a signal may reach the workers before the controller
        for attempt in range(settings.trainer.max_restarts + 1):
            try:
                _attempt(run, recorder, evaluation, interruption)
                return
            except (WorkerError, ClusterError) as error:
                # Not simply the newest: checkpoint.resume may have named another line than the one in this folder.
                committed = run.store.committed
                checkpoint = run.store.open(committed) if committed else run.checkpoint
                if attempt == settings.trainer.max_restarts:
                    raise
                interruption.check()
                update = checkpoint.update if checkpoint else 0
                recorder.note(f"{error}; restart {attempt + 1} of {settings.trainer.max_restarts} from update {update}")
                recorder.rewind(checkpoint.update if checkpoint else None)
                run = replace(run, checkpoint=checkpoint, restarts=attempt + 1)


def _attempt(run: PreparedRun, recorder: Recorder, evaluation: InLoopEvaluation, interruption: Interruption) -> None:
    with recorder.phases.startup("join Ray"):
        join_ray(run.settings)  # sets a SIGTERM handler of its own, so ours comes after it
    with interruption.handled(), Groups(run.settings, on_wait=interruption.check) as groups:
        with recorder.phases.startup("start groups"):
            groups.start()
        Controller(run, groups, recorder, interruption, evaluation).train()
        if run.settings.checkpoint.export:
            with interruption.deferred():
                export = run.directory / "export"
                groups.policy.export(export)
                recorder.note(f"exported to {export}")
