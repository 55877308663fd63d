"""`lrm-safety tensorboard`: event files of finished or running runs, for TensorBoard."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..errors import ConfigError, DataError
from ..files import writing
from ..monitoring.metrics_file import whole_lines
from ..monitoring.tensorboard import FOLDER, TensorBoardView
from .words import is_assignment, unknown_word


def tensorboard(arguments: list[str]) -> int:
    """Run `tensorboard FOLDER [FOLDER ...]`; returns the exit status."""
    if unknown := [item for item in arguments if item.startswith("-") or is_assignment(item)]:
        raise unknown_word(
            "tensorboard", unknown[0], (), "folders of runs alone, e.g. `lrm-safety tensorboard outputs`"
        )
    if not arguments:
        raise ConfigError("tensorboard: give folders of runs, e.g. `lrm-safety tensorboard outputs`")
    for name in arguments:
        found = sorted(Path(name).rglob("metrics.jsonl"))
        if not found:
            raise DataError(f"{name}: no run in it or below it (a run has metrics.jsonl)")
        for path in found:
            events = list((path.parent / FOLDER).glob("events.out.tfevents.*"))
            # A run that writes its own events (tracking.tensorboard) keeps them.
            if not events or max(one.stat().st_mtime_ns for one in events) < path.stat().st_mtime_ns:
                with writing(str(path.parent / FOLDER), "remove it, or mend its folder"):
                    TensorBoardView(path.parent, (values for _, values in whole_lines(path))).close()
            print(path.parent / FOLDER)
    print(f"look at them: tensorboard --logdir {arguments[0]}")
    if importlib.util.find_spec("tensorboard") is None:
        print("TensorBoard itself is not installed here: pip install tensorboard")
    return 0
