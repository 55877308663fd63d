"""Signals that have to wait for a few lines to be done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What asks a process to end."""


@contextmanager
def later() -> Iterator[None]:
    """A short section that no signal to stop cuts in two: the first that comes meanwhile is delivered after it.

    Not by blocking them: where another thread takes the signal, Python's handler runs in the main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():  # which runs no handler
        yield
        return
    came: list[int] = []

    def wait(number: int, frame: FrameType | None) -> None:
        came.append(number)

    try:
        with ExitStack() as back:  # all are put back, though the first may raise at once
            for number in STOPPING:
                if (handler := signal.getsignal(number)) not in (None, signal.SIG_IGN):
                    back.callback(signal.signal, number, handler)
                    signal.signal(number, wait)
            yield
    finally:
        if came:
            signal.raise_signal(came[0])
