"""What a worker's process is asked beside its methods (`WorkerGroup.ask`): memory and work, its card, a profile of an iteration.

A worker imports this module when it is asked, so that it stays light; one that is never asked for a profile pays nothing for it.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray

from ..files import write_atomically
from ..progress import PROGRESS

EXPORT_SECONDS = 600.0
"""Limit of writing one trace."""


def usage(worker: Any) -> tuple[dict[str, float], float]:
    """Its memory figures, and the seconds that it was at work since this was asked last."""
    return worker.memory(), PROGRESS.take_work()


def card(worker: Any) -> str | None:
    """The name of its machine's GPUs."""
    from ..modeling.cards import this_card

    return this_card()


def begin_trace(worker: Any) -> None:
    """Record operators, on CUDA kernels too, from now on."""
    import torch

    kinds = torch.profiler.ProfilerActivity
    worker.trace = torch.profiler.profile(activities=[kinds.CPU, *([kinds.CUDA] if torch.cuda.is_available() else [])])
    worker.trace.start()


def end_trace(worker: Any, folder: str, label: str) -> None:
    """Write what was recorded, for chrome://tracing and Perfetto. A worker that replaced another one meanwhile has nothing."""
    trace = worker.__dict__.pop("trace", None)
    if trace is not None:
        trace.stop()
        trace.export_chrome_trace(str(Path(folder, f"{label}-{process(worker)[1]}.json.gz")))


def process(worker: Any) -> tuple[str, str]:
    """By what Ray's timeline knows this process, and what we call it: `policy-0`."""
    context = ray.get_runtime_context()
    return str(context.get_worker_id()), str(context.get_actor_name() or "").rpartition("-")[0]


def write_timeline(path: Path, names: Mapping[str, str], began: float) -> None:
    """Ray's own record of every call since `began` (seconds since the epoch) in the controller and in the processes that `names`
    has a name for, by what `process` says. It takes a second, in which the last events come in.

    Other jobs of a cluster are left out. Rows are numbered, with their names beside, since Perfetto takes no other.
    """
    logger = logging.getLogger("ray._private.state")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it would say each time what a later version does
    try:
        events = ray.timeline()
    finally:
        logger.setLevel(level)
    rows = {f"driver:{process(None)[0]}": "controller"} | {f"worker:{one}": name for one, name in names.items()}
    numbers = {row: number for number, row in enumerate(rows)}
    shown = [
        {"ph": "M", "name": "thread_name", "pid": 0, "tid": numbers[row], "args": {"name": name}}
        for row, name in rows.items()
    ]
    shown += [
        {**event, "pid": 0, "tid": numbers[event["tid"]]}
        for event in events or ()
        if event.get("tid") in numbers and event["ts"] >= began * 1e6
    ]
    write_atomically(path, gzip.compress(json.dumps(shown).encode(), mtime=0))
