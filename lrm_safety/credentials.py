"""Secrets brought to a job on a cluster, and read out of the environment.

Ray writes a job's variables into its metadata, which whoever may use the dashboard can read, and into a log that everybody
on the head can read. So a job is given the file's name alone, and every process of it reads the file itself.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from .errors import ConfigError
from .secret_text import FILE_VARIABLE

TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Where Ray finds the token of a cluster, the first before the second, and both before the user's ~/.ray/auth_token."""
_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def load() -> None:
    """Set the variables of the file that LRM_SAFETY_SECRETS names, where they are not set; nothing without it.

    Lines are NAME=VALUE; empty ones and comments (#) are left out. Raises ConfigError, which never quotes a value, for a file
    that is absent, that others can read, or that has another line.
    """
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        return
    path = Path(name)
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{FILE_VARIABLE}={name}: cannot be read on this node ({type(error).__name__})") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError(f"{FILE_VARIABLE}={name}: others can read it; chmod 600 {name}")
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        found = _LINE.fullmatch(line.strip())
        if found is None:
            raise ConfigError(f"{FILE_VARIABLE}={name} line {number}: must be NAME=VALUE")
        value = found[2]
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
        os.environ.setdefault(found[1], value[1:-1] if quoted else value)


def api_key(variable: str, key: str) -> str:
    """The key of an endpoint out of an environment variable. Raises ConfigError, opening with `key` and quoting no value, where
    it is not set, or cannot be sent in a header."""
    value = os.environ.get(variable, "").strip()
    if not value:
        raise ConfigError(f"{key}={variable}: this environment variable is not set")
    if not value.isascii() or not value.isprintable():
        raise ConfigError(f"{key}={variable}: its value cannot be sent in a header")
    return value


def ray_token_fault(environment: Mapping[str, str]) -> str | None:
    """What is wrong with the file that RAY_AUTH_TOKEN_PATH names, with the mend; None where Ray reads no such file, since none is
    named or RAY_AUTH_TOKEN goes before it, and where it holds a token. Whether a token is wanted (RAY_AUTH_MODE) is not asked."""
    name = environment.get("RAY_AUTH_TOKEN_PATH")
    if not name or environment.get("RAY_AUTH_TOKEN"):
        return None
    try:
        if Path(name).read_text(encoding="utf-8").strip():
            return None
        reason = "is empty"
    except FileNotFoundError:
        reason = "no such file on this machine"
    except IsADirectoryError:
        reason = "is a folder and no file"
    except (OSError, UnicodeDecodeError) as error:
        reason = f"cannot be read ({getattr(error, 'strerror', None) or type(error).__name__})"
    return (
        f"RAY_AUTH_TOKEN_PATH={name}: {reason}, so there is no token of the Ray cluster; name the file with it, copy it there "
        "(`ray get-auth-token` prints it on the cluster's head), or set RAY_AUTH_TOKEN"
    )


def check_ray_token(environment: Mapping[str, str], *, by_default: bool = False) -> None:
    """Raise ConfigError for a file of RAY_AUTH_TOKEN_PATH without a token, where Ray reads it: with RAY_AUTH_MODE=token, and
    where that is not set and Ray turns tokens on `by_default`."""
    mode = environment.get("RAY_AUTH_MODE")
    if (by_default if mode is None else mode.lower() == "token") and (fault := ray_token_fault(environment)):
        raise ConfigError(fault)
