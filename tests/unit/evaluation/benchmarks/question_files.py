"""Invented questions in the forms of the published sets, and a hub that remembers what it is asked."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from lrm_safety.evaluation.benchmarks.sources import VARIABLE


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]], **form: str) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **form).writerows([header, *rows])
    return str(path)


def renamed(header: Sequence[str], field: str) -> tuple[str, ...]:
    """Another schema: one field has another name."""
    return tuple("other" if name == field else name for name in header)


def write_star1(path: Path, *questions: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{"question": question} for question in questions]))
    return str(path)


def without_star1(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A STAR-1 that cannot be read stands for one that is absent, without asking the hub."""
    write_star1(folder / "star1" / "STAR-1.json")
    monkeypatch.setenv(VARIABLE, str(folder))


def hub_with(monkeypatch: pytest.MonkeyPatch, benchmark: ModuleType, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The hub, as `benchmark` asks it, has these rows; what it is asked is in the list."""
    asked: list[Any] = []

    def hub_rows(*arguments: Any, **more: Any) -> Any:
        asked.append((arguments, more))
        return lambda mend: (rows, f"hub@{more['revision']}")

    monkeypatch.setattr(benchmark, "hub_rows", hub_rows)
    return asked
