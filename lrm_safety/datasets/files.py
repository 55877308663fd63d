"""Read the files that users give: one reader for training prompts, supervised rows, pairs, benchmarks and reference labels.

Apart from lrm_safety/files.py, which reads what programs wrote: people save files in more forms than programs, and here most
of the code is the guess at what was meant.

Rows are counted from 1, as every message does. What a file cannot be read for is one DataError with file, line or row.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError, first_line

FORMATS = (".json", ".jsonl", ".csv", ".tsv")
# What is often given instead of text, by its first bytes.
_OTHER_CONTENT = (
    (b"\x1f\x8b", "is compressed by gzip: unpack it"),
    (b"BZh", "is compressed by bzip2: unpack it"),
    (b"\xfd7zXZ", "is compressed by xz: unpack it"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd: unpack it"),
    (b"PK\x03\x04", "is a zip archive or a spreadsheet: save its rows as text"),
    (b"PAR1", "is a Parquet file: save its rows as .jsonl"),
    (b"\xff\xfe", "is UTF-16 text: save it as UTF-8"),
    (b"\xfe\xff", "is UTF-16 text: save it as UTF-8"),
    (b"version https://git-lfs", "is a pointer of Git LFS and not the data: run `git lfs pull` where it comes from"),
    (b"<!DOCTYPE html", "is a web page and not the data: download the file itself"),
    (b"<html", "is a web page and not the data: download the file itself"),
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_csv_limit = threading.Lock()


def read_rows(path: Path, key: str | None = None) -> list[dict[str, Any]]:
    """The rows of a .json file (a list of objects), a .jsonl file, or a .csv or .tsv file with a header, all of
    them objects.

    UTF-8 with or without a byte order mark, any line ends, cells of any length. `key` is the setting that names the
    file in messages. Raises DataError for a file that is absent, of another format or torn, for text that is no valid
    Unicode, and for a key or column that one row has twice.
    """
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {kind}; set {key or 'it'} to a .json, .jsonl, .csv or .tsv file")
    if path.suffix.lower() not in FORMATS:
        raise DataError(
            f"{path}: unknown format {path.suffix!r}; {key or 'the file'} must be .json, .jsonl, .csv or .tsv, unpacked"
        )
    return _READERS[path.suffix.lower()](path)


def read_value(path: Path) -> Any:
    """The one JSON value that a file holds. Raises DataError."""
    text = read_text(path)
    return check_text(parse_json(text, str(path)), str(path))


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without its byte order mark. Raises DataError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    start = content[:64].lstrip()
    for beginning, meaning in _OTHER_CONTENT:
        if start.lower().startswith(beginning.lower()):
            raise DataError(f"{path}: {meaning}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}, line {line}: not UTF-8 at byte {error.start}; save the file as UTF-8") from error
    if "\0" in text:
        raise DataError(
            f"{path}, line {text.count(chr(10), 0, text.index(chr(0))) + 1}: holds a zero byte; save it as UTF-8"
        )
    return text


def parse_json(text: str, where: str) -> Any:
    """The JSON value that `text` is; DataError, opening with `where` and the line, whatever the parser stumbles over."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        place = where if "\n" not in text.strip() else f"{where}, line {error.lineno}"
        raise DataError(f"{place}: not valid JSON ({error.msg}, column {error.colno}){_guess(text, error)}") from error
    # Nesting without end, integers of thousands of digits, a name twice: the parser has no one class for them.
    except Exception as error:
        raise DataError(f"{where}: not JSON that can be read ({first_line(error)})") from error


def check_text(value: Any, where: str) -> Any:
    """`value` itself; DataError, opening with `where` and the field, where a text in it has half of a surrogate pair,
    which JSON can spell and no tokenizer or file can hold."""
    stack = [("", value)]
    while stack:
        name, one = stack.pop()
        if isinstance(one, str) and (found := _SURROGATE.search(one)):
            field = f", field {name!r}" if name else ""
            raise DataError(
                f"{where}{field}: character {found.start() + 1} is half of a surrogate pair (\\u{ord(found[0]):04x}), which "
                "is no text; mend or drop the row"
            )
        if isinstance(one, Mapping):
            stack.extend((name or str(key), part) for key, part in one.items())
            stack.extend((name, key) for key in one)
        elif isinstance(one, Sequence) and not isinstance(one, str | bytes):
            stack.extend((name, part) for part in one)
    return value


def _read_json(path: Path) -> list[dict[str, Any]]:
    text = read_text(path)
    if _is_json_lines(text):
        raise DataError(f"{path}: holds JSON lines, one object a line; name the file .jsonl")
    records = parse_json(text, str(path)) if text.strip() else []
    if not isinstance(records, list):
        raise DataError(f"{path}: holds {_kind(records)}, expected a list of objects")
    return [_record(record, f"{path}, row {number}") for number, record in enumerate(records, start=1)]


def _read_jsonl(path: Path) -> list[dict[str, Any]]:
    text = read_text(path)
    records: list[dict[str, Any]] = []
    # Only newlines end a line: str.splitlines would also cut at separators that JSON strings may hold unescaped.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = parse_json(line, f"{path}, line {number}")
        except DataError as error:
            if not records and "\n" in text.strip() and _is_json(text):
                raise DataError(f"{path}: holds one JSON value over several lines; name the file .json") from error
            raise
        if not records and isinstance(value, list) and _is_json(text):
            raise DataError(f"{path}: holds one JSON list, not one object a line; name the file .json")
        records.append(_record(value, f"{path}, row {len(records) + 1}"))
    return records


def _read_csv(path: Path, delimiter: str = ",") -> list[dict[str, Any]]:
    text = read_text(path)
    try:
        with _any_length():
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}: not valid {path.suffix[1:].upper()} ({error})") from error
    rows = [row for row in rows if row]
    if not rows:
        return []
    header = rows[0]
    if twice := next((name for i, name in enumerate(header) if name and name in header[:i]), None):
        raise DataError(f"{path}: the header names the column {twice!r} twice")
    if len(header) == 1 and (used := next((one for one in _SEPARATORS if one in header[0]), None)):
        raise DataError(f"{path}: its columns are parted by {_SEPARATORS[used]}; save it with commas")
    records = []
    for number, row in enumerate(rows[1:], start=1):
        if len(row) > len(header):
            used = _SEPARATORS.get(delimiter, "commas")
            raise DataError(f"{path}, row {number}: more columns than the header names; quote the field with {used}")
        filled: list[str | None] = [*row, *[None] * (len(header) - len(row))]
        records.append(dict(zip(header, filled, strict=True)))
    return records


_READERS: Mapping[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".json": _read_json,
    ".jsonl": _read_jsonl,
    ".csv": _read_csv,
    ".tsv": partial(_read_csv, delimiter="\t"),
}


@contextmanager
def _any_length() -> Iterator[None]:
    # The csv module has one limit for the whole process; it is lifted only while a file is read.
    with _csv_limit:
        before = csv.field_size_limit(sys.maxsize)
        try:
            yield
        finally:
            csv.field_size_limit(before)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"the name {twice!r} occurs twice in one object")
    return made


def _record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: is {_kind(value)}, expected an object with fields")
    checked: dict[str, Any] = check_text(value, where)
    return checked


def _kind(value: Any) -> str:
    return "null" if value is None else f"a JSON {type(value).__name__}"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except Exception:
        return False
    return True


def _is_json_lines(text: str) -> bool:
    lines = [line for line in text.split("\n") if line.strip()][:2]
    return len(lines) == 2 and all(line.lstrip().startswith("{") and _is_json(line) for line in lines)


def _guess(text: str, error: json.JSONDecodeError) -> str:
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return "; it ends inside a value: is the file cut off?"
    if text[: error.pos].rstrip().endswith(",") and text[error.pos] in "]}":
        return "; a comma stands before the closing bracket"
    if text[error.pos] == "'" or text[: error.pos].rstrip()[-1:] == "'":
        return "; JSON has double quotes: is this Python's notation?"
    return ""
