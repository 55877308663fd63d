"""What a job takes along of the folder that it is submitted from: which files, how large, and what stays behind."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigError
from .terminal import told_bytes

MIB = 1024**2
LEFT_OUT = (
    *(".git", ".venv", "venv", "__pycache__", "*.egg-info", ".env", "checkpoints"),
    *("/outputs", "/multirun", "/wandb", "/models", "/data/*", "!/data/*.yaml"),
)
"""Patterns as in .gitignore. `data` holds data, or is a group of configuration files."""
DEFAULT_LIMIT_MIB = 64
"""Code and configuration are far below: more is most often a data set or a model that was forgotten there."""
RAY_LIMIT_MIB = 512
"""Ray's own, of the packed files (GCS_STORAGE_MAX_SIZE of ray/_private/runtime_env/packaging.py)."""
MOST_FILES = 20_000
"""A folder of more is no project: somebody's home folder, say."""
LARGEST_SHOWN = 5


@dataclass(frozen=True)
class Upload:
    """The files of a folder that travel, by their paths in it, with their sizes in bytes."""

    folder: Path
    files: dict[str, int]

    @property
    def bytes(self) -> int:
        return sum(self.files.values())

    @property
    def is_checkout(self) -> bool:
        """Whether our code travels: in a job the working folder comes before what is installed."""
        return "lrm_safety/__init__.py" in self.files

    def __str__(self) -> str:
        code = "" if self.is_checkout else "; not a checkout, so that the lrm_safety that the cluster has runs"
        count = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        return f"sending {self.folder}: {count}, {told_bytes(self.bytes)} unpacked{code}"


def patterns(folder: Path) -> list[str]:
    """What stays behind of `folder`, besides what its .gitignore and .rayignore name: LEFT_OUT and virtual environments of any
    name."""
    return [*LEFT_OUT, *sorted(f"/{found.parent.name}" for found in folder.glob("*/pyvenv.cfg"))]


def look_at(folder: Path, limit_mib: int = DEFAULT_LIMIT_MIB) -> Upload:
    """The files of `folder` that Ray would send.

    Raises:
        ConfigError: there is no such folder, or it is over the limit: the largest paths are named.
    """
    # Ray's own walk: another one would count other files than those that are sent.
    from ray._private.runtime_env.packaging import _dir_travel, _get_excludes

    if not folder.is_dir():
        raise ConfigError(f"--working-dir {folder}: no such folder")
    files: dict[str, int] = {}

    def count(path: Path) -> None:
        if path.is_dir():
            return
        with suppress(FileNotFoundError):  # gone since it was listed: a lock, a temporary file
            files[str(path.relative_to(folder))] = path.lstat().st_size
        if len(files) > MOST_FILES:
            raise ConfigError(
                f"{folder}: holds over {MOST_FILES} files, all of which would be sent; submit from the folder of your "
                "configuration, or name it with --working-dir"
            )

    silent = logging.Logger("upload", logging.CRITICAL + 1)
    _dir_travel(folder, [_get_excludes(folder, patterns(folder))], count, include_gitignore=True, logger=silent)
    upload = Upload(folder, files)
    if upload.bytes > limit_mib * MIB:
        largest = sorted(files.items(), key=lambda item: -item[1])[:LARGEST_SHOWN]
        raise ConfigError(
            f"{folder}: {told_bytes(upload.bytes)} would be sent, over {limit_mib} MiB (--max-upload, at most "
            f"{RAY_LIMIT_MIB}); put what the job does not need into .rayignore, the largest: "
            + ", ".join(f"{name} ({told_bytes(size)})" for name, size in largest)
        )
    return upload
