"""Workers that hang, or only look as if; without any import that takes long."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from lrm_safety.progress import PROGRESS, tells_phases


@tells_phases
class Worker:
    """What actors do when they hang, and when they only look as if."""

    def __init__(self, index: int) -> None:
        self.index = index

    def pid(self) -> int:
        return os.getpid()

    def stop_the_second(self) -> None:
        """Worker 1 is stopped once it has beaten within this call, and worker 0 waits."""
        if self.index == 1:
            read, beats = PROGRESS.read, []
            PROGRESS.read = lambda: beats.append(read()) or beats[-1]  # type: ignore[method-assign, func-returns-value]
            while len(beats) < 2:  # the second is read after the first was sent
                time.sleep(0.1)
            os.kill(os.getpid(), signal.SIGSTOP)
        time.sleep(3600)

    def wait_for_ever(self) -> None:
        time.sleep(3600)

    def hold_the_lock(self, seconds: int) -> str:
        """As a library may: no other thread of this process runs meanwhile."""
        ctypes.PyDLL(None).sleep(seconds)
        return "done"

    def work(self, pieces: int, seconds: float) -> str:
        for _ in PROGRESS.pieces(range(pieces), "steps"):
            time.sleep(seconds)
        return "done"
