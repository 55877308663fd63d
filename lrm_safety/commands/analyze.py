"""`lrm-safety analyze`: reflection entropy, memorization."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from rich.console import Console

from ..errors import ConfigError
from ..results import as_json
from ..run_folder import owned
from ..settings.compose import compose_analysis

KINDS = ("reflection", "memorization")


def analyze(arguments: list[str]) -> int:
    """Run `analyze reflection|memorization [overrides] [--cfg job]`; returns the exit status."""
    kind, *rest = arguments or [""]
    if kind not in KINDS:
        raise ConfigError(f"analyze: knows {' and '.join(KINDS)}, not {kind or 'nothing'}")
    settings, resolved = compose_analysis([item for item in rest if item not in ("--cfg", "job")])
    if "--cfg" in rest:
        print(yaml.safe_dump(resolved, sort_keys=False), end="")
        return 0
    # Before torch is imported: the models run in this process.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    from ..analysis.memorization_run import analyze_memorization
    from ..analysis.reflection_run import analyze_reflection
    from ..monitoring.tracked import log_results

    directory, console = Path(settings.run.directory), Console()
    with owned(directory, ["analyze", *arguments]) as folder:
        results = (analyze_reflection if kind == "reflection" else analyze_memorization)(settings, console)
        # Only now: an analysis that fails leaves the one before it as it is.
        folder.begin(resolved, f"{kind}.yaml")
        results.write(directory)
        log_results(directory, settings.run.name, settings.tracking, "analyze", resolved, {kind: as_json(results)})
    console.print(f"results: {directory / results.FILE}", soft_wrap=True)
    return 0
