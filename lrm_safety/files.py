"""Files that are whole or absent, read in one way, known by their content, with the mode that the user's umask says.

JSON here is what one of our commands or a library wrote. Rows that users give come in more forms, and a mistake in one wants a
guess at what was meant: their reader is datasets/files.py.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .errors import ConfigError, DataError, LrmSafetyError

STORAGE_ERRORS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.ESTALE,
    errno.ENAMETOOLONG,
}
"""What a full, lost or forbidden disk says, and of a name that it cannot take; any other OSError is a defect of ours."""
_PROBE_BYTES = 1 << 20


def write_atomically(path: Path, content: bytes | str, *, shared: bool = False) -> None:
    """Write beside and rename: the file is whole or absent. One process writes a file at a time, several only if it is
    `shared`; what one that was killed left beside is written over. Text becomes UTF-8."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}" if shared else f".{path.name}")
    try:
        with unfinished.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(path)
    except BaseException:
        with suppress(OSError):  # what went wrong first is what is told
            unfinished.unlink()
        raise


@contextmanager
def writing(place: str, mend: str = "choose another") -> Iterator[None]:
    """For what a user names to be written: an OSError inside becomes ConfigError, "PLACE: cannot be written (WHY); MEND"."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{place}: cannot be written ({error.strerror or error}); {mend}") from error


def write_json(path: Path, content: Any, **layout: Any) -> None:
    """Results for people and programs; NaN and infinity are not JSON and raise ValueError. `layout`: of json.dumps."""
    write_atomically(path, json.dumps(content, allow_nan=False, **{"indent": 2, **layout}) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, letters of any alphabet as they are; NaN and infinity raise ValueError."""
    write_atomically(path, "".join(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path, error: type[LrmSafetyError] = DataError, mend: str = "") -> dict[str, Any]:
    """The JSON object that a file holds. Raises `error` in one line that names the file and ends with `mend`."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise error(_told(path, "is absent", mend)) from None
    except OSError as reason:
        raise error(_told(path, f"cannot be read ({reason.strerror})", mend)) from reason
    except (ValueError, RecursionError) as reason:
        raise error(_told(path, f"cannot be read: is not JSON ({reason})", mend)) from reason
    if not isinstance(content, dict):
        raise error(_told(path, "cannot be read: is not a JSON object", mend))
    return content


def read_json_lines(path: Path, mend: str = "") -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number from 1, text with its line break, and object of every line.

    A last line without a line break that is no object is left out: a process that appends was killed while it wrote. Raises
    DataError for any other, which names the line and ends with `mend`.
    """
    try:
        # Only newlines end a line: str.splitlines would also cut at separators that JSON strings may hold unescaped.
        *lines, rest = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    except OSError as reason:
        raise DataError(_told(path, f"cannot be read ({reason.strerror})", mend)) from reason
    for number, line in enumerate([*lines, rest] if rest else lines, start=1):
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            values = None
        if isinstance(values, dict):
            yield number, line + "\n", values
        elif number <= len(lines):
            raise DataError(_told(path, "cannot be read: is not a JSON object", mend, number))


def _told(path: Path, fault: str, mend: str, line: int | None = None) -> str:
    return f"{path}{'' if line is None else f', line {line}'}: {fault}{mend and '; '}{mend}"


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested dictionaries by dotted key; an empty dictionary is a leaf."""
    leaves: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{name}.")
        else:
            leaves[f"{prefix}{name}"] = value
    return leaves


def differences(old: Mapping[str, Any], new: Mapping[str, Any], ignore: Set[str] = frozenset()) -> list[str]:
    """Differences of two configurations as sorted lines "key: old -> new", values as JSON, their first 60 characters.

    An ignored key covers everything below it: "tracking" covers tracking.project. A key that only one side has is
    compared with (absent). Lists are compared as wholes; tuples count as lists, as JSON has them.
    """
    before, after = ({key: _as_json(value) for key, value in flatten(one).items()} for one in (old, new))
    return [
        f"{key}: {_short(before.get(key, '(absent)'))} -> {_short(after.get(key, '(absent)'))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not any(f"{key}.".startswith(f"{name}.") for name in ignore)
    ]


def _as_json(value: Any) -> str:
    # 1 and 1.0 are one value: OmegaConf makes floats of integers where the schema says float.
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."


def put_in_place(folder: Path, place: Path) -> None:
    """Rename a whole folder to `place`; one that is there is removed once the new one stands."""
    former = place.with_name(f".{place.name}.former")
    shutil.rmtree(former, ignore_errors=True)
    if place.exists():
        place.rename(former)
    folder.rename(place)
    shutil.rmtree(former, ignore_errors=True)


def digest_of(parts: Iterable[bytes | str]) -> str:
    """sha256 of the parts in order, in hexadecimal digits, text as UTF-8. Of several parts each has to say where it ends (by a
    line break, its length): ("a", "bc") and ("ab", "c") are one to it."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part.encode() if isinstance(part, str) else part)
    return found.hexdigest()


def number_of(text: str) -> int:
    """64 bits that the text alone decides, on every machine: a seed or a draw by name, whatever else is drawn."""
    return int(digest_of([text])[:16], 16)


def digest(path: Path) -> str:
    """sha256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(paths: Iterable[Path]) -> dict[Path, str]:
    """`digest` of many files, a few at a time: hashing does not hold Python's lock."""
    files = list(paths)
    with ThreadPoolExecutor(max_workers=min(8, len(files) or 1)) as pool:
        return dict(zip(files, pool.map(digest, files), strict=True))


def describe_files(root: Path, paths: Iterable[Path]) -> dict[str, dict[str, int | str]]:
    """Bytes and sha256 of files by their name below `root`: what a manifest says of them."""
    return {
        str(path.relative_to(root)): {"bytes": path.stat().st_size, "sha256": found}
        for path, found in digests(paths).items()
    }


def changed_file(root: Path, described: Mapping[str, Mapping[str, int | str]]) -> str | None:
    """The first file that is not what `describe_files` said of it, and how it differs; None where all are. A file that the disk
    does not give, or that is removed meanwhile, is one of them."""
    for name, wanted in described.items():
        file = root / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != wanted["bytes"]:
            return f"{name} has {file.stat().st_size} bytes instead of {wanted['bytes']}"
    try:
        contents = digests(root / name for name in described)
    except OSError as error:
        return f"{Path(error.filename or root).name} cannot be read ({error.strerror})"
    for path, found in contents.items():
        name = str(path.relative_to(root))
        if found != described[name]["sha256"]:
            return f"the content of {name} is not what was written"
    return None


def give_usual_modes(folder: Path) -> None:
    """Give a folder and everything in it the modes of newly made files: some libraries write through temporary files, which
    are their owner's alone, and a colleague, or a server under another user, could not read the result."""
    mask = _umask()
    for directory, _, names in os.walk(folder):
        os.chmod(directory, 0o777 & ~mask)
        for name in names:
            os.chmod(Path(directory, name), 0o666 & ~mask)


def _umask() -> int:
    """This process's umask, read without changing it: other threads make files at the same time."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    return 0o022


def storage_problem(folder: Path, needed_bytes: int = 0) -> str | None:
    """Why the disk under a folder cannot take `needed_bytes` more, in a few words; None where it can.

    Asks the file system for its free space, and writes a file for a moment: quotas and read-only disks show only then.
    """
    place = next(path for path in (folder, *folder.parents) if path.is_dir())
    state = os.statvfs(place)
    free = state.f_bavail * state.f_frsize
    if free < max(needed_bytes, _PROBE_BYTES):
        return f"{place} is full: {amount(free)} free, about {amount(needed_bytes)} needed"
    probe = place / f".room.{os.getpid()}"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return f"{place}: {error.strerror}"
    finally:
        probe.unlink(missing_ok=True)
    return None


def disk_says(error: BaseException) -> str | None:
    """What the disk said where an error comes of it, None for any other error. Libraries in Rust (safetensors, tokenizers) raise
    classes of their own, with the number in the text."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (told := re.search(r"\(os error (\d+)\)", str(error))):
        number = int(told[1])
    return os.strerror(number) if number in STORAGE_ERRORS else None


def amount(num_bytes: float) -> str:
    """Bytes for people, in powers of 1000 as disks are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"
