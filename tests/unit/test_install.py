"""The set-up finds a torch on every machine: by pip's configuration, on PyTorch's index, or as the default index has it.

A package index of small wheels on loopback stands for each of them, so that real pip decides, in a real environment.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from loopback import serving

from lrm_safety.run_folder import process_start

# A project that pip can install without any package for building: its own backend writes the wheel.
BACKEND = """
import zipfile
from pathlib import Path

def build_editable(folder, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(Path(folder) / "project-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("project-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: project\\nVersion: 1\\n")
        wheel.writestr("project-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("project-1.dist-info/RECORD", "")
    return "project-1-py3-none-any.whl"
"""


def write_wheel(folder: Path, name: str, version: str, *requires: str) -> None:
    """An empty package of that name, as a pip of any version installs it."""
    page = folder / name.replace("_", "-")
    page.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    needed = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    with zipfile.ZipFile(page / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needed}")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return None


@pytest.fixture
def indexes(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder of indexes and the address below which each of its folders is served."""
    root = tmp_path / "indexes"
    root.mkdir()
    handler = functools.partial(Quiet, directory=str(root))
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        yield root, f"http://127.0.0.1:{server.server_port}"


@pytest.fixture
def checkout(repository_root: Path, tmp_path: Path) -> Path:
    """A checkout with our installer, pins of two small packages, and an environment with nothing but pip."""
    folder = tmp_path / "checkout"
    (folder / "constraints").mkdir(parents=True)
    shutil.copy(repository_root / "constraints/install_cpu.sh", folder / "constraints")
    (folder / "constraints/cpu.txt").write_text("# pins\nneeded==1.0\ntorch==2.13.0+cpu\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (folder / "backend.py").write_text(BACKEND)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
    return folder


def install(checkout: Path, default: str, pytorch: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The installer on a machine whose pip knows the index `default` and nothing else."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTORCH_"))}
    environment = bare | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": default, "PYTORCH_INDEX": pytorch}
    return subprocess.run(
        [str(checkout / "constraints/install_cpu.sh"), str(checkout / "venv")],
        env=environment | {"PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def installed(checkout: Path) -> dict[str, str]:
    command = [str(checkout / "venv/bin/python"), "-m", "pip", "list", "--format=freeze"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    return dict(line.split("==") for line in lines)


def test_the_build_is_taken_from_the_first_place_that_has_it(checkout: Path, indexes: tuple[Path, str]) -> None:
    """One environment after the other: each source is tried only where those before it have no CPU build."""
    root, address = indexes
    write_wheel(root / "default", "needed", "1.0", "never-wanted")
    write_wheel(root / "default", "torch", "2.13.0", "library-of-nvidia")
    write_wheel(root / "default", "library_of_nvidia", "13.0")
    write_wheel(root / "pytorch", "torch", "2.13.0+cpu", "never-wanted")
    nowhere = "http://127.0.0.1:9/none"

    bare = install(checkout, f"{address}/default", nowhere)
    assert bare.returncode == 0, bare.stderr
    assert "no CPU build of torch in reach" in bare.stdout and "torch is a CUDA build" in bare.stdout
    # The pins come without a resolver, the CUDA build with what it needs.
    found = installed(checkout)
    assert (found["torch"], found["library_of_nvidia"], found["needed"], found["project"]) == (
        "2.13.0",
        "13.0",
        "1.0",
        "1",
    )

    public = install(checkout, f"{address}/default", f"{address}/pytorch")
    assert public.returncode == 0, public.stderr
    assert f"torch is the CPU build, from {address}/pytorch" in public.stdout
    assert installed(checkout)["torch"] == "2.13.0+cpu"

    subprocess.run([str(checkout / "venv/bin/python"), "-m", "pip", "uninstall", "-qy", "torch"], check=True)
    own = install(checkout, f"{address}/default", nowhere, PIP_FIND_LINKS=str(root / "pytorch" / "torch"))
    assert own.returncode == 0, own.stderr
    assert "found through pip's own configuration" in own.stdout
    assert installed(checkout)["torch"] == "2.13.0+cpu"


def test_the_images_script_installs_and_leaves_no_download(
    checkout: Path, indexes: tuple[Path, str], repository_root: Path
) -> None:
    """docker/install.sh in a folder of its own, with the Makefile that it asks."""
    root, address = indexes
    for name in ("needed", "torch"):
        write_wheel(root / "default", name, {"needed": "1.0", "torch": "2.13.0+cpu"}[name])
    (checkout / "docker").mkdir()
    for name in ("Makefile", "docker/install.sh"):
        shutil.copy(repository_root / name, checkout / name)
    home = checkout / "home"
    bare = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "PYTORCH_"))}
    done = subprocess.run(
        [str(checkout / "docker/install.sh"), "cpu"],
        cwd="/",
        env=bare
        | {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": f"{address}/default", "HOME": str(home), "VENV": "venv"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = installed(checkout)
    assert (found["torch"], found["needed"], found["project"]) == ("2.13.0+cpu", "1.0", "1")
    assert not (home / ".cache/pip").exists()


def test_an_index_without_a_pin_is_named_with_pips_own_words(checkout: Path, indexes: tuple[Path, str]) -> None:
    root, address = indexes
    write_wheel(root / "default", "torch", "2.13.0")
    failed = install(checkout, f"{address}/default", f"{address}/pytorch")
    assert failed.returncode == 1
    assert "pip could not install the pinned packages" in failed.stderr and "needed==1.0" in failed.stderr


def test_ctrl_c_ends_pip_too(repository_root: Path, tmp_path: Path) -> None:
    """A shell lets its background commands ignore Ctrl-C, and pip would go on installing unseen."""
    (tmp_path / "cpu.txt").write_text("needed==1.0\ntorch==2.13.0+cpu\n")
    pip, told = tmp_path / "venv/bin/python", tmp_path / "pid"
    pip.parent.mkdir(parents=True)
    pip.write_text(f"#!/bin/sh\necho $$ > {told}.new; mv {told}.new {told}\nexec sleep 60\n")
    pip.chmod(0o755)
    script = [str(repository_root / "constraints/install_cpu.sh"), str(tmp_path / "venv"), str(tmp_path / "cpu.txt")]
    # These tests may themselves be a shell's background command.
    heard = ["env", "--default-signal=INT", *script]
    process = subprocess.Popen(heard, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not told.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(30) != 0
    while process_start(int(told.read_text())) is not None:
        assert time.monotonic() < deadline, "pip is still at work"
        time.sleep(0.05)


@pytest.mark.parametrize("system", ["Darwin arm64", "MINGW64_NT-10.0 x86_64"])
def test_other_systems_are_refused_before_anything_is_made(repository_root: Path, tmp_path: Path, system: str) -> None:
    (tmp_path / "uname").write_text(f"#!/bin/sh\necho '{system}'\n")
    (tmp_path / "uname").chmod(0o755)
    venv = tmp_path / "venv"
    refused = subprocess.run(
        ["make", "setup", f"VENV={venv}"],
        cwd=repository_root,
        env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert refused.returncode and f"runs on Linux on x86_64, and this is {system}" in refused.stderr
    assert not venv.exists()


def test_a_python_that_works_is_found_by_itself(repository_root: Path, tmp_path: Path) -> None:
    """Ubuntu 24.04 has python3.12 alone; pyenv leaves shims of versions that are not installed."""
    for name, body in (
        ("python3.11", "exit 127"),
        ("python3.12", f'exec "{sys.executable}" "$@"'),
        ("python3", "exit 1"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    shown = subprocess.run(
        ["make", "-n", "setup", f"VENV={tmp_path / 'venv'}"],
        cwd=repository_root,
        env={name: value for name, value in os.environ.items() if name != "PYTHON"}
        | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert "python3.12 -m venv" in shown.stdout, shown.stdout + shown.stderr
