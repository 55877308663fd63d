"""W&B as a view of the metrics; the only module that imports wandb.

Training never waits for W&B nor stops because of it: a server that cannot be reached turns the run into an offline one
(`wandb sync` uploads it later), and a later failure of the tracker switches this view off, each with one warning.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import wandb
import wandb.errors

from ..errors import first_line
from ..settings.system import TrackerSettings
from .progress import PHASES
from .registry import GROUPS
from .rollout_files import RolloutRow, describe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_logger = logging.getLogger(__name__)
_STEP = "train/update"
_FINISH_TIMEOUT_SECONDS = 300.0
_LONGEST_NAME = 128
"""W&B refuses longer names and groups."""
_MAX_TABLE_ROWS = 1000
"""Rows of the table of rollouts, which is uploaded whole each time; the oldest go first."""

OVERVIEW = "a_overview"
"""The section of the charts that matter first; W&B sorts sections by name."""
PHASES_PICTURE = f"{OVERVIEW}/phases"
KEY_METRICS = (
    "reward/raw_mean",
    "kl/k1",
    "entropy/all",
    "response/length_mean",
    "response/unfinished_fraction",
    "response/refusal_rate",
    "train/gradient_norm",
    "mismatch/mean_abs_logprob",
    "sft/loss",
    "sft/validation_loss",
    "time/iteration_seconds",
)
"""Shown in OVERVIEW too, beside the primary figure of every benchmark."""
UNCHARTED = (
    "evaluation/*/num_questions",
    "evaluation/*/rate/*",
    "evaluation/*/no_verdict/*",
    "memory/*_rss_peak_gib",
    "reward/num_*",
    "rollout/version_lag",
    "run/*",
    "sft/num_dropped",
    "sync/version",
    "train/iteration",
    "train/passes",
)
"""Constants of a healthy run and counters: in the history and the summary, without a chart of their own."""
SUMMARIES = {
    "reward/raw_mean": "max,last",
    "kl/k1": "max,last",
    "sft/loss": "min,last",
    "sft/validation_loss": "min,last",
    "memory/*": "max",
}
"""What W&B's summary holds of a metric besides its last value, which is all of the others."""
_EVALUATION_SUMMARY = "min,max,last"


class WandbView:
    """One W&B run, offline or online; `tracker_id` resumes the run of that id."""

    def __init__(
        self,
        run_dir: Path,
        tracking: TrackerSettings,
        name: str,
        job_type: str,
        config: Mapping[str, Any],
        tracker_id: str | None = None,
        log_text: bool = False,
        init_timeout_seconds: float = 60.0,
    ) -> None:
        """Start the run in run_dir/wandb and upload the resolved configuration `config`.

        `name` and `job_type` are what the run has where `tracking` states none.
        """
        self.tracker_id = tracker_id or secrets.token_hex(4)
        self._name = _shortened(tracking.name or name)
        self._job_type = tracking.job_type or job_type
        self._log_text = log_text
        self._config = dict(config)
        self._defined: set[str] = set()
        self._rows: list[dict[str, Any]] = []
        self._run: wandb.Run | None = None
        try:
            self._run = self._open(run_dir, tracking, init_timeout_seconds)
        except Exception as error:  # as in _call
            self._fail("start", error)

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        """Log metrics; `train/update` is the x-axis, so rows may come in any order."""
        # W&B's own step counter restarts at 0 in a resumed offline run, so it is never used.
        overview = {f"{OVERVIEW}/{name.replace('/', '_')}": metrics[name] for name in metrics if is_key(name)}

        def log(run: wandb.Run) -> None:
            for name in metrics.keys() - self._defined:
                run.define_metric(name, step_metric=_STEP, hidden=is_uncharted(name), summary=summary_of(name))
            self._defined.update(metrics)
            run.log({**metrics, **overview, _STEP: update})

        self._call("log", log)

    def rollout_table(self, update: int, rows: Sequence[RolloutRow]) -> None:
        """Add rollouts to the table of the run and log it: text with `log_text`, otherwise hashes; lengths, scores, status."""
        self._rows += [{"update": update, **_for_table(describe(row, log_text=self._log_text))} for row in rows]
        self._rows = self._rows[-_MAX_TABLE_ROWS:]
        self.table("rollouts", self._rows, update)

    def table(self, name: str, rows: Sequence[Mapping[str, Any]], update: int | None = None) -> None:
        """Log a table; a column is what any row has."""
        columns: list[str | int] = list(dict.fromkeys(name for row in rows for name in row))
        data = [[row.get(str(column)) for column in columns] for row in rows]
        step = {} if update is None else {_STEP: update}
        # Columns may hold numbers of both kinds, or lack a value.
        self._call(
            "log a table",
            lambda run: run.log({name: wandb.Table(columns=columns, data=data, allow_mixed_types=True), **step}),
        )

    def phases(self, update: int, lines: Iterable[Mapping[str, Any]]) -> None:
        """Log a picture of where the time of each iteration went, of the records of metrics.jsonl; nothing without phases.

        W&B's own charts draw metrics side by side, not on one another.
        """
        if self._run is None or (figure := stacked_phases(lines)) is None:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas = FigureCanvasAgg(figure)  # W&B itself would draw with pyplot, whose figures stay open
        canvas.draw()
        picture = np.asarray(canvas.buffer_rgba())
        self._call("log a picture", lambda run: run.log({PHASES_PICTURE: wandb.Image(picture), _STEP: update}))

    def summary(self, figures: Mapping[str, float | int | str | None]) -> None:
        """Set figures of a command that has no curve."""
        self._call("log a summary", lambda run: run.summary.update(dict(figures)))

    def alert(self, title: str, text: str, level: Literal["WARN", "ERROR"] = "WARN") -> None:
        """Send an alert (kept in the file while offline)."""
        # W&B wants titles below 64 characters, and reads a wait of 0 as its default of a minute, in which it would
        # swallow a further alert of the same title.
        self._call("alert", lambda run: run.alert(title[:63], text, level=level, wait_duration=0.001))

    def close(self, exit_code: int) -> None:
        """Finish the run: its file is whole afterwards. Waits a limited time for what is not yet uploaded."""

        def finish(run: wandb.Run) -> None:
            run.finish(exit_code=exit_code)
            # finish returns before an offline file is written to its end; the end of wandb's process does not.
            wandb.teardown()

        self._call("finish", finish)
        self._run = None

    def _open(self, run_dir: Path, tracking: TrackerSettings, init_timeout_seconds: float) -> wandb.Run:
        if tracking.wandb == "online":
            try:
                # Without prompt=False, wandb.init asks for a key on a terminal and waits for ever.
                if wandb.login(prompt=False, verify=False):
                    return self._init("online", run_dir, tracking, init_timeout_seconds)
                reason = "no API key is configured; run `wandb login`"
            except (wandb.errors.Error, OSError, TimeoutError) as error:
                reason = first_line(error)
                # The failed run still holds its id in wandb's own process, until that process ends.
                wandb.teardown()
            _logger.warning("W&B cannot be reached (%s): the run goes on offline, upload it with `wandb sync`", reason)
        return self._init("offline", run_dir, tracking, init_timeout_seconds)

    def _init(
        self, mode: Literal["online", "offline"], run_dir: Path, tracking: TrackerSettings, init_timeout_seconds: float
    ) -> wandb.Run:
        run = wandb.init(
            mode=mode,
            id=self.tracker_id,
            resume="allow",
            reinit="create_new",
            dir=str(run_dir),
            project=tracking.project,
            entity=tracking.entity,
            group=None if tracking.group is None else _shortened(tracking.group),
            job_type=self._job_type,
            tags=tracking.tags,
            notes=tracking.notes,
            name=self._name,
            settings=wandb.Settings(
                x_disable_stats=not tracking.system_metrics,
                console="wrap" if tracking.console_log else "off",
                save_code=False,
                silent=True,
                init_timeout=init_timeout_seconds,
                finish_timeout=_FINISH_TIMEOUT_SECONDS,
            ),
        )
        run.config.update(self._config, allow_val_change=True)
        run.define_metric(_STEP)
        for group in (OVERVIEW, *GROUPS):
            run.define_metric(f"{group}/*", step_metric=_STEP)
        run.define_metric("rollouts", step_metric=_STEP)
        return run

    def _call(self, what: str, call: Callable[[wandb.Run], None]) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:  # whatever the tracker's process or network does must not end training
            self._fail(what, error)

    def _fail(self, what: str, error: Exception) -> None:
        self._run = None
        lost = "file of this run ends here, metrics.jsonl has every record"
        if not isinstance(error, ConnectionError):
            _logger.warning("W&B failed to %s (%s): W&B's %s", what, first_line(error), lost)
            return
        # Who stops a Ray job ends the processes below the job's as well.
        _logger.warning("W&B's own process has ended, as it does where a job is stopped: its %s", lost)
        # Otherwise W&B would try to end it once more when the interpreter exits, and print a traceback.
        with suppress(Exception):
            wandb.teardown()


def stacked_phases(lines: Iterable[Mapping[str, Any]]) -> Figure | None:
    """Seconds of an iteration by phase over updates, on one another; None where fewer than two records tell of any."""
    records = [line for line in lines if "time/iteration_seconds" in line]
    names = [name for name in (*PHASES, "controller") if any(f"time/{name}_seconds" in one for one in records)]
    if len(records) < 2 or not names:
        return None
    # matplotlib takes a second to import, and only this needs it.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    updates = [one["update"] for one in records]
    axes.stackplot(updates, [[one.get(f"time/{name}_seconds", 0.0) for one in records] for name in names], labels=names)
    axes.set(xlabel="update", ylabel="seconds an iteration", xlim=(updates[0], updates[-1]))
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=True)
    return figure


def is_key(name: str) -> bool:
    """Whether a metric is one of the few that matter first."""
    return name in KEY_METRICS or (name.startswith("evaluation/") and name.count("/") == 1)


def is_uncharted(name: str) -> bool:
    """Whether a metric gets no chart by itself."""
    return any(fnmatchcase(name, pattern) for pattern in UNCHARTED)


def summary_of(name: str) -> str | None:
    """What W&B's summary keeps of a metric; None: its last value."""
    if name.startswith("evaluation/") and is_key(name):
        return _EVALUATION_SUMMARY
    return next((kept for pattern, kept in SUMMARIES.items() if fnmatchcase(name, pattern)), None)


def _for_table(described: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for people, what is read first on the left; hashes only where there is no text."""
    first = ("prompt", "trace", "answer", "status", "shaped_reward", "raw_reward")
    kept = {name: described[name] for name in first if name in described}
    kept |= {name: value for name, value in described.items() if name not in kept}
    return {name: value for name, value in kept.items() if not ("prompt" in kept and name.endswith("_hash"))}


def _shortened(name: str) -> str:
    """`name` within W&B's limit, both ends kept: what tells runs of a sweep apart stands at the end."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:40]}...{name[-(_LONGEST_NAME - 43) :]}"
