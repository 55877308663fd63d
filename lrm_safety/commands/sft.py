"""`lrm-safety sft`: one supervised run from a checked configuration to its export."""

from __future__ import annotations

from ..interruption import Interruption, kept_from_children
from ..monitoring import Recorder
from ..run_folder import RunFolder
from ..settings import SftSettings
from ..sft import SftTrainer
from ..sft_preparation import PreparedSft, prepare_sft
from ..workers.groups import PolicyOnly, join_ray
from .attempts import check_room, export_policy, on_replacement, open_recorder, tell_start, with_restarts


def fine_tune(settings: SftSettings, resolved: dict[str, object], folder: RunFolder) -> None:
    """Run to the end of the schedule and export.

    Raises LrmSafetyError with the one line to show, or StopRequested after a signal (a checkpoint has been written).
    A trainer that dies is started again from the last checkpoint up to `trainer.max_restarts` times.
    """
    run = prepare_sft(settings, folder.path.absolute())  # workers may have another working folder
    check_room(run)
    folder.begin(resolved)
    with open_recorder(run, run.settings, resolved) as recorder:
        interruption = Interruption()  # one for all attempts: a signal may reach the workers before the controller
        tell_start(run, recorder)
        with interruption.handled():
            with_restarts(run, recorder, interruption, lambda run: _attempt(run, folder, recorder, interruption))


def _attempt(run: PreparedSft, folder: RunFolder, recorder: Recorder, interruption: Interruption) -> None:
    with recorder.phases.startup("join Ray"), kept_from_children():
        # It sets a SIGTERM handler of its own, so ours comes after it.
        join_ray(run.settings.cluster, worker_logs=run.settings.tracking.worker_logs)
    with interruption.handled(), PolicyOnly(run.settings, interruption.check, on_replacement(run, recorder)) as groups:
        with recorder.phases.startup("start groups"):
            groups.start(run.directory)
        folder.tell(hosts=groups.hosts())
        SftTrainer(run, groups, recorder, interruption).train()
        export_policy(run, groups, recorder, interruption)
