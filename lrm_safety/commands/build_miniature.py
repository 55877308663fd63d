"""`lrm-safety build-miniature`: the miniature's models and prompts, built again."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError


def build_miniature(arguments: list[str]) -> int:
    """Run `build-miniature FOLDER`; returns the exit status."""
    if len(arguments) != 1:
        raise ConfigError(
            "build-miniature: give the output folder, e.g. `lrm-safety build-miniature outputs/miniature`"
        )
    from ..lab.miniature.build import build

    build(Path(arguments[0]))
    return 0
