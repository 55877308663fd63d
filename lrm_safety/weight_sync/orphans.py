"""Processes that vLLM starts below a rollout worker end with it: what is left of them would hold the GPU's memory."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading

ENDS_WITH_WORKER = "LRM_SAFETY_ENGINE_ENDS_WITH_WORKER"
"""Environment variable of rollout workers whose engine has processes of its own; other users of vLLM do not set it."""


def end_with_parent() -> None:
    """Kill this process when the one that started it is gone, however that ended.

    vLLM's model workers watch their engine core, but the core watches nobody: an actor is killed without a word.
    """
    parent = multiprocessing.parent_process()
    if parent is None or ENDS_WITH_WORKER not in os.environ:
        return

    def watch() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
