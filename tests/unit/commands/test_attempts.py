"""When a training command begins again from its last checkpoint, and what it leaves of the export that was there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lrm_safety.checkpoints import CheckpointStore
from lrm_safety.commands import train
from lrm_safety.commands.train import export_policy, with_restarts
from lrm_safety.errors import ClusterError, ConfigError, WorkerError
from lrm_safety.interruption import Interruption, StopRequested
from lrm_safety.workers.group import HourlyBudget


class FakeRecorder:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.alerts: list[str] = []
        self.notes: list[str] = []
        self.rewound: list[int | None] = []

    def alert(self, title: str, text: str) -> None:
        self.alerts.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def rewind(self, update: int | None) -> None:
        self.rewound.append(update)


@dataclass
class FakeRun:
    store: CheckpointStore
    settings: Any
    directory: Path
    checkpoint: Any = None
    restarts: int = 0


def make_run(folder: Path, *, max_restarts: int = 3, pause: float = 0.0, **checkpoint: Any) -> Any:
    trainer = SimpleNamespace(max_restarts=max_restarts, restart_pause_seconds=pause)
    settings = SimpleNamespace(trainer=trainer, checkpoint=SimpleNamespace(**checkpoint))
    return FakeRun(CheckpointStore(folder / "checkpoints", best_metric="m"), settings, folder)


def save(run: FakeRun, update: int, metric: float | None = None) -> None:
    run.store.commit(run.store.begin(update), update, state={}, config={}, data_fingerprint="x", metric=metric)


@dataclass
class Attempts:
    """Takes `minutes` on a clock each, saves the next of `updates`, and fails."""

    updates: Sequence[int | None]
    minutes: float = 0.0
    error: type[Exception] = WorkerError
    now: list[float] = field(default_factory=lambda: [0.0])
    made: int = 0

    def __call__(self, run: Any) -> None:
        assert self.made < 50, "it would go on for ever"
        update = self.updates[min(self.made, len(self.updates) - 1)]
        self.made += 1
        self.now[0] += 60 * self.minutes
        if update is not None:
            save(run, update)
        raise self.error("policy worker 0 died")


@pytest.fixture
def by_clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Attempts], None]:
    return lambda made: monkeypatch.setattr(
        train, "HourlyBudget", lambda limit: HourlyBudget(limit, lambda: made.now[0])
    )


@pytest.mark.parametrize("updates", [[None], [4]], ids=["before the first checkpoint", "after it"])
def test_what_fails_again_an_hour_after_the_same_checkpoint_ends(
    tmp_path: Path, by_clock: Callable[[Attempts], None], updates: list[int | None]
) -> None:
    made, recorder = Attempts(updates, minutes=70), FakeRecorder()
    by_clock(made)
    with pytest.raises(WorkerError):
        with_restarts(make_run(tmp_path), cast(Any, recorder), Interruption(), made)
    assert made.made == 4 and len(recorder.alerts) == 3


def test_with_progress_a_long_run_may_restart_more_often(tmp_path: Path, by_clock: Callable[[Attempts], None]) -> None:
    made = Attempts([2, 4, 6, 8, 10, 12, 12, 12, 12], minutes=70)
    by_clock(made)
    with pytest.raises(WorkerError):
        with_restarts(make_run(tmp_path), cast(Any, FakeRecorder()), Interruption(), made)
    assert made.made == 5 + 4


@pytest.mark.parametrize(("updates", "number"), [([None], 1), ([4], 4)])
def test_what_the_cluster_lacks_at_the_first_start_is_told_at_once(
    tmp_path: Path, updates: list[int | None], number: int
) -> None:
    """A mistyped address or a folder that the nodes do not share; a node that went during the run may come back."""
    made = Attempts(updates, error=ClusterError)
    with pytest.raises(ClusterError):
        with_restarts(make_run(tmp_path), cast(Any, FakeRecorder()), Interruption(), made)
    assert made.made == number


def test_a_signal_in_the_pause_before_a_restart_stops_the_run(tmp_path: Path) -> None:
    """Ray leaves a SIGTERM handler of its own behind, which would end the process with another status."""

    def attempt(run: Any) -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: pytest.fail("Ray's handler"))
        raise WorkerError("policy worker 0 died")

    interruption, recorder = Interruption(), FakeRecorder()
    recorder.alert = lambda title, text: os.kill(os.getpid(), signal.SIGTERM)  # type: ignore[method-assign]
    with interruption.handled(), pytest.raises(StopRequested) as stopped:
        with_restarts(make_run(tmp_path, pause=30.0), cast(Any, recorder), interruption, attempt)
    assert stopped.value.exit_code == 143 and stopped.value.then == "begins anew, since nothing was trained yet"


@pytest.mark.parametrize(
    ("update", "at_once", "then"),
    [
        (None, False, "begins anew, since nothing was trained yet"),  # as while it waited for resources
        (None, True, "begins anew, since nothing was saved yet"),
        (4, False, "goes on from the last checkpoint"),
        (4, True, "goes on from the last checkpoint"),
    ],
)
def test_a_stop_promises_only_a_checkpoint_that_is_there(
    tmp_path: Path, update: int | None, at_once: bool, then: str
) -> None:
    def attempt(run: Any) -> None:
        if update is not None:
            save(run, update)
        raise StopRequested(signal.SIGTERM, at_once=at_once)

    with pytest.raises(StopRequested) as stopped:
        with_restarts(make_run(tmp_path), cast(Any, FakeRecorder()), Interruption(), attempt)
    assert stopped.value.then == then


def test_an_export_that_fails_leaves_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, export="best", best_metric="m")
    save(run, 2, metric=1.0)
    (tmp_path / "export").mkdir()
    (tmp_path / "export/model.safetensors").write_bytes(b"of the start before")

    def fails(*_: object) -> None:
        raise ConfigError("export: no room")

    monkeypatch.setattr(train, "write_export", fails)
    with pytest.raises(ConfigError):
        export_policy(run, cast(Any, None), cast(Any, FakeRecorder()), Interruption())
    assert (tmp_path / "export/model.safetensors").read_bytes() == b"of the start before"


def test_the_card_is_of_the_checkpoint_that_the_run_went_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which checkpoint.resume may have named in another folder, while this one holds others."""
    run = make_run(tmp_path, export="last", best_metric=None)
    save(run, 9)
    run.store.committed = None
    run.checkpoint = SimpleNamespace(update=3)
    carded: list[int] = []
    monkeypatch.setattr(train, "write_model_card", lambda folder, checkpoint: carded.append(checkpoint.update))
    policy = SimpleNamespace(export=lambda folder: None)
    export_policy(run, cast(Any, policy), cast(Any, FakeRecorder()), Interruption())
    assert carded == [3]
