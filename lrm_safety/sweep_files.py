"""What a sweep and its points leave in their folders: which are finished, what they do, what they came to.

SWEEP/multirun.yaml     Hydra's record of how the last sweep that began here was configured
SWEEP/POINT/            folder of one run, named after its overrides
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from .checkpoints import NOT_IDENTITY, CheckpointStore
from .errors import ConfigError, DataError
from .files import read_json, read_json_lines, write_atomically
from .interruption import StopRequested
from .results import Evaluation
from .run_folder import ENVIRONMENT
from .settings.keys import with_defaults

SWEEP_RECORD = "multirun.yaml"
OF_A_PLACE = {"tracking", "run"}
"""Groups of a configuration that say how a run is called and where it goes, not what it does."""


def is_of_a_sweep(folder: Path) -> bool:
    """Whether a folder is a sweep's, and no run's itself."""
    return (folder / SWEEP_RECORD).is_file() and not (folder / ENVIRONMENT).is_file()


def num_points(folder: Path) -> int:
    """Runs in folders below this one."""
    return sum(1 for _ in folder.glob(f"*/**/{ENVIRONMENT}"))


def refuse_in_a_sweep(folder: Path) -> None:
    """Raise ConfigError for a single run in the folder of a sweep, whose report and table would be of the run alone."""
    if is_of_a_sweep(folder) and (below := num_points(folder)):
        raise ConfigError(
            f"run.directory={folder}: is the folder of a sweep, with {below} run{'s' * (below > 1)} below it; to go on with the "
            "sweep give -m and all its values, for a run of its own choose another run.name or run.directory"
        )


def refuse_in_a_run(folder: Path, key: str) -> None:
    """Raise ConfigError for a sweep in the folder of a single run; `key` named it."""
    if (folder / ENVIRONMENT).is_file():
        raise ConfigError(
            f"{key}={folder}: is the folder of a run, and a sweep's points need one of their own; choose another "
            f"{'run.name or run.directory' if key == 'run.directory' else key}"
        )


def refuse_another_point(folder: Path, settings: Any) -> None:
    """Raise ConfigError where a folder has the checkpoint of another configuration than its point would have now, as far as the
    configuration itself tells: the run also compares what models and data hold."""
    checkpoint = getattr(settings, "checkpoint", None)
    if checkpoint is None or checkpoint.resume != "auto" or checkpoint.allow_changes:
        return
    if (newest := CheckpointStore(folder / "checkpoints").newest()) is None:
        return
    known = replace(newest, config=with_defaults(newest.config, type(settings)))
    ignore = NOT_IDENTITY | {"content"}
    if changes := known.differences(asdict(settings), newest.data_fingerprint, ignore):
        raise known.refused(changes)


@contextmanager
def record_of_a_sweep(folder: Path, points: Collection[tuple[Path, Mapping[str, Any]]]) -> Iterator[None]:
    """Around a sweep, of which Hydra writes the record first: where none of its `points` (folder, resolved configuration) came to
    be, as every one was refused, the record is that of the sweep before again, or none."""
    record = folder / SWEEP_RECORD
    before = record.read_bytes() if record.is_file() else None
    try:
        yield
    except StopRequested:  # points may run on that have not written anything yet
        raise
    except BaseException:
        _put_back(record, before, points)
        raise
    _put_back(record, before, points)


def _put_back(record: Path, before: bytes | None, points: Collection[tuple[Path, Mapping[str, Any]]]) -> None:
    if not record.is_file() or any(holds(*point) or _is_newer(point[0] / ENVIRONMENT, record) for point in points):
        return
    if before is None:
        record.unlink()
    else:
        write_atomically(record, before)


def _is_newer(file: Path, other: Path) -> bool:
    return file.is_file() and file.stat().st_mtime_ns >= other.stat().st_mtime_ns


def finished(folder: Path, resolved: Mapping[str, Any]) -> bool:
    """Whether the last start of a run folder came to its end, with the configuration that it would have now."""
    try:
        return bool(read_json(folder / ENVIRONMENT)["starts"][-1]["exit_status"] == 0) and holds(folder, resolved)
    except (DataError, LookupError, TypeError):
        return False


def holds(folder: Path, resolved: Mapping[str, Any]) -> bool:
    """Whether a folder has a run of this configuration."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        return what_it_does(config) == what_it_does(resolved)
    except (OSError, AttributeError, yaml.YAMLError):
        return False


def what_it_does(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without how its run is called and where it goes: of two runs that are alike here one is the other again."""
    return {key: value for key, value in config.items() if key not in OF_A_PLACE}


def objective_of(folder: Path, metric: str | None) -> float | None:
    """The last value of a metric of a run folder, or of an evaluation's figure; None where none is asked for.

    Raises ConfigError where the run has no such metric.
    """
    if metric is None:
        return None
    if (folder / "metrics.jsonl").is_file():
        for _, _, line in reversed(list(read_json_lines(folder / "metrics.jsonl"))):
            if isinstance(line.get(metric), (int, float)):
                return float(line[metric])
    elif (folder / Evaluation.FILE).is_file():
        benchmarks = Evaluation.read(folder).benchmarks
        found = benchmarks.get(metric.removeprefix("evaluation/"))
        if found is not None and found.headline is not None and found.headline.value is not None:
            return float(found.headline.value)
    raise ConfigError(
        f"run.objective={metric}: the run in {folder} has no value of it; choose a metric of docs/metrics.md"
    )
