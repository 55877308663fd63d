"""What a run of `lrm-safety train` says of itself: its configuration and the means of its records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import read_json_lines
from ...settings import Settings
from ...settings.compose import TRAIN
from ..reports.folders import Series, is_reward_training, read_config, read_series

PHASES = ("generate", "score_wait", "logprobs", "update", "sync", "controller")
"""time/NAME_seconds of an iteration, in its order."""
BESIDE = ("startup", "evaluate", "checkpoint")
"""Those that lie between iterations."""
WARMING = 4
"""With so many records the first, in which everything is done for the first time, is left out."""


@dataclass(frozen=True)
class Observed:
    """A run, as far as it came."""

    folder: Path
    settings: Settings
    records: Sequence[Mapping[str, float]]
    """Those that are used, one of each iteration, by metric."""
    num_records: int
    updates: int
    beside: Mapping[str, float]
    """Mean seconds of a start, an evaluation, a checkpoint; absent where none was seen."""
    prompt_tokens: float | None
    peaks_gib: Mapping[str, float]
    """Largest resident memory of any worker of a group; on CUDA its peak on the GPU."""

    def mean(self, name: str) -> float | None:
        """Of one metric over the records that have it."""
        values = [record[name] for record in self.records if name in record]
        return math.fsum(values) / len(values) if values else None

    def seconds(self, phase: str) -> float:
        """Mean of an iteration; 0 for a phase that it did not have."""
        return math.fsum(record.get(f"time/{phase}_seconds", 0.0) for record in self.records) / len(self.records)

    @property
    def iteration_seconds(self) -> float:
        """All phases of an iteration."""
        return math.fsum(self.seconds(phase) for phase in PHASES)


def observe(folder: Path, flag: str = "--from") -> Observed:
    """Read a run's folder, which `flag` names; raises ConfigError, or DataError for a torn file, where it is none that a plan can
    be made from."""
    if not folder.is_dir():
        raise ConfigError(f"{flag} {folder}: is no folder; name that of a run of `lrm-safety train`")
    config = read_config(folder)
    if not config:
        raise ConfigError(f"{flag} {folder}: has no config.yaml; name the folder of a run of `lrm-safety train`")
    if is_reward_training(folder) or not config.keys() >= {"algorithm", "reward", "rollout", "schedule", "cluster"}:
        kind = "sft" if "sft" in config else "evaluate" if "evaluation" in config else "another command"
        raise ConfigError(
            f"{flag} {folder}: is a folder of {kind if ' ' in kind else f'`lrm-safety {kind}`'}, and the planner plans "
            "`lrm-safety train`; name the folder of such a run"
        )
    try:
        settings = TRAIN.checked(_as_it_ran(config))
    except ConfigError as error:
        raise ConfigError(f"{flag} {folder}: config.yaml: {error}") from error
    if not (folder / "metrics.jsonl").is_file():
        raise ConfigError(f"{flag} {folder}: has no metrics.jsonl; let the run do some updates first")
    series = read_series(folder / "metrics.jsonl")
    records = _iterations(series)
    if not records:
        raise ConfigError(
            f"{flag} {folder}: metrics.jsonl has no whole iteration yet (no record with time/generate_seconds and "
            "response/length_mean); let the run do some updates first"
        )
    return Observed(
        folder,
        settings,
        records[1:] if len(records) >= WARMING else records,
        len(records),
        int(max(value for _, value in series["train/update"])) if "train/update" in series else 0,
        _beside(series),
        _prompt_tokens(folder),
        _peaks(series, "cuda_peak" if settings.cluster.device == "cuda" else "rss_peak"),
    )


def _as_it_ran(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a run of an earlier version, whose syncs brought LoRA merged into all weights, with the key for it."""
    trainer = config.get("trainer") or {}
    lora = trainer.get("lora") or {}
    if not lora.get("rank") or "sync" in lora:
        return config
    return {**config, "trainer": {**trainer, "lora": {**lora, "sync": "merged"}}}


def _iterations(series: Series) -> list[dict[str, float]]:
    """The last record of every update that has an iteration's seconds; a resumed run may have recorded one twice."""
    found: dict[int, dict[str, float]] = {}
    for name, points in series.items():
        for update, value in points:
            found.setdefault(update, {})[name] = value
    needed = ("time/generate_seconds", "time/update_seconds", "response/length_mean", "response/length_max")
    return [record for _, record in sorted(found.items()) if all(name in record for name in needed)]


def _beside(series: Series) -> dict[str, float]:
    found = {}
    for name in BESIDE:
        values = [value for _, value in series.get(f"time/{name}_seconds", ()) if value > 0]
        if values:
            found[name] = math.fsum(values) / len(values)
    return found


def _peaks(series: Series, figure: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, points in series.items():
        worker, separator, _ = name.removeprefix("memory/").partition(f"_{figure}_gib")
        if name.startswith("memory/") and separator:
            group = worker.rpartition("_")[0]
            found[group] = max(found.get(group, 0.0), *(value for _, value in points))
    return found


def _prompt_tokens(folder: Path) -> float | None:
    """Mean over the rollouts that the run kept (tracking.log_text); None: it kept none."""
    lengths = [
        float(row["num_prompt_tokens"])
        for file in sorted((folder / "rollouts").glob("update-*.jsonl"))
        for _, _, row in read_json_lines(file)
        if "num_prompt_tokens" in row
    ]
    return math.fsum(lengths) / len(lengths) if lengths else None
