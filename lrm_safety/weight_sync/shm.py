"""The `shm` backend: safetensors files in shared memory, one a bucket.

A file needs no process group and is read by every engine of the node without another copy.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

from .source import Tensors, ZeroThreeSource

SHARED_MEMORY = Path("/dev/shm")


def run_name() -> str:
    """A name for what this process publishes; with the host's, since containers may share memory but not processes."""
    return f"{socket.gethostname()}-{os.getpid()}"


def version_folder(name: str, version: int) -> Path:
    """Where the files of one weights version of the run `name` belong. Nothing is made yet."""
    return SHARED_MEMORY / f"lrm_safety-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}" / f"version-{version:08d}"


def write_buckets(source: ZeroThreeSource, folder: str | Path, rank: int) -> Iterator[str]:
    """Write every bucket of the source; iterate on every rank, since the source gathers.

    The files go into `folder`, or into a folder of the same name on disk when `folder`'s file system lacks the room (a
    container's /dev/shm is 64 MiB unless asked for more). They are readable by this user alone.

    Yields:
        On rank 0 each file's path, on the other ranks nothing. A path exists only once its file is whole: it is written
        under another name and renamed.
    """
    if rank == 0:
        folder = _with_room(Path(folder), source.num_bytes)
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    for position, bucket in enumerate(source.buckets(lent=True)):
        if rank != 0:
            continue
        path = Path(folder) / f"bucket-{position:05d}.safetensors"
        unfinished = path.with_suffix(".unfinished")
        save_file({name: tensor.cpu() for name, tensor in bucket}, unfinished)
        # Not files.write_atomically: memory is not flushed, and the bucket not copied once more.
        unfinished.rename(path)
        yield str(path)


def read_bucket(path: str) -> Tensors:
    """The tensors of one file: views of the mapped file, whose map outlives it."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def remove_folder(folder: Path) -> None:
    """Delete one version, wherever it was written, and the run's folder when that was the last.

    Engines may still map the files: the memory is given back with the last map.
    """
    for place in (folder, _on_disk(folder)):
        if place.exists():
            shutil.rmtree(place)
            if not any(place.parent.iterdir()):
                place.parent.rmdir()


def _with_room(folder: Path, num_bytes: int) -> Path:
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    margin = num_bytes // 10 + 2**20
    if os.access(existing, os.W_OK) and shutil.disk_usage(existing).free >= num_bytes + margin:
        return folder
    return _on_disk(folder)


def _on_disk(folder: Path) -> Path:
    return Path(tempfile.gettempdir()) / folder.parent.name / folder.name


def remove_run(name: str) -> None:
    """Delete every version of a run, unfinished ones too."""
    folder = version_folder(name, 0)
    for place in (folder.parent, _on_disk(folder).parent):
        shutil.rmtree(place, ignore_errors=True)


def remove_abandoned() -> None:
    """Delete what killed runs of this host left behind: their folders are named after a process that is no more."""
    prefix = version_folder(f"{socket.gethostname()}-", 0).parent.name
    for root in (SHARED_MEMORY, Path(tempfile.gettempdir())):
        for folder in root.glob("lrm_safety-*"):
            process = folder.name.removeprefix(prefix)
            if process.isdigit() and not Path("/proc", process).exists():
                shutil.rmtree(folder, ignore_errors=True)
