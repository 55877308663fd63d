"""Load a set of prompts from a local file or the hub, check every row, and fingerprint what was read."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrm_safety.errors import ConfigError, DataError


@dataclass(frozen=True)
class PromptRow:
    """One prompt; `index` is its position in the set, `extra` the fields that have no name of their own."""

    index: int
    id: str
    question: str
    categories: tuple[str, ...]
    extra: dict[str, Any]


@dataclass(frozen=True)
class PromptSet:
    """Checked prompts in the order of their source.

    `fingerprint` is the sha256 of all ids and questions in order, so it tells whether two runs asked the same, whatever
    file format or extra fields the source had. `source` names the file or the hub id for messages.
    """

    rows: tuple[PromptRow, ...]
    fingerprint: str
    source: str

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[PromptRow]:
        return iter(self.rows)

    def __getitem__(self, index: int) -> PromptRow:
        return self.rows[index]


def load_prompts(
    path: str | None = None,
    hub_id: str | None = None,
    *,
    split: str = "train",
    question_field: str = "question",
    id_field: str = "id",
    category_field: str = "category",
    revision: str | None = None,
    path_key: str = "data.path",
    question_key: str | None = "data.question_field",
) -> PromptSet:
    """Load prompts from `path` (.json list, .jsonl or .csv) or, by `hub_id`, from the Hugging Face hub.

    A row without `id_field` is called after its position; `category_field` may hold a string, a list of strings or
    nothing. `split` and `revision` apply to the hub alone. `path_key` and `question_key` are what messages call the
    settings of path and `question_field`; None: the field's name is fixed.

    Raises ConfigError unless exactly one of `path` and `hub_id` is given, and DataError, which names the source, the
    row (counted from 1) and the field, for a file that is absent or torn, an empty set, a question that is missing,
    blank or no string, and an id that occurs twice.
    """
    if (path is None) == (hub_id is None):
        raise ConfigError("data: set exactly one of data.path and data.hub_id")
    if path is not None:
        source, records = path, _read_file(Path(path), path_key)
    else:
        assert hub_id is not None
        source, records = hub_id, _read_hub(hub_id, split, revision, path_key.rpartition(".")[0])
    rows = tuple(_check_rows(records, source, question_field, question_key, id_field, category_field))
    return PromptSet(rows, _fingerprint(rows), source)


def _read_file(path: Path, key: str) -> Iterable[Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file; set {key} to a .json, .jsonl or .csv file")
    readers = {".json": _read_json, ".jsonl": _read_jsonl, ".csv": _read_csv}
    if path.suffix not in readers:
        raise DataError(f"{path}: unknown format {path.suffix!r}; {key} takes .json, .jsonl or .csv")
    try:
        return readers[path.suffix](path)
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error


def _read_json(path: Path) -> list[Any]:
    try:
        records = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}: not valid JSON ({error.msg}); is the file cut off?") from error
    if not isinstance(records, list):
        raise DataError(f"{path}: holds a JSON {type(records).__name__}, expected a list of objects")
    return records


def _read_jsonl(path: Path) -> list[Any]:
    records = []
    # Only newlines end a line: str.splitlines would also cut at separators that JSON strings may hold unescaped.
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(f"{path}, line {number}: not valid JSON ({error.msg}); is the line torn?") from error
    return records


def _read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            records = list(csv.DictReader(file, strict=True))
        except csv.Error as error:
            raise DataError(f"{path}: not valid CSV ({error}); is the file cut off?") from error
    for number, record in enumerate(records, start=1):
        if None in record:
            raise DataError(f"{path}, row {number}: more columns than the header names; quote the field with commas")
    return records


def _read_hub(hub_id: str, split: str, revision: str | None, section: str) -> Iterable[Any]:
    # Imported here: it costs seconds, and local files do without it.
    from datasets import load_dataset

    try:
        return load_dataset(hub_id, split=split, revision=revision)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{hub_id}: cannot load split {split!r} from the hub ({error}); check {section}.hub_id, {section}.split and "
            f"the network, or set {section}.path to a local copy"
        ) from error


def _check_rows(
    records: Iterable[Any],
    source: str,
    question_field: str,
    question_key: str | None,
    id_field: str,
    category_field: str,
) -> Iterator[PromptRow]:
    first_with_id: dict[str, int] = {}
    for index, record in enumerate(records):
        where = f"{source}, row {index + 1}"
        if not isinstance(record, dict):
            raise DataError(f"{where}: is a JSON {type(record).__name__}, expected an object")
        question = record.get(question_field)
        if question_field not in record:
            mend = f"set {question_key} to one of" if question_key else "the row has"
            raise DataError(f"{where}: no field {question_field!r}; {mend} {', '.join(map(str, record))}")
        if not isinstance(question, str):
            kind = "null" if question is None else f"a {type(question).__name__}"
            raise DataError(f"{where}: field {question_field!r} is {kind}, expected a string")
        if not question.strip():
            raise DataError(f"{where}: field {question_field!r} is empty; drop the row or fill it")
        row_id = str(index) if record.get(id_field) is None else str(record[id_field])
        if row_id in first_with_id:
            raise DataError(
                f"{where}: field {id_field!r} repeats {row_id!r} of row {first_with_id[row_id] + 1}; ids must differ"
            )
        first_with_id[row_id] = index
        named = {question_field, id_field, category_field}
        extra = {key: value for key, value in record.items() if key not in named}
        yield PromptRow(index, row_id, question, _categories(record.get(category_field), category_field, where), extra)
    if not first_with_id:
        raise DataError(f"{source}: holds no prompts")


def _categories(value: Any, field: str, where: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise DataError(f"{where}: field {field!r} must be a string or a list of strings")
    return tuple(values)


def _fingerprint(rows: Iterable[PromptRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        # One JSON line a row: lengths and quoting keep ("a", "bc") and ("ab", "c") apart.
        digest.update(json.dumps([row.id, row.question], ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()
