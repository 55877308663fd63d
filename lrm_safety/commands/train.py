"""`lrm-safety train`, `lrm-safety sft`: one run from a checked configuration to its export, with restarts from its checkpoint."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from ..controller import Controller
from ..diagnosis.evidence import Evidence
from ..errors import ClusterError, ConfigError, WorkerError
from ..evaluation.in_loop import InLoopEvaluation
from ..files import storage_problem
from ..interruption import Interruption, StopRequested, kept_from_children, stop_caution
from ..lab.planning.plan import outlook
from ..lifecycle import TrainingRun
from ..modeling.shapes import adapter_parameters, num_parameters, shape_if_known
from ..monitoring.recorder import Recorder, evidence_of
from ..preparation import Prepared, PreparedRun, prepare
from ..run_folder import RunFolder
from ..settings import Settings, SftSettings
from ..sft import SftTrainer
from ..sft_preparation import prepare_sft
from ..workers.group import HourlyBudget
from ..workers.groups import Groups, PolicyOnly, StartedGroups, join_ray
from ..workers.prometheus import PrometheusView
from ..workers.protocols import Trainer
from ..workers.specs import PolicySpec
from .export import write as write_export
from .export import write_model_card

Run = TypeVar("Run", bound=Prepared[Any])
GroupsOf = TypeVar("GroupsOf", bound=StartedGroups[Any])
LONGEST_PAUSE_SECONDS = 600.0


def run_to_export(
    run: Run,
    given: Settings | SftSettings,
    resolved: dict[str, object],
    folder: RunFolder,
    *,
    groups_of: Callable[[Callable[[], None], Callable[[str], None], Callable[[], bool]], GroupsOf],
    trainer_of: Callable[[Run, GroupsOf, Recorder, Interruption], TrainingRun[Run, Any]],
    evidence: Evidence | None = None,
    outlook: Sequence[str] = (),
) -> None:
    """Start the groups, train to the end of the schedule and export; again from the last checkpoint when a worker dies.

    `given` are the settings as the user gave them. `groups_of` makes the groups, told what to call while they wait, what with
    a line for each worker that they replace, and what says whether the run is to stop; `trainer_of` makes what trains, with
    the groups started. Raises LrmSafetyError with the one line to show, or StopRequested after a signal (a checkpoint has been
    written, unless training had not begun).
    """
    check_room(run)
    folder.begin(resolved)
    checkpoint, settings = run.checkpoint, run.settings
    with Recorder(
        run.directory,
        settings.run.name,
        settings.tracking,
        run.schedule.limits,
        asdict(given),
        command="train" if isinstance(given, Settings) else "sft",
        evidence=evidence,
        resume_state=checkpoint.state["recorder"] if checkpoint else None,
        resume_update=checkpoint.update if checkpoint else None,
        batches=isinstance(settings, Settings) and settings.algorithm.records_batches,
    ) as recorder:
        for line in (*outlook, *filter(None, [stop_caution(os.environ)])):
            recorder.note(line)
        interruption = Interruption()  # one for all attempts: a signal may reach the workers before the controller
        if checkpoint is not None:
            recorder.note(f"goes on from update {checkpoint.update} ({checkpoint.path})")

        def attempt(run: Run) -> None:
            with recorder.phases.startup("join Ray"), kept_from_children():
                # It sets a SIGTERM handler of its own, so ours comes after it.
                join_ray(settings.cluster, worker_logs=settings.tracking.worker_logs)
                recorder.watch = PrometheusView(settings.run.name).record
            groups = groups_of(interruption.check, on_replacement(run, recorder), lambda: interruption.requested)
            with interruption.handled(), groups:
                with recorder.phases.startup("start groups"):
                    groups.start(run.directory, lambda left: recorder.phases.now(f"start {', '.join(left)}"))
                hosts = groups.hosts()
                folder.tell(hosts=hosts)
                if len(set(chain(*hosts.values()))) > 1:
                    recorder.note("; ".join(f"{group} on {', '.join(names)}" for group, names in hosts.items()))
                trainer = trainer_of(run, groups, recorder, interruption)
                trainer.train()
                export_policy(run, trainer.groups.policy, recorder, interruption)

        with interruption.handled():
            with_restarts(run, recorder, interruption, attempt)


def with_restarts(run: Run, recorder: Recorder, interruption: Interruption, attempt: Callable[[Run], None]) -> None:
    """Run `attempt`, again from the last checkpoint when a worker dies, up to `trainer.max_restarts` times an hour, and as
    often from one checkpoint: what fails an hour after it each time would otherwise be done again for ever.

    What the cluster lacks at the first start no restart brings.
    """
    trainer = run.settings.trainer
    budget = HourlyBudget(trainer.max_restarts)
    begun_from: list[int] = []
    with saying_what_follows(run):
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


@contextmanager
def saying_what_follows(run: Prepared[Any]) -> Iterator[None]:
    """Around attempts: a stop before there is any checkpoint does not promise that the same command goes on from one."""
    try:
        yield
    except StopRequested as stop:
        if not run.store.committed and run.checkpoint is None:
            stop.then = f"begins anew, since nothing was {'saved' if stop.at_once else 'trained'} yet"
        raise


def _pause(seconds: float, interruption: Interruption) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        interruption.check()
        time.sleep(min(1.0, left))


def on_replacement(run: Prepared[Any], recorder: Recorder) -> Callable[[str], None]:
    """What groups call with a line for each worker that they replace: it is said, sent as an alert, and counted."""

    def replaced(line: str) -> None:
        run.replacements += 1
        recorder.alert("a worker was replaced", line)

    return replaced


def check_room(run: Prepared[Any]) -> None:
    """Raise ConfigError where the disk under the run's folder has no room for a checkpoint and the export.

    A checkpoint is weights, float32 masters and AdamW's two moments of what is trained. A model whose size the planner does not
    know is not looked at.
    """
    settings = run.settings
    shape = shape_if_known(settings.model.path)
    if shape is None:
        return
    value = 4 if settings.model.dtype == "float32" else 2
    trained = adapter_parameters(shape, settings.trainer.lora) or num_parameters(shape)
    needed = trained * (12 + value) + (num_parameters(shape) * value if settings.checkpoint.export != "none" else 0)
    if problem := storage_problem(run.directory, needed):
        raise ConfigError(
            f"run.directory={run.directory}: {problem} for one checkpoint and the export; choose another place"
        )


def export_policy(run: Prepared[Any], policy: Trainer, recorder: Recorder, interruption: Interruption) -> None:
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
            policy.export(export)
            if last is not None:
                write_model_card(export, last)
            recorder.note(f"exported to {export}")
        if best is not None:
            # From the files, so that the groups keep what they hold.
            target = export if wanted == "best" else run.directory / "export-best"
            write_export(best, target)
            recorder.note(f"the best weights, of update {best.update}, exported to {target}")


def train(settings: Settings, resolved: dict[str, object], folder: RunFolder) -> None:
    """Reinforcement learning: see `run_to_export`."""
    run = prepare(settings, folder.path.absolute())  # workers may have another working folder
    evaluation = InLoopEvaluation(run.settings, run.family, run.tokenizer, run.parser, run.sampling, run.num_embeddings)

    def controller(run: PreparedRun, groups: Groups, recorder: Recorder, interruption: Interruption) -> Controller:
        for line in groups.rollout.describe():
            recorder.note(line)
        return Controller(run, groups, recorder, interruption, evaluation)

    run_to_export(
        run,
        settings,
        resolved,
        folder,
        groups_of=partial(Groups, run.settings),
        trainer_of=controller,
        evidence=evidence_of(settings.reward, settings.evaluation),
        outlook=outlook(run.settings),
    )


def fine_tune(settings: SftSettings, resolved: dict[str, object], folder: RunFolder) -> None:
    """Supervised fine-tuning: see `run_to_export`."""
    run = prepare_sft(settings, folder.path.absolute())
    run_to_export(
        run,
        settings,
        resolved,
        folder,
        groups_of=partial(PolicyOnly, PolicySpec.of(run.settings)),
        trainer_of=SftTrainer,
    )
