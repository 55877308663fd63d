"""`lrm-safety evaluate`: measure a model, compare evaluations, calibrate a judge."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from rich.console import Console

from ..errors import ConfigError
from ..evaluation.early import check_early
from ..results import Evaluation, as_json
from ..run_folder import owned
from ..settings.compose import compose_evaluation, compose_judges
from .samples import read_samples, select

TRACKED_SAMPLES = 20
"""Samples of each benchmark in W&B's table, where text is logged."""


def evaluate(arguments: list[str]) -> int:
    """Run `evaluate [compare|calibrate] ...`; returns the exit status."""
    if arguments and arguments[0] == "compare":
        return _compare(arguments[1:])
    if arguments and arguments[0] == "calibrate":
        return _calibrate(arguments[1:])
    show_only = [item for item in arguments if item == "--cfg"]
    settings, resolved = compose_evaluation([item for item in arguments if item not in ("--cfg", "job")])
    if show_only:
        print(yaml.safe_dump(resolved, sort_keys=False), end="")
        return 0
    check_early(settings.evaluation)
    # Before torch and vLLM are imported: this process is the engine's.
    os.environ.setdefault("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0))))
    from ..evaluation.run import evaluate as run
    from ..evaluation.run import prepare
    from ..monitoring.tracked import log_results

    directory = Path(settings.run.directory)
    with owned(directory, ["evaluate", *arguments]) as folder:
        prepared = prepare(settings, directory)
        folder.begin(resolved)
        benchmarks = run(prepared, Console()).benchmarks
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
    console = Console()
    console.print(f"results: {directory}/results.json", soft_wrap=True)
    if settings.evaluation.log_text:
        console.print(f"logs: inspect view --log-dir {directory}/logs", soft_wrap=True)
    return 0


def _compare(arguments: list[str]) -> int:
    from ..evaluation.compare import compare

    if len(arguments) < 2:
        raise ConfigError("evaluate compare: give two or more folders of evaluations")
    results = [Evaluation.read(Path(folder)) for folder in arguments]
    compare(arguments, results, Console())
    return 0


def _calibrate(arguments: list[str]) -> int:
    from ..evaluation.calibration import calibrate_against
    from ..files import write_json, writing

    values = dict(item.partition("=")[::2] for item in arguments if not _is_judge_option(item))
    unknown = sorted(values.keys() - {"judge", "data", "output"})
    if unknown:
        raise ConfigError(
            "evaluate calibrate: knows judge=[NAME,...], evaluation.judges.NAME.KEY=VALUE, data=SET and output=FILE, not "
            + unknown[0]
        )
    output = Path(values["output"]) if "output" in values else None
    if output is not None:  # before the judges are asked
        if output.is_dir():
            raise ConfigError(f"output={output}: is a folder; name a file in it")
        with writing(f"output={output}"):
            output.parent.mkdir(parents=True, exist_ok=True)
    judges = compose_judges(
        values.get("judge", "refusal_rules").strip("[]").split(","),
        [item for item in arguments if _is_judge_option(item)],
    )
    found = calibrate_against(judges, values.get("data"), Console())
    if output is not None:
        with writing(f"output={output}"):
            write_json(output, found)
    return 0


def _is_judge_option(item: str) -> bool:
    return item.lstrip("+").startswith("evaluation.judges.")
