"""Rows about rewards, from a file, from the hub, or made by a function: prompts with whatever else they carry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..datasets.files import check_text
from ..datasets.prompts import PromptRow, load_prompts
from ..datasets.serialised import plain_text
from ..errors import DataError, calling
from ..registry import import_function
from ..settings.paths import resolve

# No column is called so: rows are then named after their position, and may share an `id`.
_NO_FIELD = "\0"


def read_rows(
    path: str | None,
    hub_id: str | None = None,
    *,
    path_key: str,
    prompt_field: str = "prompt",
    prompt_key: str | None = None,
    category_field: str = "category",
    split: str = "train",
    revision: str | None = None,
) -> list[PromptRow]:
    """Rows in the order of their source; `extra` holds every column but prompt and category.

    `path_key` and `prompt_key` are what messages call the settings of path and `prompt_field` (None: it is fixed).
    Raises ConfigError for an absent `path` (`package:` paths allowed), DataError for rows that cannot be read.
    """
    return list(
        load_prompts(
            None if path is None else resolve(path, path_key, of="rows"),
            hub_id,
            split=split,
            revision=revision,
            question_field=prompt_field,
            id_field=_NO_FIELD,
            category_field=category_field,
            path_key=path_key,
            question_key=prompt_key,
        )
    )


def made_rows(
    function: str, num: int, seed: int, *, key: str, prompt_field: str = "prompt", category_field: str = "category"
) -> list[PromptRow]:
    """Rows of `package.module:function(num, seed)`, a list of dictionaries. Raises ConfigError for an absent function,
    DataError, opening with `key`, for anything else that it may do."""
    call: Any = import_function(function, key)
    with calling(f"{key}={function}", DataError):
        records = call(num, seed)
    if not isinstance(records, Sequence) or not records:
        raise DataError(f"{key}={function}: must return a list of at least one row")
    rows = []
    for index, record in enumerate(records):
        check_text(record, f"{key}={function}, row {index + 1}")
        if not isinstance(record, Mapping) or not isinstance(record.get(prompt_field), str):
            raise DataError(f"{key}={function}, row {index + 1}: must be a dictionary with a string {prompt_field!r}")
        category = record.get(category_field) or []
        categories = (category,) if isinstance(category, str) else category
        if not isinstance(categories, (list, tuple)) or not all(isinstance(name, str) for name in categories):
            raise DataError(
                f"{key}={function}, row {index + 1}: {category_field!r} must be a string or a list of strings"
            )
        extra = {name: value for name, value in record.items() if name not in (prompt_field, category_field)}
        prompt = plain_text(record[prompt_field], f"{key}={function}, row {index + 1}, field {prompt_field!r}")
        rows.append(PromptRow(index, str(index), prompt, tuple(categories), extra))
    return rows
