"""Two and more evaluations side by side: paired differences over the questions they share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..errors import DataError
from .results import interval, number
from .statistics import paired_difference


def check_comparable(names: Sequence[str], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """The benchmarks that all evaluations hold; raises DataError when there is none or their questions differ."""
    shared = [name for name in results[0]["benchmarks"] if all(name in other["benchmarks"] for other in results[1:])]
    if not shared:
        raise DataError(f"{', '.join(names)}: have no benchmark in common")
    for name in shared:
        first, *others = (one["benchmarks"][name] for one in results)
        for label, other in zip(names[1:], others, strict=True):
            for key in ("fingerprint", "num_questions"):
                if other["data"][key] != first["data"][key]:
                    raise DataError(
                        f"{name}: {names[0]} and {label} asked other questions (data {key}); evaluate both with the same data "
                        "and evaluation.limit"
                    )
            if other["primary"] != first["primary"]:
                raise DataError(f"{name}: {names[0]} reports {first['primary']}, {label} {other['primary']}")
    return shared


def compare(names: Sequence[str], results: Sequence[Mapping[str, Any]], console: Console) -> list[dict[str, Any]]:
    """Print and return, per shared benchmark, every evaluation's primary figure and its paired difference from the first.

    Two protocols may be compared; the table then says so.
    """
    shared = check_comparable(names, results)
    protocols = {str(one["protocol"]) for one in results}
    letters = [chr(ord("A") + i) if i < 26 else str(i) for i in range(len(names))]
    for letter, name in zip(letters, names, strict=True):
        console.print(f"{letter}: {name}")
    table = Table(title="paired differences from A", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("benchmark", ""):
        table.add_column(heading)
    for heading in ("value", "difference", "p", "n"):
        table.add_column(heading, justify="right")
    rows = []
    for benchmark in shared:
        base = results[0]["benchmarks"][benchmark]
        for letter, name, one in zip(letters, names, results, strict=True):
            mine = one["benchmarks"][benchmark]
            figure = mine["figures"].get(mine["primary"])
            row: dict[str, Any] = {
                "benchmark": benchmark,
                "figure": mine["primary"],
                "evaluation": name,
                "value": figure,
            }
            cells = [letter, f"{number(figure and figure['value'])}\n{interval(figure)}"]
            if one is not results[0]:
                paired = paired_difference(mine["questions"], base["questions"], seed=one["seed"])
                difference = paired.figure.to_json()
                row["difference"] = difference | {"p_value": paired.p_value, "test": paired.test}
                change = f"{paired.figure.value:+.3f}\n{interval(difference)}"
                cells += [change, f"{paired.p_value:.3f}", str(paired.figure.n)]
            rows.append(row)
            table.add_row(f"{benchmark}\n{mine['primary']}" if one is results[0] else "", *cells)
        table.add_section()
    console.print(table)
    if len(protocols) > 1:
        console.print("the evaluations were sampled by different protocols")
    return rows
