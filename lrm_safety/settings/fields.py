"""Field helpers of the typed schema: a default together with the values it may take.

OmegaConf checks types; `choice`, `number` and `integer` add what a type cannot say. The limits live in the dataclass
field's metadata, where `settings.checks` enforces them and `settings.reference` prints them.
"""

from __future__ import annotations

from dataclasses import field
from typing import Any

from omegaconf import MISSING

from ..registry import Registry

MAX_SEED = 2**32 - 1
"""The largest seed that numpy and vLLM take."""
RUNS_VARIABLE = "LRM_SAFETY_RUNS"
"""Folder below which runs are put; without it `outputs` in the working directory."""
DIRECTORY = f"${{oc.env:{RUNS_VARIABLE},outputs}}/${{run.name}}"
"""Default of every run.directory."""


def choice(default: str, *others: str) -> Any:
    """A string field that takes one of the named values; the first is the default."""
    return field(default=default, metadata={"choices": (default, *others)})


def registered(registry: Registry[Any], default: Any = MISSING) -> Any:
    """A string field that takes a name of a registry, or the import path of an object of the user's own."""
    return field(default=default, metadata={"registry": registry})


def number(default: float | None, *, low: float | None = None, high: float | None = None) -> Any:
    """A float field within [low, high] (None: unbounded on that side)."""
    return field(default=default, metadata={"low": low, "high": high})


def integer(default: int | None, *, low: int | None = 0, high: int | None = None) -> Any:
    """An integer field within [low, high] (None: unbounded on that side)."""
    return field(default=default, metadata={"low": low, "high": high})


def random_seed() -> Any:
    """A seed that every generator of random numbers takes."""
    return integer(0, high=MAX_SEED)
