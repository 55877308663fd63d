"""metrics.jsonl, the source of truth about a run, and findings.jsonl: one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from lrm_safety.errors import DataError, FolderLostError
from lrm_safety.files import read_json_lines, write_atomically
from lrm_safety.run_folder import owned_by_another

from .rollout_files import to_json_line


class MetricsFile:
    """Appends records, each flushed to the operating system, so that a killed process loses at most a torn last line.

    Opening repairs such a line by dropping it. Raises DataError when another line is not JSON.
    """

    def __init__(self, path: Path, keep_until: int | None) -> None:
        """Open `path`, keeping only lines with `update` <= `keep_until` (None: none); see `rewind`."""
        self._path = path
        self._file: TextIO | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        self.last: dict[str, Any] = {}
        """The last line that was kept or written; empty at the start of a run."""
        self.rewind(keep_until)

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one record.

        Raises FolderLostError, with this and all records written again, when the file was removed meanwhile, and DataError
        when another process has taken the folder.
        """
        assert self._file is not None, "the file is closed"
        if not self._in_place():
            self._write_again(line)
        self._file.write(to_json_line(line))
        self._file.flush()
        self.last = dict(line)

    def _in_place(self) -> bool:
        """Whether the file that is written is still the one at its path."""
        assert self._file is not None
        try:
            there = self._path.stat()
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._file.fileno()))

    def _write_again(self, line: Mapping[str, Any]) -> None:
        assert self._file is not None
        folder = self._path.parent
        if (other := owned_by_another(folder)) is not None:
            raise DataError(
                f"run.directory={folder}: was taken by {other}; this run ends and writes nothing more there"
            )
        try:
            self._file.seek(0)
            content = self._file.read()  # a removed file can be read by who has it open
        except OSError:
            content = ""
        self.close()
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path, content + to_json_line(line))
        self._file = self._path.open("a+", encoding="utf-8")
        self.last = dict(line)
        raise FolderLostError(
            f"{self._path}: was removed, or replaced, while the run wrote into it; its records are written again; the same "
            "command goes on from the last checkpoint"
        )

    def lines(self) -> Iterator[dict[str, Any]]:
        """Every record of the file, in order."""
        return (values for _, values in whole_lines(self._path))

    def rewind(self, keep_until: int | None) -> None:
        """Drop the lines with `update` > `keep_until` (None: all); the updates after a checkpoint are done again.

        Dropped lines are not lost: they are appended to NAME.dropped.jsonl beside.
        """
        self.close()
        kept: list[tuple[str, dict[str, Any]]] = []
        dropped: list[tuple[str, dict[str, Any]]] = []
        for text, values in whole_lines(self._path):
            (kept if keep_until is not None and values["update"] <= keep_until else dropped).append((text, values))
        if dropped:
            with self._path.with_suffix(".dropped.jsonl").open("a", encoding="utf-8") as file:
                file.writelines(text for text, _ in dropped)
        # Rewritten even when nothing was dropped: a torn line must not stay, or the next record would join it.
        write_atomically(self._path, "".join(text for text, _ in kept))
        self.last = kept[-1][1] if kept else {}
        self._file = self._path.open("a+", encoding="utf-8")

    def close(self) -> None:
        """Close the file; more than once is fine."""
        if self._file is not None:
            self._file.close()
            self._file = None


def whole_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The lines of the file with their values; a torn last line is left out."""
    for number, text, values in read_json_lines(path, "mend or remove that line"):
        if not isinstance(values.get("update"), int):
            raise DataError(f"{path}, line {number}: is not a record; mend or remove that line")
        yield text, values
