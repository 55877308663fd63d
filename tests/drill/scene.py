"""One fault in one run: start the run, wait for a moment, do harm, watch, start the same command again, compare."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from running import TINY, Command, all_metric_lines, metric_lines
from safetensors.torch import load_file

from lrm_safety.weight_sync.shm import SHARED_MEMORY

TWO_RANKS = (
    "sft",
    "model=miniature",
    "data=miniature_supervised",
    "sft=miniature",
    "sft.batch_size=16",
    "sft.validation_fraction=0.02",
    "schedule.max_updates=40",
    "checkpoint.every_updates=8",
    "checkpoint.keep_last=3",
    "tracking.wandb=disabled",
    "tracking.console=plain",
)
ONE_RANK = "cluster.policy.num_workers=1"
BASES: dict[str, tuple[str, ...]] = {
    "two ranks": TWO_RANKS,
    "one rank": (*TWO_RANKS, ONE_RANK),
    "train": (
        "train",
        *TINY,
        ONE_RANK,
        "schedule.max_updates=16",
        "checkpoint.every_updates=4",
        "tracking.wandb=disabled",
    ),
}
"""The runs that are harmed, and that an undisturbed one of each is compared with: cheap supervised ones where that is enough,
with two ranks where that makes a difference."""

KINDS = {
    "policy": r"^ray::PolicyWorker",
    "engine": r"^ray::RolloutWorker",
    "reward": r"^ray::RewardWorker",
    "reference": r"^ray::ReferenceWorker",
    "raylet": r"/raylet/raylet ",
    "gcs": r"/gcs_server ",
    "agent": r"^ray::DashboardAgent",
}
"""Processes below a run, by what their command lines say."""

ROUNDING = 1e-5
"""Largest difference of a weight that another order of sums may make within the few updates of a drill."""
GRACE_SECONDS = 120.0
"""Two of Ray's own agents wait a minute for a killed cluster's server before they end."""


CACHES = ("torchinductor_",)
"""What is in a temporary folder to stay: later runs read it."""


class NotRun(Exception):
    """The fault cannot be made here, for the reason given."""


@dataclass
class Row:
    """What became of one fault."""

    fault: str
    harm: str = ""
    outcome: str = ""
    """survived, restarted, ended, HUNG, or not run."""
    noticed: float | None = None
    """Seconds from the harm to the first line about it."""
    cause: str = ""
    """That line."""
    again: str = ""
    """What the same command came to afterwards: equal, within rounding, finished; empty where it was not needed."""
    orphans: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """What breaks the promise; empty: nothing."""
    seconds: float = 0.0

    @property
    def as_promised(self) -> bool:
        return not self.wrong and not self.orphans


class Subject(Command):
    """A run that is harmed."""

    def processes(self, kind: str) -> list[psutil.Process]:
        """Those of `KINDS` that live, the oldest first."""
        found = []
        for process in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if re.search(KINDS[kind], " ".join(process.cmdline())):
                    found.append(process)
        return sorted(found, key=lambda process: process.pid)

    def busy_with(self, call: str) -> bool:
        """Whether Ray shows a worker in this call, such as `RolloutWorker.generate`."""
        for process in self.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(part == f"ray::{call}" for part in process.cmdline()):
                    return True
        return False

    def living(self) -> list[psutil.Process]:
        """Processes once seen below the run that are still there."""
        return [process for process in self._seen.values() if lives(process)]


class Scene:
    """What a fault is made with. `patience` stretches every limit, for machines that do other things besides."""

    def __init__(self, name: str, base: str, folder: Path, seed: int, patience: float) -> None:
        self.name, self.base, self.folder, self.patience = name, base, folder, patience
        self.random = random.Random(f"{seed} {name}")
        self.run = folder / "run"
        self._temporary = folder / "tmp"
        self._temporary.mkdir(parents=True, exist_ok=True)
        self.temporary = {"TMPDIR": str(self._temporary), "RAY_TMPDIR": tempfile.gettempdir()}
        """A temporary folder of the run's own, but for Ray, whose sockets want a short one."""
        self.subjects: list[Subject] = []
        self.lasting: tuple[str, ...] = ()
        """Overrides that every start has, and the undisturbed run too."""
        self.layout: tuple[str, ...] = ()
        """Overrides that every start has and that change nothing of what is learned."""
        self.environment: dict[str, str] = {}
        self.prefix: tuple[str, ...] = ()
        """The command that starts the run's."""
        self.before_again: Callable[[], None] = lambda: None
        """Mends what the harm broke outside the run."""
        self.look_besides: Callable[[], list[str]] = list
        """What a run left behind elsewhere."""
        self.cleanups: list[Callable[[], None]] = []
        self.row = Row(name)
        self._harmed_at = 0.0
        self._said = ("", "")
        self._stopped = False

    @property
    def subject(self) -> Subject:
        return self.subjects[-1]

    def start(self, *overrides: str) -> Subject:
        """Start the run, or start it again. Raises NotRun once the drill was stopped."""
        if self._stopped:
            raise NotRun("the drill was stopped")
        arguments = (*BASES[self.base], f"run.directory={self.run}", *self.lasting, *self.layout, *overrides)
        self.subjects.append(Subject(self.folder, arguments, prefix=self.prefix, **self.temporary | self.environment))
        return self.subject

    def finish(self, seconds: float = 300.0) -> int:
        """Wait for the end of the run."""
        return self.subject.wait(seconds * self.patience)

    def until(self, condition: Callable[[], Any], seconds: float = 200.0, pause: float = 0.1) -> None:
        """Wait while the run lives."""
        deadline = time.monotonic() + seconds * self.patience
        while not condition():
            if self.subject.process.poll() is not None:
                pytest.fail(f"ended with {self.subject.process.returncode} before the harm: {last_lines(self.subject)}")
            if time.monotonic() > deadline:
                pytest.fail(f"the moment for the harm did not come within {seconds * self.patience:g} s")
            time.sleep(pause)

    def update(self) -> int:
        """The last update in metrics.jsonl; -1 before the first."""
        try:
            return max((int(line["update"]) for line in all_metric_lines(self.run)), default=-1)
        except (OSError, ValueError):
            return -1

    def moment(self, first: int | None = None, last: int | None = None) -> None:
        """Wait for a random moment between two updates: of the middle half of the run, unless they are given."""
        if first is None or last is None:
            first, last = (4, 9) if self.base == "train" else (9, 30)
        update = self.random.randint(first, last)
        self.until(lambda: self.update() >= update)
        time.sleep(self.random.random() * (1.0 if self.base == "train" else 0.3))

    def harm(self, what: str, action: Callable[[], object]) -> None:
        """Do it, and remember when."""
        self.subject.children()
        self.row.harm = f"{what}, at update {max(self.update(), 0)}"
        before = self.subject
        self._said = (before.stdout, before.stderr)
        self._harmed_at = time.monotonic()
        action()
        if self.subject is not before:
            self._said = ("", "")  # the harm was done between two starts

    def signal(self, kind: str, number: signal.Signals) -> None:
        """Send a signal to a random process of a kind, or to the controller."""
        found = self.subject.processes(kind) if kind != "controller" else [psutil.Process(self.subject.process.pid)]
        if not found:
            pytest.fail(f"there is no process of kind {kind}")
        self.harm(f"{number.name} to {kind}", lambda: self.random.choice(found).send_signal(number))

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something a while after, beside the watching."""
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()

    def news(self) -> str:
        """What the run printed since the harm."""
        return self.subject.stdout[len(self._said[0]) :] + "\n" + self.subject.stderr[len(self._said[1]) :]

    def watch(self, says: str | None, seconds: float) -> int | None:
        """Wait for the end of the run, and for the line about the harm; the exit status, None where it hung."""
        deadline = time.monotonic() + seconds * self.patience
        looked = 0.0
        while (status := self.subject.process.poll()) is None and time.monotonic() < deadline:
            if time.monotonic() - looked > 1.0:
                self.subject.children()
                looked = time.monotonic()
            self._look(says)
            time.sleep(0.1)
        self._look(says)
        return status

    def _look(self, says: str | None) -> None:
        if says is None or self.row.noticed is not None:
            return
        for line in self.news().splitlines():
            if re.search(says, line):
                self.row.noticed, self.row.cause = time.monotonic() - self._harmed_at, line.strip()
                return

    def leftovers(self) -> list[str]:
        """What no run of this scene may leave: its weights in shared memory, files in its temporary folder, half a checkpoint,
        a note of ownership."""
        pids = {str(subject.process.pid) for subject in self.subjects}
        left = [str(path) for path in SHARED_MEMORY.glob("lrm_safety-*") if path.name.rpartition("-")[2] in pids]
        listening = Path(
            "/proc/net/unix"
        ).read_text()  # as in a folder of the dashboard of a head of Ray that still lives
        left += [
            str(path)
            for path in self._temporary.iterdir()
            if not path.name.startswith(CACHES) and f" {path}/" not in listening
        ]
        left += [str(path) for path in self.run.glob("checkpoints/.*")]
        return left + [str(path) for path in self.run.glob(".owner*")] + self.look_besides()

    def stop(self) -> None:
        """End the run in progress, and start no other: called from another thread than the one that makes the fault."""
        self._stopped = True
        for subject in self.subjects:
            if subject.process.poll() is None:
                subject.process.kill()

    def close(self) -> None:
        """End whatever is left, and clean up."""
        for subject in self.subjects:
            with contextlib.suppress(psutil.NoSuchProcess):
                for process in subject.living():
                    process.send_signal(signal.SIGCONT)
            subject.close()
        self.clean_up()

    def clean_up(self) -> None:
        """Undo what was mounted or started beside the run."""
        while self.cleanups:
            self.cleanups.pop()()


def lives(process: psutil.Process) -> bool:
    """Whether it still does anything."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # it ended between the two questions
        return False


def last_lines(subject: Command, count: int = 4) -> str:
    """The end of what a run printed, on one line."""
    lines = [line.strip() for line in subject.output.splitlines() if line.strip()]
    return " / ".join(lines[-count:])[-600:]


def difference(run: Path, other: Path) -> float:
    """Largest difference of a weight of two exports; 0.0 only where metrics are the same too, to the bit."""
    one, two = (load_file(folder / "export" / "model.safetensors") for folder in (run, other))
    assert one.keys() == two.keys()
    largest = max(float((one[name].float() - two[name].float()).abs().max()) for name in one)
    return largest or (0.0 if _curve(run) == _curve(other) else float("inf"))


def _curve(run: Path) -> list[dict[str, Any]]:
    """What was learned from, update by update; evaluations change nothing of it."""
    learned = [line for line in metric_lines(run) if "train/iteration" in line]
    return [{name: value for name, value in line.items() if not name.startswith("evaluation/")} for line in learned]


def is_root() -> bool:
    return os.geteuid() == 0
