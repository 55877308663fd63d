"""From a command to its first update."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from .figures import Context, Measurement, NotMeasured

STARTS = 3


def first_update(context: Context) -> Measurement:
    """Seconds from the command to the line of the first updates, the miniature, median; the evaluation that comes before any
    update is left out. What the first run of a machine has to read from its disk is in the page cache after one start more."""
    context.systems.end()
    _first_update()
    seconds = [_first_update() for _ in range(STARTS)]
    return Measurement(median(seconds), {"seconds": seconds})


def _first_update() -> float:
    with tempfile.TemporaryDirectory() as folder:
        words = (
            "train",
            "experiment=miniature",
            "schedule.max_updates=2",  # those of one batch
            "evaluation=none",
            "checkpoint.best_metric=null",
            "tracking.wandb=disabled",
            "tracking.console=plain",
            f"run.directory={Path(folder) / 'run'}",
        )
        began, seconds, said = time.monotonic(), None, "nothing"
        command = [sys.executable, "-m", "lrm_safety", *words]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as run:
            assert run.stdout is not None
            for line in run.stdout:
                said = line.strip() or said
                if seconds is None and line.startswith("update 2/2"):
                    seconds = time.monotonic() - began
        if run.returncode or seconds is None:
            raise NotMeasured(f"the run ended with {run.returncode}: {said[-300:]}")
        return seconds
