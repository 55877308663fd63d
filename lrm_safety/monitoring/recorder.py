"""The one door for everything a run tells about itself: metrics.jsonl first, then its views and its diagnosis."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..diagnosis.evidence import Evidence
from ..diagnosis.rules import finding_lines
from ..errors import LrmSafetyError
from ..interruption import kept_from_children
from ..settings import EvaluationSettings, RewardSettings, ScheduleSettings, TrackingSettings
from ..settings.evaluation import benchmark_kind
from .console import Console, open_console
from .metrics_file import Findings, MetricsFile
from .progress import Phases
from .registry import Alarms, find
from .rollout_files import RolloutRow, sample, save_rollouts
from .tensorboard import TensorBoardView

if TYPE_CHECKING:
    from .wandb_view import WandbView


class Recorder:
    """Records metrics and sampled rollouts of a run; a context manager that closes its views.

    `name`, `command` and `config` are what W&B shows of the run, `limits` bounds the console's progress, and `evidence` is
    what the diagnosis knows besides metrics. `batches`: every batch is recorded too, in batches.jsonl. `resume_state` is what
    `state()` gave for the checkpoint and `resume_update` the checkpoint's update: later lines of metrics.jsonl are dropped, since
    those updates are done again. A run that starts anew drops all.
    Raises DataError when metrics.jsonl holds a line that is no record.
    """

    def __init__(
        self,
        run_dir: Path | str,
        name: str,
        tracking: TrackingSettings,
        limits: ScheduleSettings,
        config: Mapping[str, Any],
        *,
        command: str = "train",
        evidence: Evidence | None = None,
        resume_state: Mapping[str, Any] | None = None,
        resume_update: int | None = None,
        console: Console | None = None,
        batches: bool = False,
    ) -> None:
        self._run_dir = Path(run_dir)
        self._name = name
        self._tracking = tracking
        self._tracker_id: str | None = (resume_state or {}).get("tracker_id")
        self._file = MetricsFile(self._run_dir / "metrics.jsonl", resume_update)
        self._batches = MetricsFile(self._run_dir / "batches.jsonl", resume_update) if batches else None
        self._alarms = Alarms()
        self._findings: Findings | None = None
        if tracking.diagnosis:
            path, least = self._run_dir / "findings.jsonl", tracking.diagnosis_min_records
            self._findings = Findings(path, least, resume_update, self._file.lines(), evidence or Evidence())
        self._tables = 0
        self._unshown: tuple[int, list[RolloutRow]] | None = None
        """The rollouts of the last iteration that the W&B table left out."""
        self._tensorboard: TensorBoardView | None = None
        if tracking.tensorboard:
            self._tensorboard = TensorBoardView(self._run_dir, self._file.lines())
        with kept_from_children():
            self._wandb = self._open_wandb(command, config)
        self._console = console or open_console(tracking, limits, update=resume_update or 0)
        self.watch: Callable[[Mapping[str, float]], None] | None = None
        """Told the metrics of every record; for a view that can be opened only once Ray runs."""
        self.phases = Phases(self._console)
        """The stopwatch of the controller's phases."""

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        """Append one line and hand it to the views.

        An undeclared name is an AssertionError. `iteration` of the line is train/iteration, or the last one known.
        """
        values = {name: _plain_number(value) for name, value in metrics.items()} | {"train/update": update}
        for name in values:
            find(name)
        iteration = values.get("train/iteration", self._file.last.get("iteration", 0))
        entry = {"update": update, "iteration": iteration, "time": time.time(), **values}
        self._file.append(entry)
        self._console.record(update, values)
        if self._tensorboard:
            self._tensorboard.record(entry)
        if self._wandb:
            self._wandb.record(update, values)
        if self.watch:
            self.watch(values)
        for alarm in self._alarms.fresh(update, values):
            self._console.note(f"update {update}: {alarm.text}")
            if self._wandb:
                self._wandb.alert(f"{alarm.name} left its healthy range", f"update {update}: {alarm.text}")
        for finding in self._findings.fresh(update, values) if self._findings else ():
            head, *rest = finding_lines(finding)
            for line in (f"update {update}: {head}", *rest):
                self._console.note(line)
            if self._wandb:
                text = "\n".join((f"update {update}: {finding.text}", *rest))
                title = f"{finding.rule}: {finding.evidence[0].name}"
                self._wandb.alert(title, text, "ERROR" if finding.level == "fail" else "WARN")

    def batch(self, update: int, record: Mapping[str, Any]) -> None:
        """Write which batch the updates up to `update` learned from (batch_record.py)."""
        assert self._batches is not None, "a recorder of no batches"
        self._batches.append({"update": update, **record})

    def rollout_table(self, update: int, rows: Sequence[RolloutRow]) -> None:
        """Show tracking.table_rows of the rollouts, spread over the reward, in W&B every tracking.table_every calls and at the
        end; with tracking.log_text also to a file."""
        sampled = sample(rows, self._tracking.table_rows)
        if not sampled:
            return
        if self._tracking.log_text:
            save_rollouts(self._run_dir, update, sampled)
        self._unshown = (update, sampled)
        if self._tables % self._tracking.table_every == 0:
            self._show_table()
        self._tables += 1

    def _show_table(self) -> None:
        if self._wandb and self._unshown:
            self._wandb.rollout_table(*self._unshown)
            self._unshown = None
            self._show_phases()

    def _show_phases(self) -> None:
        assert self._wandb is not None
        self._wandb.phases(self._file.last.get("update", 0), self._file.lines())

    def waiting(self, metrics: Mapping[str, float]) -> None:
        """Tell what waits at this moment to whoever watches; it belongs to no record."""
        if self.watch:
            self.watch(metrics)

    def note(self, text: str) -> None:
        """Show one line on the console."""
        self._console.note(text)

    def alert(self, title: str, text: str) -> None:
        """Show one line on the console, and send it where somebody may be woken."""
        self.note(text)
        if self._wandb:
            self._wandb.alert(title, text)

    def rewind(self, update: int | None) -> None:
        """Forget the records after `update` (None: all), before a restart within this process does them again."""
        self._file.rewind(update)
        if self._batches:
            self._batches.rewind(update)
        if self._tensorboard:
            self._tensorboard.rewrite(self._file.lines())
        if self._findings:
            self._findings.rewind(update, self._file.lines())

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps so that the tracker's run goes on under its id."""
        return {"tracker_id": self._tracker_id}

    def close(self, exit_code: int = 0) -> None:
        """Close the views and the file; more than once is fine."""
        self._console.close()
        if self._wandb:
            self._show_table()
            self._show_phases()
            self._wandb.close(exit_code)
            self._wandb = None
        if self._tensorboard:
            self._tensorboard.close()
        if self._findings:
            self._findings.close()
        if self._batches:
            self._batches.close()
        self._file.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A stop that somebody asked for is no Exception, and wakes nobody. The text of a foreign error may hold anything.
        if self._wandb and isinstance(error, Exception):
            reason = str(error) if isinstance(error, LrmSafetyError) else type(error).__name__
            self._wandb.alert(f"{self._name} failed", f"update {self._file.last.get('update', 0)}: {reason}", "ERROR")
        self.close(exit_code=0 if kind is None else 1)

    def _open_wandb(self, command: str, config: Mapping[str, Any]) -> WandbView | None:
        if self._tracking.wandb == "disabled":
            return None
        # Imported here: wandb takes seconds, and a run that does not use it need not have it.
        from .wandb_view import WandbView

        view = WandbView(
            self._run_dir,
            self._tracking,
            self._name,
            command,
            config,
            tracker_id=self._tracker_id,
            log_text=self._tracking.log_text,
        )
        self._tracker_id = view.tracker_id
        return view


def evidence_of(reward: RewardSettings, evaluation: EvaluationSettings) -> Evidence:
    """The reward that is trained on and the judges inside training, so that a judge that is the reward counts for nothing."""
    paths = frozenset(model.path for model in reward.models.values() if model.path)
    return Evidence(
        reward_paths=paths,
        judges={name: asdict(one) for name, one in evaluation.judges.items()},
        kinds={
            name: benchmark_kind(one.task, one.arguments, one.attack, f"evaluation.benchmarks.{name}.task")
            for name, one in evaluation.benchmarks.items()
        },
    )


def _plain_number(value: float) -> float:
    """A Python number that JSON and every view can take."""
    return int(value) if isinstance(value, (int, np.integer)) else float(value)
