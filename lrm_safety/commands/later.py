"""A function that is imported when it is called: torch and Ray take seconds, and a mistyped key need not wait for them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Later:
    """`module:function` below lrm_safety."""

    path: str

    def __call__(self, *arguments: Any) -> Any:
        module, _, function = self.path.partition(":")
        return getattr(import_module(f"lrm_safety.{module}"), function)(*arguments)
