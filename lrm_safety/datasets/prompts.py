"""Load a set of prompts from a local file or the hub, check every row, and fingerprint what was read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.files import digest_of

from .files import read_rows
from .hub import read_hub
from .serialised import Source, unwrap


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
    file format or extra fields the source had.
    """

    rows: tuple[PromptRow, ...]
    fingerprint: str
    source: Source
    num_respelled: int = 0
    """Rows whose question spelled out control tokens of the model, once the set is rendered."""

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
    """Load prompts from `path` (.json list, .jsonl, .csv or .tsv) or, by `hub_id`, from the Hugging Face hub.

    A row without `id_field` is called after its position; `category_field` may hold a string, a list of strings or
    nothing. `split` and `revision` apply to the hub alone. `path_key` and `question_key` are what messages call the
    settings of path and `question_field`; None: the field's name is fixed.

    Raises ConfigError unless exactly one of `path` and `hub_id` is given, and DataError, which names the source, the
    row (counted from 1) and the field, for a file that is absent or torn, an empty set, a question that is missing,
    blank or no string, and an id that occurs twice.
    """
    if (path is None) == (hub_id is None):
        raise ConfigError("data: set exactly one of data.path and data.hub_id")
    records: Iterable[Any]
    if path is not None:
        source, records = path, read_rows(Path(path), path_key)
    else:
        assert hub_id is not None
        section = path_key.rpartition(".")[0]
        records, source = read_hub(
            hub_id,
            split=split,
            revision=revision,
            mend=f"check {section}.hub_id, {section}.split, {section}.revision and the network, or set {path_key} to a local copy",
            revision_key=f"{section}.revision",
        )
    plain, places, origin = unwrap(list(records), question_field, source, id_field)
    numbered = list(zip(places, plain, strict=True))
    rows = tuple(_check_rows(numbered, source, question_field, question_key, id_field, category_field))
    return PromptSet(rows, _fingerprint(rows), origin)


def _check_rows(
    records: Sequence[tuple[int, dict[str, Any]]],
    source: str,
    question_field: str,
    question_key: str | None,
    id_field: str,
    category_field: str,
) -> list[PromptRow]:
    first_with_id: dict[str, int] = {}
    rows: list[PromptRow] = []
    for index, record in records:
        where = f"{source}, row {index + 1}"
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
        if (first := first_with_id.get(row_id)) is not None:
            raise DataError(f"{where}: {_repeated(row_id, record, dict(records)[first], first, id_field)}")
        first_with_id[row_id] = index
        named = {question_field, id_field, category_field}
        extra = {key: value for key, value in record.items() if key not in named}
        rows.append(
            PromptRow(index, row_id, question, _categories(record.get(category_field), category_field, where), extra)
        )
    if not rows:
        raise DataError(f"{source}: holds no prompts")
    return rows


def _repeated(row_id: str, record: dict[str, Any], other: dict[str, Any], first: int, id_field: str) -> str:
    """What is said of a second row called `row_id`; `first` is the position of the other."""
    if record.get(id_field) is None:
        return (
            f"has no field {id_field!r} and was called after its position, {row_id!r}, as row {first + 1} is called; "
            f"give every row an {id_field!r}, or none"
        )
    if other.get(id_field) is None:
        return (
            f"field {id_field!r} is {row_id!r}, as row {first + 1} was called after its position, since it has none; "
            f"give every row an {id_field!r}, or none"
        )
    return f"field {id_field!r} repeats {row_id!r} of row {first + 1}; ids must differ"


def _categories(value: Any, field: str, where: str) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not all(isinstance(item, str) for item in values):
        raise DataError(f"{where}: field {field!r} must be a string or a list of strings")
    return tuple(values)


def _fingerprint(rows: Iterable[PromptRow]) -> str:
    return digest_of(json.dumps([row.id, row.question]) + "\n" for row in rows)
