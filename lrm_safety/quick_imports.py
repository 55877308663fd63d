"""Imports without the garbage collector: what a module leaves behind stays for ever, so that looking through it is for nothing.

torch, transformers, DeepSpeed and vLLM make some million objects while they are imported, which the collector would look through
again and again: a fifth of the processor time of an import.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType

HELD_VARIABLE = "LRM_SAFETY_COLLECT_AFTER_START"
"""Set for a worker's process, whose first import of ours is that of its class: see `hold`."""


def hold() -> None:
    """Collect nothing until `release`, in a process that was started with `HELD_VARIABLE`; in any other nothing happens."""
    if os.environ.pop(HELD_VARIABLE, None):  # not for the processes that this one starts
        gc.disable()


def release() -> None:
    """Collect again; what there is by now is left out of every later collection."""
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@contextmanager
def uncollected() -> Iterator[None]:
    """A section that imports."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def imported(name: str) -> ModuleType:
    """The module of this name, with all that it imports."""
    with uncollected():
        return import_module(name)
