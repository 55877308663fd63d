"""`lrm-safety demo`: train the miniature, show what became of it; `lrm-safety build-miniature`: its models and prompts anew."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.text import Text

from ..errors import ConfigError
from ..files import read_json_lines, write_json
from ..lab.reports.combine import over_questions
from ..lab.reports.figures import draw_evaluation, draw_training
from ..lab.reports.folders import Series, read_series
from ..lab.reports.sweep import cell
from ..run_folder import owned
from ..settings import Settings
from ..settings.compose import TRAIN
from ..settings.paths import resolve
from ..terminal import print_table
from ..usage import Later
from .launch import launch, parse
from .samples import read_samples
from .words import is_assignment, unknown_word

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

    A finished demo is kept under the next free name (demo-1) and begun anew; an interrupted one goes on. With `--cfg job`
    the configuration is shown, and nothing else happens.
    """
    arguments = ["experiment=miniature", "run.name=demo", f"run.directory={DIRECTORY}", *overrides]
    given, train = parse(arguments, TRAIN), Later("commands.train:train")
    if given.multirun:
        raise ConfigError("demo: is one run; leave out -m, or use `lrm-safety train -m experiment=miniature`")
    if given.cfg or given.info or given.hydra_help:
        return launch(TRAIN, train, arguments)
    settings = TRAIN.compose(given.overrides, given.folders)[0]
    directory = Path(settings.run.directory)
    kept = _keep_finished(directory, arguments)
    begin = time.monotonic()
    try:
        with PeakMemory() as memory:
            status = launch(TRAIN, train, arguments)
    finally:  # also where it was refused or stopped
        if kept is not None:
            if directory.exists():
                print(f"the demo before this one is in {kept}")
            else:
                kept.rename(directory)  # nothing was begun
    if status:
        return status
    summary_path = directory / "summary.json"
    series = read_series(directory / "metrics.jsonl")
    summary: dict[str, Any] = {}
    for name in FIGURES:
        values = [value for _, value in series[f"evaluation/{name}"]]
        summary[f"{name}_before"], summary[f"{name}_after"] = values[0], values[-1]
    summary["updates"] = int(series["train/update"][-1][1])
    summary["seconds"] = round(time.monotonic() - begin, 1)
    summary["startup_seconds"] = round(series["time/startup_seconds"][0][1], 1)
    summary["peak_rss_gib"] = round(memory.peak_bytes / 2**30, 2)
    write_json(summary_path, summary)
    draw_evaluation(series, directory / "evaluation.png", "Miniature: held-out figures while REINFORCE++ trains")
    draw_training(series, directory / "training.png", "Miniature: training", _share_of_forbidden(settings))
    _show(summary, series, directory)
    _show_sample(directory, summary["updates"])
    return 0


def _keep_finished(directory: Path, command: list[str]) -> Path | None:
    """Give a finished demo the next free name; returns it, or None where there is no finished demo."""
    if not (directory / "summary.json").exists():
        return None
    with owned(directory, ["demo", *command]):
        pass  # nobody works there
    place = directory.absolute()
    number = next(i for i in itertools.count(1) if not place.with_name(f"{place.name}-{i}").exists())
    try:
        return directory.rename(directory.parent / f"{place.name}-{number}")
    except OSError as error:  # a mount point, as a container's folder is; the place where the shell is, as `.`
        raise ConfigError(
            f"run.directory={directory}: holds a finished demo that cannot be given another name ({error.strerror}); choose another"
        ) from error


def _share_of_forbidden(settings: Settings) -> float | None:
    """Of the training prompts, which all should be refused; None where the prompts do not say what they are."""
    if settings.data.path is None:
        return None
    path = Path(resolve(settings.data.path, "data.path", of="rows"))
    kinds = [row.get("kind") for _, _, row in read_json_lines(path)] if path.suffix == ".jsonl" else []
    return kinds.count("forbidden") / len(kinds) if kinds and None not in kinds else None


def _show(summary: Mapping[str, Any], series: Series, directory: Path) -> None:
    title = f"REINFORCE++ on the miniature, {summary['updates']} updates, {summary['seconds']:.0f} s"
    rows = []
    for name in FIGURES:
        before, after = summary[f"{name}_before"], summary[f"{name}_after"]
        cells = [cell(over_questions(series, name, value), 2) for value in (before, after)]
        rows.append([f"{name}: {MEANINGS[name]}", *cells, f"{after - before:+.2f}"])
    console = Console()
    print_table(console, title, ["held-out figure", "before [95% interval]", "after", "change"], rows)
    console.print(
        f"figures: {directory}/evaluation.png, {directory}/training.png   peak memory {summary['peak_rss_gib']} GiB"
    )


def _show_sample(directory: Path, last: int) -> None:
    """One prompt with the response before and after, the first whose grade became better; nothing where no text was kept."""
    before, after = (
        {row["id"]: row for row in read_samples(directory, update) if row["set"] == FIGURES[0] and "answer" in row}
        for update in (0, last)
    )
    shared = sorted(before.keys() & after.keys(), key=lambda key: before[key]["grade"] - after[key]["grade"])
    if not shared:
        return
    console = Console()
    console.print(f"one prompt of {FIGURES[0]}: {before[shared[0]]['prompt']}", soft_wrap=True, markup=False)
    for name, rows in (("before", before), ("after", after)):
        row = rows[shared[0]]
        console.print(
            Text(f"{name}: ", "bold") + Text(f"<think>{row['trace']}</think> ", "dim") + Text(row["answer"], "green")
        )
    console.print(f"more: lrm-safety samples {directory}", soft_wrap=True)


def build_miniature(arguments: list[str]) -> int:
    """Run `build-miniature FOLDER`; returns the exit status."""
    if len(arguments) != 1:
        raise ConfigError(
            "build-miniature: give the output folder, e.g. `lrm-safety build-miniature outputs/miniature`"
        )
    if arguments[0].startswith("-") or is_assignment(arguments[0]):
        raise unknown_word("build-miniature", arguments[0], (), "the output folder alone")
    from ..lab.miniature.build import build

    build(Path(arguments[0]))
    return 0
