"""`lrm-safety reward`: train a reward model on pairs of responses."""

from __future__ import annotations

import os
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ..results import as_json
from ..run_folder import RunFolder
from ..settings.reward_training import RewardTrainingSettings
from ..terminal import print_whole


def reward(settings: RewardTrainingSettings, resolved: dict[str, Any], folder: RunFolder) -> None:
    """One training of a reward model, into the folder."""
    # Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    from ..evaluation.engine import resolve_device
    from ..evaluation.results import interval, number
    from ..lab.reward_training.train import prepare, train
    from ..monitoring.tracked import figure_rows, tracked

    directory = folder.path
    if (directory / "results.json").exists():
        raise ConfigError(
            f"run.directory={directory}: holds a finished training; choose another run.name or run.directory"
        )
    prepared = prepare(settings, resolve_device(settings.run.device))
    folder.begin(resolved)
    console = Console()
    console.print(
        f"{len(prepared.train.pairs)} pairs to train on, {len(prepared.held_out.pairs)} held out, "
        f"{prepared.num_updates} updates on {prepared.device}",
        soft_wrap=True,
    )
    if equal := prepared.train.num_equal + prepared.held_out.num_equal:
        view = prepared.settings.pairs.view
        console.print(f"{equal} pairs left out: both responses read the same in pairs.view={view}", soft_wrap=True)
    every = max(1, prepared.num_updates // 20)

    def report(metrics: dict[str, float]) -> None:
        if metrics["update"] % every == 0 or "held_out/accuracy" in metrics:
            held_out = f", held out {metrics['held_out/accuracy']:.3f}" if "held_out/accuracy" in metrics else ""
            console.print(
                f"update {metrics['update']}: loss {metrics['loss']:.4f}, accuracy {metrics['accuracy']:.3f}{held_out}",
                soft_wrap=True,
            )

    with tracked(directory, settings.run.name, settings.tracking, "reward", resolved) as tracker:

        def record(metrics: dict[str, float]) -> None:
            report(metrics)
            if tracker is not None:
                curves = {f"reward_training/{name}": value for name, value in metrics.items() if name != "update"}
                tracker.record(int(metrics["update"]), curves)

        figures = train(prepared, directory, record).held_out
        if tracker is not None:
            rows = list(figure_rows(as_json(figures), ("held_out",)))
            tracker.summary({row["figure"]: row["value"] for row in rows})
            tracker.table("figures", rows)
    table = Table(title="held-out pairs", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("category", "accuracy", "95% interval", "prompts"):
        table.add_column(heading, justify="left" if heading == "category" else "right")
    for name, one in {"all": figures.accuracy, **figures.by_category}.items():
        table.add_row(name, number(one.value), interval(one), str(one.n))
    print_whole(console, table)
    console.print(
        f"loss {figures.loss:.4f}, expected calibration error {figures.expected_calibration_error:.4f}\n"
        f"reward model: {directory}/export\nfigures: {directory}/results.json",
        soft_wrap=True,
    )
