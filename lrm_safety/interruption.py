"""Signals and deadlines: ask the run to stop, or to save, at a safe point; a second signal stops it at once.

SIGINT, SIGTERM and SIGHUP (a closed terminal; some schedulers before they take a node back) stop the run; SIGUSR1 (other
schedulers, some time before) saves a checkpoint and goes on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from .run_folder import RAY_JOB_VARIABLE
from .signals import STOPPING

AT_ONCE_SECONDS = 15.0
"""After a second signal, how long the process may take to end its actors before it leaves without."""
TRY_AGAIN = 75
"""Exit status of a run that leaves at its deadline: EX_TEMPFAIL of sysexits.h, the same command goes on."""
STOP_WAIT_VARIABLE = "RAY_JOB_STOP_WAIT_TIME_S"
"""How long Ray waits between SIGTERM and SIGKILL where a job is stopped: a variable of the job's, or of the cluster's nodes."""
RAYS_STOP_WAIT_SECONDS = 3
"""Ray's default, in its job_supervisor.py."""
SHORT_STOP_WAIT_SECONDS = 60
"""An iteration and a checkpoint of the smallest models take about that."""


class StopRequested(BaseException):
    """Raised inside the controller's waits after a signal. Not an Exception: nothing may swallow it by accident."""

    then = "goes on from the last checkpoint"
    """What the same command does afterwards."""

    def __init__(self, signal_number: int, *, at_once: bool = False) -> None:
        self.signal_number = signal_number
        self.at_once = at_once
        """Raised by a second signal at an arbitrary moment, where the state may be half-changed: nothing may be saved."""
        super().__init__(signal.Signals(signal_number).name)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it."""
        return 128 + self.signal_number


class DeadlineReached(StopRequested):
    """Raised in place of a signal's once `checkpoint.stop_after_minutes` would pass within the next iteration."""

    def __init__(self, deadline: str) -> None:
        super().__init__(signal.SIGTERM)
        self.args = (deadline,)

    @property
    def exit_code(self) -> int:
        return TRY_AGAIN


class Interruption:
    """Remembers the first signal that stops until `check` is called outside a deferred section."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._at_once: int | None = None
        self._save_asked = False
        self._deferred = 0
        self._began = time.monotonic()
        self._leaving: threading.Timer | None = None

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Install the handlers, and put the former ones back at the end."""
        # A hang-up that is ignored stays so: that is what `nohup` is for.
        stopping = [n for n in STOPPING if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]
        former = {number: signal.getsignal(number) for number in (*stopping, signal.SIGUSR1)}
        for number in stopping:
            signal.signal(number, self._receive)
        signal.signal(signal.SIGUSR1, self._receive_save)
        try:
            yield
        finally:
            if self._leaving is not None:
                self._leaving.cancel()  # the actors have been ended
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A section that must finish, such as an update or a checkpoint: `check` stays silent inside it."""
        self._deferred += 1
        try:
            yield
        finally:
            self._deferred -= 1

    def check(self) -> None:
        """Raise StopRequested if a signal came and the present section may be left; after a second one, anywhere."""
        if self._at_once is not None:
            raise StopRequested(self._at_once, at_once=True)
        if self._received is not None and not self._deferred:
            raise StopRequested(self._received)

    @property
    def requested(self) -> bool:
        """Whether a signal to stop came."""
        return self._received is not None

    def stay(self) -> None:
        """Take the next signal for a second one again: what came was an answer, after which the process has work to do."""
        self._at_once = None
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None

    def forget(self) -> None:
        """Go on as if no signal had come: whoever sent it has said that it was not meant."""
        self.stay()
        self._received = None

    def check_deadline(self, minutes: float | None, next_seconds: float) -> None:
        """Raise DeadlineReached if `next_seconds` more would pass the limit (None: there is none), counted from the start."""
        if minutes is not None and time.monotonic() - self._began + next_seconds > 60 * minutes:
            raise DeadlineReached(f"its deadline (checkpoint.stop_after_minutes={minutes:g})")

    def take_save_request(self) -> bool:
        """Whether SIGUSR1 came since the last call."""
        asked, self._save_asked = self._save_asked, False
        return asked

    def _receive_save(self, number: int, frame: FrameType | None) -> None:
        self._save_asked = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is None:
            self._received = number
            return
        if self._at_once is None:
            self._leaving = threading.Timer(AT_ONCE_SECONDS, _leave, (number,))
            self._leaving.daemon = True
            self._leaving.start()
        self._at_once = number
        # Not out of Ray's own waits: they end as errors of another kind. `check` comes within a second there.
        if not _is_rays(frame):
            raise StopRequested(number, at_once=True)


@contextmanager
def heard() -> Iterator[None]:
    """Around a whole command: SIGTERM and SIGHUP raise StopRequested while nothing else handles them, as during its imports and
    checks, where the system would end the process at once and the run folder would keep its owner."""
    process = os.getpid()
    in_rays_waits: list[int] = []

    def receive(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a child that somebody forked ends as without us
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        if _is_rays(frame):
            in_rays_waits.append(number)
            raise KeyboardInterrupt  # the only one that Ray's waits let through
        raise _before_training(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, receive)
        yield
    except KeyboardInterrupt:
        if in_rays_waits:
            raise _before_training(in_rays_waits[0]) from None
        raise
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def _before_training(number: int) -> StopRequested:
    stop = StopRequested(number, at_once=True)
    stop.then = "begins again, or goes on from what was saved before"
    return stop


@contextmanager
def kept_from_children() -> Iterator[None]:
    """Processes that others start in this section (Ray's, W&B's) never see what is sent to the whole group when a terminal
    closes or a node is taken back: this process has to save first, with their help. What comes meanwhile is not lost."""
    numbers = {signal.SIGHUP, signal.SIGUSR1}
    former = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def stop_caution(environment: Mapping[str, str]) -> str | None:
    """What a run says that is a Ray job and would be killed by `ray job stop` before it has saved; None for any other."""
    told = environment.get(STOP_WAIT_VARIABLE, "")
    seconds = int(told) if told.isdecimal() else RAYS_STOP_WAIT_SECONDS
    if RAY_JOB_VARIABLE not in environment or seconds >= SHORT_STOP_WAIT_SECONDS:
        return None
    return (
        f"caution: whoever stops this job kills it after {seconds} s, before it can save; `lrm-safety submit` gives it half an "
        f"hour, and so does {STOP_WAIT_VARIABLE}=1800 among the job's variables"
    )


def _is_rays(frame: FrameType | None) -> bool:
    return frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "ray"


def _leave(number: int) -> None:
    print(f"stopped by {signal.Signals(number).name} at once", file=sys.stderr, flush=True)
    os._exit(128 + number)
