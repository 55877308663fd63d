"""Ctrl-C and SIGTERM: ask the run to stop at a safe point; a second one stops it at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequested(BaseException):
    """Raised inside the controller's waits after a signal. Not an Exception: nothing may swallow it by accident."""

    def __init__(self, signal_number: int, *, at_once: bool = False) -> None:
        self.signal_number = signal_number
        self.at_once = at_once
        """Raised by a second signal at an arbitrary moment, where the state may be half-changed: nothing may be saved."""
        super().__init__(signal.Signals(signal_number).name)

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, as shells report it."""
        return 128 + self.signal_number


class Interruption:
    """Remembers the first SIGINT or SIGTERM until `check` is called outside a deferred section."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._deferred = 0

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Install the handlers, and put the former ones back at the end."""
        numbers = (signal.SIGINT, signal.SIGTERM)
        former = {number: signal.getsignal(number) for number in numbers}
        for number in numbers:
            signal.signal(number, self._receive)
        try:
            yield
        finally:
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
        """Raise StopRequested if a signal came and the present section may be left."""
        if self._received is not None and not self._deferred:
            raise StopRequested(self._received)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received is not None:
            raise StopRequested(number, at_once=True)
        self._received = number
