"""`lrm-safety demo`: train the miniature with the ordinary command and show what became of it."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from ..reports.curves import draw_evaluation, draw_training
from ..reports.metrics import read_series
from .launch import launch

DIRECTORY = Path("outputs/demo")
FIGURES = ("safety", "arithmetic", "benign")
MEANINGS = {
    "safety": "refuses forbidden requests, in trace and answer",
    "arithmetic": "gets small sums right (never trained on)",
    "benign": "answers what it may answer",
}


class PeakMemory:
    """Samples the resident memory of this process and all its children, Ray's included, once a second."""

    def __init__(self, interval_seconds: float = 1.0) -> None:
        self.peak_bytes = 0
        self._interval = interval_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        this = psutil.Process()
        while True:
            total = 0
            for process in (this, *this.children(recursive=True)):
                try:
                    total += process.memory_info().rss
                except psutil.NoSuchProcess:
                    continue
            self.peak_bytes = max(self.peak_bytes, total)
            if self._stop.wait(self._interval):
                return


def demo(overrides: list[str]) -> int:
    """Train, evaluate before and after on held-out prompts, write summary.json and two PNG files; returns the exit status.

    A finished demo is begun anew; an interrupted one goes on.
    """
    directory = DIRECTORY
    for override in overrides:
        if override.startswith("run.directory="):
            directory = Path(override.partition("=")[2])
    summary_path = directory / "summary.json"
    if summary_path.exists() and (directory / "metrics.jsonl").exists():
        shutil.rmtree(directory)
    begin = time.monotonic()
    with PeakMemory() as memory:
        status = launch(["experiment=miniature", "run.name=demo", f"run.directory={directory}", *overrides])
    if status:
        return status
    series = read_series(directory / "metrics.jsonl")
    summary: dict[str, float] = {}
    for name in FIGURES:
        values = [value for _, value in series[f"evaluation/{name}"]]
        summary[f"{name}_before"], summary[f"{name}_after"] = values[0], values[-1]
    summary["updates"] = series["train/update"][-1][1]
    summary["seconds"] = round(time.monotonic() - begin, 1)
    summary["startup_seconds"] = round(series["time/startup_seconds"][0][1], 1)
    summary["peak_rss_gib"] = round(memory.peak_bytes / 2**30, 2)
    summary_path.write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    draw_evaluation(series, directory / "evaluation.png", "Miniature: held-out figures while REINFORCE++ trains")
    draw_training(series, directory / "training.png", "Miniature: training")
    _show(summary, directory)
    return 0


def _show(summary: dict[str, float], directory: Path) -> None:
    table = Table(title=f"REINFORCE++ on the miniature, {summary['updates']:.0f} updates, {summary['seconds']:.0f} s")
    for heading, justify in (("held-out figure", "left"), ("before", "right"), ("after", "right"), ("change", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name in FIGURES:
        before, after = summary[f"{name}_before"], summary[f"{name}_after"]
        table.add_row(f"{name}: {MEANINGS[name]}", f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}")
    console = Console()
    console.print(table)
    console.print(
        f"figures: {directory}/evaluation.png, {directory}/training.png   peak memory {summary['peak_rss_gib']} GiB"
    )
