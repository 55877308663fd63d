"""What a person sees while a run goes on: a live view, or one line an iteration."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Protocol

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..settings import ScheduleSettings, TrackingSettings
from .progress import SILENCE_SECONDS, START_SILENCE_SECONDS, Progress, duration, every
from .registry import find

KEY_METRICS = {
    "sft/loss": "loss",
    "sft/validation_loss": "held-out loss",
    "reward/raw_mean": "reward",
    "kl/k1": "kl",
    "entropy/all": "entropy",
    "response/length_mean": "length",
    "response/unfinished_fraction": "unfinished",
    "response/refusal_rate": "refusals",
    "train/policy_kl": "policy kl",
    "train/gradient_norm": "gradient",
    "mismatch/mean_abs_logprob": "mismatch",
}
"""Metrics on the console with their short labels; the primary figure of every benchmark is shown besides."""


class Console(Protocol):
    """A view for people."""

    def phase(self, name: str | None) -> None:
        """Show what runs from now on; None: nothing in particular."""

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        """Show the key metrics of a record."""

    def note(self, text: str) -> None:
        """Show one line."""

    def close(self) -> None:
        """Leave the terminal as it should be; more than once is fine."""


class SilentConsole:
    """Shows nothing."""

    def phase(self, name: str | None) -> None:
        """Nothing to show."""

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        """Nothing to show."""

    def note(self, text: str) -> None:
        """Nothing to show."""

    def close(self) -> None:
        """Nothing to undo."""


class PlainConsole:
    """One line a record, and one for every phase of the start-up: for log files. A phase that lasts says so."""

    def __init__(
        self,
        schedule: ScheduleSettings,
        terminal: Terminal,
        clock: Callable[[], float] = time.monotonic,
        silence_seconds: float = SILENCE_SECONDS,
        update: int = 0,
    ) -> None:
        self._progress = Progress(schedule, clock, update)
        self._terminal = terminal
        self._clock = clock
        self._started = False
        self._phase: tuple[str, float] | None = None
        self._silence_seconds = silence_seconds
        self._spoke = clock()
        self._closing = ExitStack()
        self._closing.enter_context(every(min(silence_seconds, START_SILENCE_SECONDS) / 2, self._remind))

    def phase(self, name: str | None) -> None:
        self._phase = None if name is None else (name, self._clock())
        # Within the loop a line a phase would bury the records.
        if name is not None and not self._started:
            self.note(f"{name} ...")

    def _remind(self) -> None:
        phase, now = self._phase, self._clock()
        patience = self._silence_seconds if self._started else min(self._silence_seconds, START_SILENCE_SECONDS)
        if phase is not None and now - max(self._spoke, phase[1]) >= patience:
            self.note(f"{phase[0]}: {duration(now - phase[1])} so far")

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        self._started = True
        self._progress.record(update, metrics)
        parts = [f"update {update}/{self._progress.num_updates}"]
        parts += [f"{label} {value}" for label, value in key_values(metrics).items()]
        parts += _seconds(metrics)
        if (left := self._progress.seconds_left) is not None:
            parts.append(f"left {duration(left)}")
        self.note(" | ".join(parts))

    def note(self, text: str) -> None:
        self._spoke = self._clock()
        self._terminal.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._closing.close()


class LiveConsole:
    """A progress bar with the time left, the current phase and its seconds, and the key metrics of the last record."""

    def __init__(
        self,
        schedule: ScheduleSettings,
        terminal: Terminal,
        clock: Callable[[], float] = time.monotonic,
        update: int = 0,
    ) -> None:
        self._progress = Progress(schedule, clock, update)
        self._clock = clock
        self._phase: tuple[str, float] | None = None
        self._metrics: dict[str, float] = {}
        self._live = Live(console=terminal, get_renderable=self._render, refresh_per_second=2)
        self._live.start()

    def phase(self, name: str | None) -> None:
        self._phase = None if name is None else (name, self._clock())

    def record(self, update: int, metrics: Mapping[str, float]) -> None:
        self._progress.record(update, metrics)
        # Evaluation may come in a record of its own: keep what the last record does not speak of.
        self._metrics |= metrics
        self._live.refresh()

    def note(self, text: str) -> None:
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._phase = None
        self._live.stop()

    def _render(self) -> RenderableType:
        progress = self._progress
        head = Table.grid(padding=(0, 2))
        left = progress.seconds_left
        phase = "" if self._phase is None else f"{self._phase[0]} {self._clock() - self._phase[1]:.0f} s"
        head.add_row(
            Text(f"update {progress.update}/{progress.num_updates}", style="bold"),
            ProgressBar(total=progress.num_updates, completed=progress.update, width=40),
            Text("" if left is None else f"left {duration(left)}"),
            Text(phase, style="cyan"),
        )
        body = Table.grid(padding=(0, 2))
        cells = [Text.assemble((f"{label} ", "dim"), value) for label, value in key_values(self._metrics).items()]
        for start in range(0, len(cells), 5):
            body.add_row(*cells[start : start + 5])
        return Group(head, body)


def open_console(
    tracking: TrackingSettings, schedule: ScheduleSettings, terminal: Terminal | None = None, update: int = 0
) -> Console:
    """The view that tracking.console asks for; auto is live on a terminal and plain elsewhere. `update` is where the run goes
    on from."""
    terminal = terminal or Terminal()
    kind = tracking.console
    if kind == "auto":
        kind = "live" if terminal.is_terminal else "plain"
    if kind == "off":
        return SilentConsole()
    return (
        LiveConsole(schedule, terminal, update=update)
        if kind == "live"
        else PlainConsole(schedule, terminal, update=update)
    )


APART = {
    "time/startup_seconds": "start",
    "time/evaluate_seconds": "evaluation",
    "time/checkpoint_seconds": "checkpoint",
}
"""Phases that are told beside the seconds of an iteration, since they are not of its updates."""


def _seconds(metrics: Mapping[str, float]) -> list[str]:
    """`22.8 s`, of the updates alone, and `start 211.0 s` where there was one."""
    if "time/iteration_seconds" not in metrics:
        return []
    apart = {label: metrics[name] for name, label in APART.items() if metrics.get(name, 0.0) >= 0.05}
    alone = max(0.0, metrics["time/iteration_seconds"] - sum(apart.values()))
    return [f"{alone:.1f} s", *(f"{label} {seconds:.1f} s" for label, seconds in apart.items())]


def key_values(metrics: Mapping[str, float]) -> dict[str, str]:
    """Label and formatted value of the key metrics that are there, evaluation sets last."""
    names = {name: label for name, label in KEY_METRICS.items() if name in metrics}
    evaluated = [name for name in metrics if find(name).group == "evaluation" and name.count("/") == 1]
    names |= {name: name.removeprefix("evaluation/") for name in evaluated}
    return {label: f"{metrics[name]:.4g}" for name, label in names.items()}
