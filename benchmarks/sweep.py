"""A sweep of four points side by side, against the same points one after the other."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .figures import Context, Measurement, NotMeasured

SEEDS = (1, 2, 3, 4)
UPDATES = 60
AT_ONCE = 2


def ratio(context: Context) -> Measurement:
    """Seconds with two at a time / with one, from command to table; SFT of the miniature on one rank, which leaves a core of two
    idle."""
    context.systems.end()
    seconds = {at_once: _sweep(at_once) for at_once in (1, AT_ONCE)}
    return Measurement(seconds[AT_ONCE] / seconds[1], {"seconds": seconds, "points": len(SEEDS), "updates": UPDATES})


def _sweep(at_once: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        words = (
            "sft",
            "-m",
            "hydra/launcher=local_processes",
            f"hydra.launcher.concurrency={at_once}",
            "model=miniature",
            "data=miniature_supervised",
            "sft=miniature",
            "cluster.policy.num_workers=1",
            f"seed={','.join(map(str, SEEDS))}",
            f"schedule.max_updates={UPDATES}",
            "tracking.wandb=disabled",
            f"run.directory={Path(folder) / 'runs'}",
        )
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-m", "lrm_safety", *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotMeasured(f"the sweep ended with {done.returncode}: {done.stderr.strip()[-300:]}")
        return time.monotonic() - began
