"""Find and read a benchmark's data: a path, a folder laid out like LRM_SAFETY_DATA, or the Hugging Face hub."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lrm_safety.errors import DataError

VARIABLE = "LRM_SAFETY_DATA"
"""Folder with one sub-folder a benchmark; set it where there is no hub."""

Row = Mapping[str, Any]


def data_file(folder: str, name: str, data: str | None = None, key: str = "data") -> Path:
    """The file `data`, or FOLDER/NAME below $LRM_SAFETY_DATA.

    Raises DataError that names the mends when it is absent; `key` is the option that `data` was given as.
    """
    if data is not None:
        path = Path(data).expanduser()
        if not path.is_file():
            raise DataError(f"{key}={data}: no such file")
        return path
    root = os.environ.get(VARIABLE)
    if root is None:
        raise DataError(f"{name}: set {VARIABLE} to a folder that holds {folder}/{name}, or {key}= to the file")
    path = Path(root, folder, name)
    if not path.is_file():
        raise DataError(f"{path}: no such file; {VARIABLE} must name a folder that holds {folder}/{name}")
    return path


def rows(
    folder: str,
    name: str,
    data: str | None,
    fields: Mapping[str, type | tuple[type, ...]],
    hub: Callable[[], Any] | None,
    hub_id: str,
    key: str = "data",
) -> tuple[list[Row], str]:
    """Checked rows and the name of their source.

    `data`, or the file below LRM_SAFETY_DATA when that has it; otherwise `hub()`, whose failure (offline, gated) is one
    DataError with every way to mend it. `key` is the option that `data` was given as.
    """
    root = os.environ.get(VARIABLE)
    if data is None and hub is not None and not (root and Path(root, folder, name).is_file()):
        return _checked(_from_hub(hub, hub_id, folder, name, key), fields, hub_id), hub_id
    path = data_file(folder, name, data, key)
    return _checked(read(path), fields, str(path)), str(path)


def hub_rows(hub_id: str, config: str | None = None, split: str = "test") -> Callable[[], Any]:
    """A loader for `rows`; nothing is fetched before it is called."""

    def load() -> Any:
        from datasets import load_dataset

        return load_dataset(hub_id, config, split=split)

    return load


def read(path: Path) -> Iterator[Row]:
    """Rows of a CSV, JSON (a list) or JSONL file; raises DataError naming the file (and line) that cannot be read."""
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                csv.field_size_limit(2**31 - 1)
                yield from csv.DictReader(file)
        elif path.suffix == ".jsonl":
            with path.open(encoding="utf-8") as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield _json(line, f"{path}, line {number}")
        else:
            content = _json(path.read_text(encoding="utf-8"), str(path))
            if not isinstance(content, list):
                raise DataError(f"{path}: must be a list of rows")
            yield from content
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error


def normalised(text: str) -> str:
    """A prompt without differences of case and white space, to find it in another set."""
    return " ".join(text.lower().split())


def star1_questions(star1: str | None = None) -> frozenset[str]:
    """Normalised questions of STAR-1 (file `star1`, the data folder, or the hub)."""
    found, _ = rows(
        "star1",
        "STAR-1.json",
        star1,
        {"question": str},
        hub_rows("UCSC-VLAA/STAR-1", split="train"),
        "UCSC-VLAA/STAR-1",
        key="star1",
    )
    return frozenset(normalised(row["question"]) for row in found)


def _json(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place}: is not JSON ({error.msg})") from error


def _from_hub(hub: Callable[[], Any], hub_id: str, folder: str, name: str, key: str) -> Iterator[Row]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield from hub()
    except (DatasetsError, HfHubHTTPError, OfflineModeIsEnabled, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(
            f"{hub_id}: cannot be had from the hub ({reason}); log in with `hf auth login` if it is gated, set {VARIABLE} to a "
            f"folder with {folder}/{name}, or {key}= to the file"
        ) from error


def _checked(found: Iterator[Row], fields: Mapping[str, type | tuple[type, ...]], source: str) -> list[Row]:
    """Every row has every field with its type; text must not be blank."""
    kept = []
    for number, row in enumerate(found):
        if not isinstance(row, Mapping):
            raise DataError(f"{source}, row {number}: is no object with fields")
        for name, kind in fields.items():
            if name not in row:
                raise DataError(f"{source}, row {number}: has no field {name}")
            value = row[name]
            if not isinstance(value, kind):
                raise DataError(f"{source}, row {number}, field {name}: is {type(value).__name__}, not {_names(kind)}")
            if isinstance(value, str) and not value.strip():
                raise DataError(f"{source}, row {number}, field {name}: is blank")
        kept.append(row)
    if not kept:
        raise DataError(f"{source}: holds no row")
    return kept


def _names(kind: type | tuple[type, ...]) -> str:
    return " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
