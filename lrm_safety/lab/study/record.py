"""steps.json of a study: which steps are done, and by which configuration; and the lock that its steps inherit."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import ConfigError
from ...files import digest_of, read_json, write_json

RECORD, LOCK = "steps.json", ".lock"


class StepRecord:
    """What is done in a folder: step name -> fingerprint of the whole configuration it was done with."""

    def __init__(self, directory: Path) -> None:
        """Raises ConfigError for a record that cannot be read."""
        self._path = directory / RECORD
        mend = "delete it to do every step again"
        self.done: dict[str, str] = read_json(self._path, ConfigError, mend) if self._path.exists() else {}

    def match(self, fingerprints: Mapping[str, str]) -> None:
        """Raise ConfigError for a step that was done by another configuration than now."""
        for name, fingerprint in fingerprints.items():
            if self.done.get(name, fingerprint) != fingerprint:
                raise ConfigError(
                    f"run.directory={self._path.parent}: step `{name}` was made by other settings, or by an earlier version; "
                    "choose another run.name, or delete the folder"
                )

    def add(self, name: str, fingerprint: str) -> None:
        """Remember a step as done, whole or not at all."""
        self.done[name] = fingerprint
        write_json(self._path, self.done, indent=1)


def fingerprint_of(resolved: Mapping[str, Any]) -> str:
    """sha256 of a resolved configuration; who looks on (tracking) changes nothing that a step makes."""
    made = {key: value for key, value in resolved.items() if key != "tracking"}
    return digest_of([json.dumps(made, sort_keys=True, default=str)])


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
