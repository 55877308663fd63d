"""`lrm-safety train`: one run from a checked configuration to its export."""

from __future__ import annotations

from ..controller import Controller
from ..evaluation.in_loop import InLoopEvaluation
from ..interruption import Interruption, kept_from_children
from ..lab.planning import cautions
from ..monitoring import Recorder
from ..preparation import PreparedRun, prepare
from ..run_folder import RunFolder
from ..settings import Settings
from ..workers.groups import Groups, join_ray
from .attempts import check_room, export_policy, on_replacement, open_recorder, tell_start, with_restarts


def train(settings: Settings, resolved: dict[str, object], folder: RunFolder) -> None:
    """Run to the end of the schedule and export.

    Raises LrmSafetyError with the one line to show, or StopRequested after a signal (a checkpoint has been written).
    A trainer that dies is started again from the last checkpoint up to `trainer.max_restarts` times.
    """
    run = prepare(settings, folder.path.absolute())  # workers may have another working folder
    check_room(run)
    evaluation = InLoopEvaluation(run.settings, run.family, run.tokenizer, run.parser, run.sampling, run.num_embeddings)
    warnings = cautions(run.settings)
    folder.begin(resolved)
    with open_recorder(run, settings) as recorder:
        for line in warnings:
            recorder.note(line)
        interruption = Interruption()  # one for all attempts: a signal may reach the workers before the controller
        tell_start(run, recorder)
        with interruption.handled():
            with_restarts(
                run, recorder, interruption, lambda run: _attempt(run, folder, recorder, evaluation, interruption)
            )


def _attempt(
    run: PreparedRun, folder: RunFolder, recorder: Recorder, evaluation: InLoopEvaluation, interruption: Interruption
) -> None:
    with recorder.phases.startup("join Ray"), kept_from_children():
        # It sets a SIGTERM handler of its own, so ours comes after it.
        join_ray(run.settings.cluster, worker_logs=run.settings.tracking.worker_logs)
    with interruption.handled(), Groups(run.settings, interruption.check, on_replacement(run, recorder)) as groups:
        with recorder.phases.startup("start groups"):
            groups.start(run.directory)
        folder.tell(hosts=groups.hosts())
        for line in groups.rollout.describe():
            recorder.note(line)
        Controller(run, groups, recorder, interruption, evaluation).train()
        export_policy(run, groups, recorder, interruption)
