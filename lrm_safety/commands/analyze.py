"""`lrm-safety analyze`: reflection entropy, memorization."""

from __future__ import annotations

import os
from typing import Any

from rich.console import Console

from ..results import Memorization, Reflection, as_json
from ..run_folder import RunFolder
from ..settings import AnalyzeSettings


def reflection(settings: AnalyzeSettings, resolved: dict[str, Any], folder: RunFolder) -> None:
    """One analysis of entropy at reflection tokens, into reflection.json of the folder."""
    _prepare_threads()
    from ..lab.analysis.reflection_run import analyze_reflection

    _keep("reflection", analyze_reflection(settings, Console()), settings, resolved, folder)


def memorization(settings: AnalyzeSettings, resolved: dict[str, Any], folder: RunFolder) -> None:
    """One analysis of memorized supervised rows, into memorization.json of the folder."""
    _prepare_threads()
    from ..lab.analysis.memorization import analyze_memorization

    _keep("memorization", analyze_memorization(settings, Console()), settings, resolved, folder)


def _prepare_threads() -> None:
    """Before torch is imported: the models run in this process."""
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))


def _keep(
    kind: str,
    results: Reflection | Memorization,
    settings: AnalyzeSettings,
    resolved: dict[str, Any],
    folder: RunFolder,
) -> None:
    """Only now: an analysis that fails leaves the one before it as it is."""
    from ..monitoring.tracked import log_results

    folder.begin(resolved, f"{kind}.yaml")
    results.write(folder.path)
    log_results(folder.path, settings.run.name, settings.tracking, "analyze", resolved, {kind: as_json(results)})
    Console().print(f"results: {folder.path / results.FILE}", soft_wrap=True)
