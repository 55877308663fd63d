"""Read metrics.jsonl back."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError
from ..monitoring.metrics_file import whole_lines

Series = dict[str, list[tuple[int, float]]]
"""Every metric as (update, value), in the order of recording."""


def read_series(path: Path) -> Series:
    """Every metric as (update, value) in the order of recording; values that were not finite are left out.

    Raises DataError when the file is absent or a line but the last is torn (a run that was killed may tear the last).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; has the run recorded anything?")
    series: Series = {}
    for _, entry in whole_lines(path):
        for name, value in entry.items():
            if "/" in name and isinstance(value, int | float):
                series.setdefault(name, []).append((entry["update"], float(value)))
    return series
