"""`lrm-safety audit-reward`: what a reward model is worth, before anything is trained with it."""

from __future__ import annotations

import os
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..monitoring.progress import waiting
from ..results import AuditedModel, as_json
from ..run_folder import RunFolder
from ..settings.audit import AuditRewardSettings
from ..terminal import print_whole

COLOURS = {"pass": "green", "warn": "yellow", "fail": "red", "none": "dim"}


def audit_reward(settings: AuditRewardSettings, resolved: dict[str, Any], folder: RunFolder) -> int:
    """One audit, into the folder; the exit status is 0 for pass and warn, 1 for fail."""
    # Before torch is imported.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    from transformers.utils.logging import disable_progress_bar

    from ..evaluation.engine import resolve_device
    from ..lab.reward_audit.audit import audit
    from ..monitoring.tracked import log_results

    disable_progress_bar()
    directory = folder.path
    # Begun once all is scored: an audit that fails leaves the one before it as it is.
    with waiting(Console(), f"reading the texts with {', '.join(settings.reward.models)}"):
        results = audit(settings, directory, resolve_device(settings.run.device), lambda: folder.begin(resolved))
    log_results(
        directory,
        settings.run.name,
        settings.tracking,
        "audit",
        resolved,
        {
            f"audit/{name}": {f"{check.view}/{check.figure}": as_json(check) for check in model.checks}
            for name, model in results.models.items()
        },
        {f"audit/{name}/verdict": model.verdict for name, model in results.models.items()},
    )
    console = Console()
    for name, model in results.models.items():
        print_whole(console, checks_table(name, model))
    verdict = results.verdict
    console.print(f"verdict: [bold {COLOURS[verdict]}]{verdict}[/]", soft_wrap=True)
    for name, model in results.models.items():
        for reason in model.reasons:
            console.print(f"  {name}, {reason}", soft_wrap=True, markup=False)
    console.print(f"figures: {directory}/audit.json", soft_wrap=True)
    return int(verdict == "fail")


def checks_table(name: str, model: AuditedModel) -> Table:
    """The checks of one model, its judged views alone."""
    table = Table(title=f"audit of {name}", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("view", no_wrap=True)
    table.add_column("figure")
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for check in model.checks:
        value = "" if check.value is None else f"{check.value:.3f}"
        level = "not judged" if check.level == "none" else check.level
        table.add_row(check.view, check.figure, value, level, style=COLOURS[check.level])
    return table
