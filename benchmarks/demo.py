"""What the last `make demo` needed, from the summary it left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from .figures import Context, Measurement, NotMeasured

SUMMARY = Path("outputs/demo/summary.json")


def measure(name: str) -> Callable[[Context], Measurement]:
    """The measurement that reads one number of the summary."""

    def read(context: Context) -> Measurement:
        if not SUMMARY.is_file():
            raise NotMeasured(f"{SUMMARY} is not there: run `make demo` first")
        return Measurement(float(json.loads(SUMMARY.read_text(encoding="utf-8"))[name]))

    return read
