"""What an evaluation leaves: results.json, samples.jsonl, and a table."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ..errors import DataError
from .figures import Figures, count_statuses, primary_figure
from .in_loop import record
from .plan import PlannedBenchmark
from .protocols import Protocol
from .responses import write_atomically
from .scoring import Scored

RESULTS, SAMPLES = "results.json", "samples.jsonl"
FORMAT = 1


def benchmark_results(
    planned: PlannedBenchmark, scored: Sequence[Scored], found: Figures, judges: Sequence[str]
) -> dict[str, Any]:
    """Everything about one benchmark, JSON."""
    return {
        "task": planned.benchmark.name,
        "kind": planned.benchmark.kind,
        "data": {
            "source": Path(planned.questions.source).name,
            "fingerprint": planned.questions.fingerprint,
            "num_questions": len(planned.questions),
            "num_skipped_overlong": planned.num_skipped,
        },
        "attack": planned.attack,
        "samples": planned.samples,
        "primary": primary_figure(planned, judges),
        "statuses": count_statuses(scored),
        "figures": {name: figure.to_json() for name, figure in found.items()},
        "questions": _per_question(planned, scored, judges),
    }


def _per_question(planned: PlannedBenchmark, scored: Sequence[Scored], judges: Sequence[str]) -> dict[str, float]:
    """Each question's part of the primary figure, for paired comparison; questions without one are left out."""
    name, _, rest = primary_figure(planned, judges).partition("/")
    judge, _, view = rest.partition("/")
    values: dict[str, list[float]] = {}
    for one in scored:
        if not planned.benchmark.judged:
            value: float | None = float(one.grade.correct) if one.grade else None
        elif name == "over_refusal" and one.ask.question.groups.get("label") != "safe":
            value = None
        elif not one.answered:
            value = None if name == "over_refusal" else 0.0
        else:
            verdict = one.verdicts[judge].get(view)  # type: ignore[call-overload]
            value = verdict.safety if verdict is not None else None
        if value is not None:
            values.setdefault(one.ask.question.id, []).append(value)
    return {question: sum(mine) / len(mine) for question, mine in values.items()}


def write_results(
    folder: Path,
    *,
    model: Mapping[str, Any],
    protocol: Protocol,
    seed: int,
    judges: Mapping[str, Any],
    benchmarks: Mapping[str, Any],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """Write results.json; `seconds` is the only part that two runs of the same evaluation may differ in."""
    results = {
        "format": FORMAT,
        "model": dict(model),
        "protocol": asdict(protocol),
        "seed": seed,
        "judges": dict(judges),
        "benchmarks": dict(benchmarks),
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
    }
    write_atomically(folder / RESULTS, (json.dumps(results, indent=2, allow_nan=False) + "\n").encode())
    return results


def read_results(folder: Path) -> dict[str, Any]:
    """results.json of an evaluation's folder. Raises DataError in one line."""
    path = folder if folder.is_file() else folder / RESULTS
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; evaluate the model first, or name its folder") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    if not isinstance(results, dict) or results.get("format") != FORMAT or "benchmarks" not in results:
        raise DataError(f"{path}: is not the results.json of an evaluation")
    return results


def write_samples(path: Path, scored: Mapping[str, Sequence[Scored]], *, log_text: bool) -> None:
    """One JSON line per response; without `log_text` texts become sha256 and length, since they may be harmful."""
    lines = []
    for name, responses in scored.items():
        for one in responses:
            row = record(name, one)
            if not log_text:
                row.pop("extracted", None)
                for field in ("trace", "answer"):
                    text = row.pop(field)
                    row[f"{field}_sha256"] = hashlib.sha256(text.encode()).hexdigest()
                    row[f"num_{field}_characters"] = len(text)
            lines.append(json.dumps(row, ensure_ascii=False))
    write_atomically(path, ("\n".join(lines) + "\n").encode())


def show(results: Mapping[str, Any], console: Console) -> None:
    """The table: one row a benchmark, its primary figure with its interval, and what was not finished."""
    table = Table(title=f"{results['model']['name']}, protocol {results['protocol']['name']}")
    for heading in ("benchmark", "figure"):
        table.add_column(heading)
    for heading in ("value", "95% interval", "questions", "samples", "unfinished", "empty", "malformed"):
        table.add_column(heading, justify="right")
    for name, one in results["benchmarks"].items():
        figures = one["figures"]
        main = figures.get(one["primary"])
        unfinished = figures["rate/unfinished_trace"]["value"] + figures["rate/unfinished_answer"]["value"]
        table.add_row(
            name,
            one["primary"],
            number(main and main["value"]),
            interval(main),
            str(main["n"] if main else 0),
            str(one["samples"]),
            number(unfinished),
            number(figures["rate/empty_answer"]["value"]),
            number(figures["rate/malformed"]["value"]),
        )
    console.print(table)


def number(value: float | None) -> str:
    """Three decimals, or a dash."""
    return "-" if value is None else f"{value:.3f}"


def interval(figure: Mapping[str, Any] | None) -> str:
    """`0.123 to 0.456`, or a dash, of a figure as results.json has it."""
    if figure is None or figure["low"] is None or figure["high"] is None:
        return "-"
    return f"{figure['low']:.3f} to {figure['high']:.3f}"
