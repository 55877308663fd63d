"""A stand-in for what only a GPU has, held against the real signatures."""

from __future__ import annotations

import inspect
from typing import Any


class Interface:
    """Has the methods of a real class and refuses a call that their signatures refuse; answers what it is told to."""

    def __init__(self, kind: type, **answers: Any) -> None:
        self._kind, self._answers = kind, answers
        self.calls: list[str] = []
        self.told: list[tuple[str, dict[str, Any]]] = []
        """The same calls, with what was handed over by name, defaults included."""

    def __getattr__(self, name: str) -> Any:
        if name in self._answers and not callable(getattr(self._kind, name, None)):
            return self._answers[name]  # an attribute
        signature = inspect.signature(getattr(self._kind, name))

        def call(*arguments: Any, **named: Any) -> Any:
            bound = signature.bind(self, *arguments, **named)
            bound.apply_defaults()
            self.calls.append(name)
            self.told.append((name, {key: value for key, value in bound.arguments.items() if key != "self"}))
            return self._answers.get(name)

        return call
