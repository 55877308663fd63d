"""`lrm-safety evaluate`: measure a model, calibrate a judge."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from rich.console import Console

from ..errors import ConfigError
from ..results import as_json
from ..run_folder import RunFolder
from ..settings import EvaluateSettings
from ..settings.compose import EVALUATE, compose_judges
from ..settings.loader import is_searchpath
from .launch import own_groups, parse
from .samples import read_samples, select
from .words import unknown_word

TRACKED_SAMPLES = 20
"""Samples of each benchmark in W&B's table, where text is logged."""


def measure(settings: EvaluateSettings, resolved: dict[str, Any], folder: RunFolder) -> None:
    """One evaluation, into the folder."""
    # Before torch and vLLM are imported: this process is the engine's.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    from ..evaluation.run import evaluate, prepare
    from ..monitoring.tracked import log_results

    directory, console = folder.path, Console()
    prepared = prepare(settings, directory)
    folder.begin(resolved)
    benchmarks = evaluate(prepared, console).benchmarks
    log_results(
        directory,
        settings.run.name,
        settings.tracking,
        "evaluate",
        resolved,
        {"evaluation": {name: as_json(one.figures) for name, one in benchmarks.items()}},
        {f"evaluation/{name}": one.headline.value for name, one in benchmarks.items() if one.headline is not None},
        select(read_samples(directory), TRACKED_SAMPLES, None, None) if settings.evaluation.log_text else (),
    )
    console.print(f"results: {directory}/results.json", soft_wrap=True)
    if settings.evaluation.log_text:
        console.print(f"logs: inspect view --log-dir {directory}/logs", soft_wrap=True)


def calibrate(arguments: list[str]) -> int:
    """Run `evaluate calibrate [judge=[OPTION,...]] [data=SET] [output=FILE]`; returns the exit status."""
    from ..evaluation.calibration import calibrate_against
    from ..files import write_json, writing

    given = parse(arguments, EVALUATE)
    options = [item for item in given.overrides if item.lstrip("+").startswith("evaluation.judges.")]
    values = dict(
        item.partition("=")[::2] for item in given.overrides if item not in options and not is_searchpath(item)
    )
    unknown = sorted(values.keys() - {"judge", "data", "output"})
    if unknown:
        takes = "judge=[NAME,...], evaluation.judges.NAME.KEY=VALUE, data=SET and output=FILE"
        raise unknown_word("evaluate calibrate", unknown[0], ("judge", "data", "output"), takes)
    output = Path(values["output"]) if "output" in values else None
    if output is not None:  # before the judges are asked
        if output.is_dir():
            raise ConfigError(f"output={output}: is a folder; name a file in it")
        with writing(f"output={output}"):
            output.parent.mkdir(parents=True, exist_ok=True)
    names = values.get("judge", "refusal_rules").strip("[]").split(",")
    judges = compose_judges(names, [*options, *own_groups(given)])
    found = calibrate_against(judges, values.get("data"), Console())
    if output is not None:
        with writing(f"output={output}"):
            write_json(output, as_json(found))
    return 0
