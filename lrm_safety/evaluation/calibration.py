"""`lrm-safety evaluate calibrate`: judges against reference labels."""

from __future__ import annotations

from collections.abc import Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError
from ..results import JudgeCalibration
from ..settings import JudgeSettings
from ..settings.evaluation import judge_kind
from ..terminal import print_whole
from .benchmarks.sources import data_file
from .engine import resolve_device
from .judges.agreement import (
    LABELS,
    Calibration,
    LabelledItem,
    calibrate,
    load_air_bench_judged,
    load_xstest_completions,
)
from .judges.judge import build_judge
from .results import number

SETS = {
    "xstest_gpt4": ("xstest", "xstest_v2_completions_gpt4_gpteval.csv"),
    "xstest_llama2": ("xstest", "xstest_v2_completions_llama2new_gpteval.csv"),
    "xstest_mistral": ("xstest", "xstest_v2_completions_mistralinstruct_gpteval.csv"),
    "air_bench": ("airbench2024", "judged_responses_calibration.jsonl"),
}
"""Reference-labelled responses by name: folder and file below LRM_SAFETY_DATA. People labelled XSTest's, a judge of the
benchmark's authors AIR-Bench's."""


def reference_sets(name: str | None, *, judges_of_harm: bool = False) -> dict[str, list[LabelledItem]]:
    """One set, or all. Judges of harm find an answer to a harmless prompt safe: XSTest's safe prompts, where people labelled
    refusals, are not for them. Raises ConfigError for an unknown name or absent data."""
    if name is not None and name not in SETS:
        raise ConfigError(f"evaluate calibrate: data={name} is unknown; known: {', '.join(SETS)}")
    found = {}
    for one in [name] if name else list(SETS):
        path = str(data_file(*SETS[one]))
        found[one] = (
            load_air_bench_judged(path)
            if one == "air_bench"
            else load_xstest_completions(path, only_unsafe_prompts=judges_of_harm)
        )
    return found


def calibrate_against(
    judges: Mapping[str, JudgeSettings], data: str | None, console: Console
) -> list[JudgeCalibration]:
    """Print and return accuracy, kappa and confusion of every judge on the set `data`, or on every set."""
    table = Table(title="judges against reference labels", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("judge, data", no_wrap=True)
    for heading in ("accuracy", "kappa", "n", "no verdict", "label \\ judged", *LABELS):
        table.add_column(heading, justify="right")
    rows = []
    for name, settings in judges.items():
        sets = reference_sets(data, judges_of_harm=judge_kind(settings.kind, f"evaluation.judges.{name}.kind").of_harm)
        judge = build_judge(name, settings, device=resolve_device("auto"))
        try:
            for one, items in sets.items():
                result = calibrate(judge, items)
                rows.append(_row(name, one, result))
                shares = [number(result.accuracy), number(result.kappa)]
                counts = [
                    "\n".join(str(line[column]) for line in result.confusion.counts) for column in range(len(LABELS))
                ]
                table.add_row(
                    f"{name}\n{one}", *shares, str(result.n), str(result.n_without_verdict), "\n".join(LABELS), *counts
                )
        finally:
            judge.close()
    print_whole(console, table)
    return rows


def _row(judge: str, data: str, result: Calibration) -> JudgeCalibration:
    found = result.confusion
    return JudgeCalibration(
        judge,
        data,
        result.accuracy,
        result.kappa,
        tuple(found.labels),
        tuple(map(tuple, found.counts)),
        result.n,
        result.n_without_verdict,
    )
