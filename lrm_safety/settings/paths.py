"""Where things are: the conf/ folder, and the path prefixes a configuration may use."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError

PACKAGE_PREFIX = "package:"
CACHE_PREFIX = "cache:"


def configuration_directory() -> Path:
    """The folder of Hydra groups: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for candidate in (package.parent / "conf", package / "conf"):
        if (candidate / "config.yaml").is_file():
            return candidate
    raise ConfigError(f"no conf/config.yaml beside {package}: install the package again or run from a checkout")


def cache_directory() -> Path:
    """Folder of converted models: $LRM_SAFETY_CACHE, or ~/.cache/lrm_safety."""
    if named := os.environ.get("LRM_SAFETY_CACHE"):
        return Path(named)
    try:
        return Path.home() / ".cache" / "lrm_safety"
    except RuntimeError as error:
        raise ConfigError(
            "this user has no home folder: set LRM_SAFETY_CACHE to a folder for converted models"
        ) from error


MAXIMUM_SOCKET_BYTES = 107
RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store"
"""What Ray adds to the temporary folder for the longest of its sockets; Linux takes 107 bytes."""


def ray_temporary_folder(environment: Mapping[str, str]) -> tuple[str, str, int]:
    """The variable that decides, the folder of Ray's sessions, and by how many bytes it is too long for their sockets."""
    name = next((name for name in ("RAY_TMPDIR", "TMPDIR") if name in environment), "TMPDIR")
    folder = environment.get(name, "/tmp")
    return name, folder, max(0, len(os.fsencode(folder + RAY_SOCKET)) - MAXIMUM_SOCKET_BYTES)


MENDS = {
    "model": "name a folder that holds a model's config.json, or a model of the hub as OWNER/NAME, which `hf download OWNER/NAME` "
    "brings here ahead",
    "adapter": "name a folder that holds adapter_config.json, or an adapter of the hub as OWNER/NAME",
    "rows": "name a file of rows",
    "": "",
}
"""What to name instead of a path that is absent, by what it is of; nothing where the caller says it."""


def resolve(path: str, key: str, of: str = "model") -> str:
    """Turn a configured path into what loaders take; `of`: what it names, a key of MENDS.

    `package:lrm_safety/...` and `cache:NAME` become absolute paths; an existing file or folder becomes absolute; whatever
    looks like a path but does not exist raises ConfigError naming `key`; `owner/name` is left as a hub id.
    """
    if path.startswith(PACKAGE_PREFIX):
        resolved = Path(__file__).resolve().parents[2] / path.removeprefix(PACKAGE_PREFIX)
    elif path.startswith(CACHE_PREFIX):
        resolved = cache_directory() / path.removeprefix(CACHE_PREFIX)
        if not resolved.exists():
            name = path.removeprefix(CACHE_PREFIX)
            raise ConfigError(f"{key}={path}: {resolved} does not exist; run `lrm-safety fetch {name}` first")
    else:
        resolved = Path(path).expanduser()
        if not resolved.exists() and _is_hub_id(path):
            return path
    if not resolved.exists():
        where = "" if str(resolved.absolute()) == path or "://" in path else f" ({resolved.absolute()})"
        mend = f"; {MENDS[of]}" * bool(MENDS[of])
        if path.startswith(PACKAGE_PREFIX):
            mend = "; package:lrm_safety/... is what is shipped with the package, such as package:lrm_safety/miniature/assets"
        elif mend and where and not path.startswith("~"):
            mend += "; a relative path is looked for in the folder where the command was started"
        raise ConfigError(f"{key}={path}: no such file or folder{where}{mend}")
    return str(resolved.absolute())


def _is_hub_id(path: str) -> bool:
    """`owner/name`, with nothing that only a file path has."""
    owner, slash, name = path.partition("/")
    return bool(slash and owner and name) and "/" not in name and not path.startswith((".", "~", "/"))
