"""A judge that is a python function of the user's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lrm_safety.errors import JudgeError, calling
from lrm_safety.evaluation.judges.agreement import as_label
from lrm_safety.evaluation.judges.judge import JudgeItem, Verdict, judge
from lrm_safety.registry import import_function
from lrm_safety.rewards.kinds import function_fingerprint


@judge("python", of_harm=False, refusal_in="safety")
class PythonJudge:
    """Calls `function(request, text, view)` for each item; it returns the safety, a number from 0 to 1, or None for no
    verdict."""

    def __init__(self, *, name: str, function: str) -> None:
        """`function` is `package.module:function`; raises ConfigError when there is none."""
        self.name = name
        self._source = f"evaluation.judges.{name}.function={function}"
        self._function = import_function(function, f"evaluation.judges.{name}.function")

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """Raises JudgeError when the function raises, or returns anything but None or a number from 0 to 1."""
        return [self._judge(item, position) for position, item in enumerate(items)]

    @property
    def fingerprint(self) -> str | None:
        """sha256 of the file that holds the function; None where there is no such file."""
        return function_fingerprint(self._function)

    def close(self) -> None:
        """Nothing is held."""

    def _judge(self, item: JudgeItem, position: int) -> Verdict:
        with calling(f"{self._source}, item {position}", JudgeError):
            value = self._function(item.request, item.text, item.view)
        if value is None:
            return Verdict(None, "no verdict")
        try:
            safety = float(value)
        except (TypeError, ValueError):
            safety = math.nan
        if not 0.0 <= safety <= 1.0:
            raise JudgeError(f"{self._source}: returned {value!r} at item {position}; must be a number from 0 to 1")
        return Verdict(safety, as_label(safety))
