"""metrics.jsonl, the source of truth about a run, and findings.jsonl beside it: one JSON object a line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from ..diagnosis.evidence import Evidence, Finding
from ..diagnosis.rules import Watch
from ..errors import DataError, FolderLostError
from ..files import read_json_lines, write_atomically
from ..run_folder import owned_by_another
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


class Findings:
    """Runs the rules of the diagnosis over a run's history and writes what is new.

    A resume goes on where its checkpoint stands: `history` (the kept lines of metrics.jsonl) is remembered, findings of
    updates that were kept are not said again, those of dropped updates are dropped with them. `about` is what is known of the
    run besides its records.
    """

    def __init__(
        self,
        path: Path,
        min_records: int,
        keep_until: int | None,
        history: Iterable[Mapping[str, Any]],
        about: Evidence | None = None,
    ) -> None:
        self._min_records = min_records
        self._about = about
        self._file = MetricsFile(path, keep_until)
        self._begin(history)

    def fresh(self, update: int, metrics: Mapping[str, float]) -> list[Finding]:
        """What is new after this record; it is on disk when this returns."""
        found = self._watch.fresh(update, metrics)
        for finding in found:
            self._file.append({"update": update, **asdict(finding)})
        return found

    def rewind(self, keep_until: int | None, history: Iterable[Mapping[str, Any]]) -> None:
        """Forget what was found after `keep_until` (None: all); `history` is what metrics.jsonl still holds."""
        self._file.rewind(keep_until)
        self._begin(history)

    def close(self) -> None:
        """Close the file; more than once is fine."""
        self._file.close()

    def _begin(self, history: Iterable[Mapping[str, Any]]) -> None:
        self._watch = Watch(self._min_records, self._about)
        for line in history:
            # Numbers that were not finite are null in the file.
            values = {name: value for name, value in line.items() if "/" in name and value is not None}
            self._watch.remember(line["update"], values)
        for line in self._file.lines():
            self._watch.said(line["rule"], line["evidence"][0]["name"], line["level"])
