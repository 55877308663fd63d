"""W&B as a view of the metrics; the only module that imports wandb.

Training never waits for W&B nor stops because of it: a server that cannot be reached turns the run into an offline one
(`wandb sync` uploads it later), and a later failure of the tracker switches this view off, each with one warning.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import wandb
import wandb.errors

from lrm_safety.errors import first_line
from lrm_safety.settings import Settings

from .registry import GROUPS
from .rollout_files import RolloutRow, describe

_logger = logging.getLogger(__name__)
_STEP = "train/update"
_FINISH_TIMEOUT_SECONDS = 300.0


class WandbView:
    """One W&B run, offline or online; `tracker_id` resumes the run of that id."""

    def __init__(
        self,
        run_dir: Path,
        settings: Settings,
        tracker_id: str | None,
        init_timeout_seconds: float = 60.0,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """Start the run in run_dir/wandb and upload the resolved configuration: `config`, or else `settings`."""
        self.tracker_id = tracker_id or secrets.token_hex(4)
        self._log_text = settings.tracking.log_text
        self._config = dict(asdict(settings) if config is None else config)
        self._run: wandb.Run | None = None
        try:
            self._run = self._open(run_dir, settings, init_timeout_seconds)
        except Exception as error:  # as in _call
            self._fail("start", error)

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        """Log metrics; `train/update` is the x-axis, so rows may come in any order."""
        # W&B's own step counter restarts at 0 in a resumed offline run, so it is never used.
        self._call("log", lambda run: run.log({**metrics, _STEP: update}))

    def rollout_table(self, update: int, rows: Sequence[RolloutRow]) -> None:
        """Log a table of sampled rollouts: hashes, lengths, scores and status; text only with tracking.log_text."""
        described = [describe(row, log_text=self._log_text) for row in rows]
        columns: list[str | int] = list(dict.fromkeys(name for row in described for name in row))
        data = [[row.get(str(name)) for name in columns] for row in described]

        def log(run: wandb.Run) -> None:
            run.log({"rollouts": wandb.Table(columns=columns, data=data), _STEP: update})

        self._call("log a table", log)

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

    def _open(self, run_dir: Path, settings: Settings, init_timeout_seconds: float) -> wandb.Run:
        if settings.tracking.wandb == "online":
            try:
                # Without prompt=False, wandb.init asks for a key on a terminal and waits for ever.
                if wandb.login(prompt=False, verify=False):
                    return self._init("online", run_dir, settings, init_timeout_seconds)
                reason = "no API key is configured; run `wandb login`"
            except (wandb.errors.Error, OSError, TimeoutError) as error:
                reason = first_line(error)
                # The failed run still holds its id in wandb's own process, until that process ends.
                wandb.teardown()
            _logger.warning("W&B cannot be reached (%s): the run goes on offline, upload it with `wandb sync`", reason)
        return self._init("offline", run_dir, settings, init_timeout_seconds)

    def _init(self, mode: str, run_dir: Path, settings: Settings, init_timeout_seconds: float) -> wandb.Run:
        tracking = settings.tracking
        run = wandb.init(
            mode=mode,  # type: ignore[arg-type]
            id=self.tracker_id,
            resume="allow",
            reinit="create_new",
            dir=str(run_dir),
            project=tracking.project,
            entity=tracking.entity,
            group=tracking.group,
            tags=tracking.tags,
            name=settings.run.name,
            settings=wandb.Settings(
                x_disable_stats=True,
                console="off",
                save_code=False,
                silent=True,
                init_timeout=init_timeout_seconds,
                finish_timeout=_FINISH_TIMEOUT_SECONDS,
            ),
        )
        run.config.update(self._config, allow_val_change=True)
        run.define_metric(_STEP)
        for group in GROUPS:
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
        _logger.warning("W&B failed to %s (%s): metrics.jsonl alone goes on", what, first_line(error))
