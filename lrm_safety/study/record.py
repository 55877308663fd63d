"""steps.json of a study: which steps are done, and by which configuration; and the lock that its steps inherit."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import write_atomically

RECORD, LOCK = "steps.json", ".lock"


class StepRecord:
    """What is done in a folder: step name -> fingerprint of the whole configuration it was done with."""

    def __init__(self, directory: Path) -> None:
        """Raises ConfigError for a record that cannot be read."""
        self._path = directory / RECORD
        try:
            self.done: dict[str, str] = (
                json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self._path}: cannot be read ({error}); delete it to do every step again") from error

    def match(self, fingerprints: Mapping[str, str]) -> None:
        """Raise ConfigError for a step that was done by another configuration than now."""
        for name, fingerprint in fingerprints.items():
            if self.done.get(name, fingerprint) != fingerprint:
                raise ConfigError(
                    f"run.directory={self._path.parent}: step `{name}` was made by other settings; choose another run.name, or "
                    "delete the folder"
                )

    def add(self, name: str, fingerprint: str) -> None:
        """Remember a step as done, whole or not at all."""
        self.done[name] = fingerprint
        write_atomically(self._path, json.dumps(self.done, indent=1).encode())


def fingerprint_of(resolved: Mapping[str, Any]) -> str:
    """sha256 of a resolved configuration; who looks on (tracking) changes nothing that a step makes."""
    made = {key: value for key, value in resolved.items() if key != "tracking"}
    return hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()


@contextmanager
def inherited_lock(directory: Path) -> Iterator[int]:
    """A lock on the folder besides its owner's record; gives its file descriptor.

    Steps inherit it: a step that outlives a killed study keeps the folder, so that nothing else writes into it. Raises
    ConfigError where such a step is left.
    """
    with (directory / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"run.directory={directory}: a step of a killed study is still running there; wait or stop it"
            ) from error
        yield file.fileno()
