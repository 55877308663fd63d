"""Share of an iteration in which nothing generates, scores, trains or syncs: a short run of the miniature."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import median

from lrm_safety.lab.reports.folders import read_series

from .figures import Context, Measurement, NotMeasured

ITERATIONS = 7
SKIPPED = 2
"""The first iterations pay for caches and compilation."""
UPDATES_PER_ITERATION = 2
LIMIT_SECONDS = 240


def controller_fraction(series: Mapping[str, Sequence[tuple[int, float]]]) -> tuple[float, list[float]]:
    """Median over iterations, after the skipped ones, of controller seconds / iteration seconds; and each of them.

    Controller seconds are what lies outside every phase: mini-batches, advantages, metrics, records, console.
    """
    whole = dict(series["time/iteration_seconds"])
    own = dict(series["time/controller_seconds"])
    fractions = [own[update] / whole[update] for update in sorted(whole)][SKIPPED:]
    return median(fractions), fractions


@cache
def run_of_miniature(context: Context) -> Mapping[str, Sequence[tuple[int, float]]]:
    """Metrics of the miniature, trained for a few iterations with the ordinary command."""
    directory = context.directory / "controller"
    shutil.rmtree(directory, ignore_errors=True)
    command = [
        *(sys.executable, "-m", "lrm_safety", "train", "experiment=miniature", f"run.directory={directory}"),
        *(f"schedule.max_updates={ITERATIONS * UPDATES_PER_ITERATION}", "checkpoint.export=false"),
        # Neither belongs to an iteration, and both would make the share smaller.
        *(
            "checkpoint.every_updates=0",
            "evaluation.every_updates=0",
            "checkpoint.best_metric=null",
            "tracking.console=off",
        ),
    ]
    try:
        finished = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        raise NotMeasured(f"the run of the miniature took over {LIMIT_SECONDS} seconds") from None
    if finished.returncode:
        raise NotMeasured(f"the run of the miniature failed: {finished.stderr.strip()[-300:]}")
    return read_series(directory / "metrics.jsonl")


def measure(context: Context) -> Measurement:
    """What `controller_fraction` says of the run of the miniature."""
    series = run_of_miniature(context)
    value, fractions = controller_fraction(series)
    phases = {
        name: median(seconds for _, seconds in values[SKIPPED:])
        for name, values in series.items()
        if name.startswith("time/") and len(values) > SKIPPED
    }
    return Measurement(value, {"fractions": fractions, "median_seconds": phases})
