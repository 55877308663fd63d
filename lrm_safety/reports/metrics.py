"""Read metrics.jsonl back."""

from __future__ import annotations

import json
from pathlib import Path

from ..errors import DataError


def read_series(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Every metric as (update, value) in the order of recording; values that were not finite are left out.

    Raises DataError when the file is absent or a line but the last is torn (a run that was killed may tear the last).
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; has the run recorded anything?")
    series: dict[str, list[tuple[int, float]]] = {}
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                break
            raise DataError(f"{path} line {number}: not JSON ({error})") from error
        for name, value in entry.items():
            if "/" in name and isinstance(value, int | float):
                series.setdefault(name, []).append((entry["update"], float(value)))
    return series
