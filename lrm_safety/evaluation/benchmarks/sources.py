"""Find and read a benchmark's data: a path, a folder laid out like LRM_SAFETY_DATA, or the Hugging Face hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ...datasets.files import read_rows
from ...datasets.hub import read_hub
from ...datasets.serialised import Source, unwrap
from ...errors import DataError

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
    hub: Callable[[str], tuple[Iterable[Row], str]] | None,
    key: str = "data",
    prompt: str | None = None,
) -> tuple[list[Row], Source]:
    """Checked rows and their source.

    `data`, or the file below LRM_SAFETY_DATA when that has it; otherwise `hub(mends)`, whose failure (offline, gated) is
    one DataError with every way to mend it. `key` is the option that `data` was given as. `prompt` names the field that
    is asked: where it holds the text of a message list it is unwrapped, and a row that then repeats another is left out.
    """
    root = os.environ.get(VARIABLE)
    found: Iterable[Row]
    if data is None and hub is not None and not (root and Path(root, folder, name).is_file()):
        found, source = hub(
            f"log in with `hf auth login` if it is gated, set {VARIABLE} to a folder with {folder}/{name}, or {key}= to "
            "the file"
        )
    else:
        path = data_file(folder, name, data, key)
        found, source = read_rows(path, key), str(path)
    checked = _checked(found, fields, source)
    if prompt is None:
        return checked, Source(source)
    plain, _, origin = unwrap(checked, prompt, source)
    return list(plain), origin


def hub_rows(
    hub_id: str, config: str | None = None, split: str = "test", *, revision: str | None, key: str = "revision"
) -> Callable[[str], tuple[Iterable[Row], str]]:
    """A loader for `rows`; nothing is fetched before it is called. `key` is the option that pins the `revision`."""
    return lambda mend: read_hub(hub_id, config, split=split, revision=revision, mend=mend, revision_key=key)


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
        hub_rows("UCSC-VLAA/STAR-1", split="train", revision=None, key="star1"),
        key="star1",
        prompt="question",
    )
    return frozenset(normalised(row["question"]) for row in found)


def star1_group(star1: str | None = None, *, required: bool = False) -> Callable[[str], str]:
    """What the group `in_star1` says of a prompt: yes or no; unknown where STAR-1's default cannot be had, unless it is
    `required`. Raises DataError for a stated file that is absent or wrong."""
    try:
        known = star1_questions(star1)
    except DataError:
        if required or star1 is not None:
            raise
        return lambda prompt: "unknown"
    return lambda prompt: "yes" if normalised(prompt) in known else "no"


def _checked(found: Iterable[Row], fields: Mapping[str, type | tuple[type, ...]], source: str) -> list[Row]:
    """Every row has every field with its type; text must not be blank."""
    kept = []
    for number, row in enumerate(found, start=1):
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
