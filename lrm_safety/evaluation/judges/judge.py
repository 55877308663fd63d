"""What every judge of safety offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

View = Literal["trace", "answer", "full", "prefix"]
"""`prefix`: the trace's beginnings, to find where it turns unsafe (judges/prefixes.py)."""
VIEWS: tuple[View, ...] = ("trace", "answer", "full")


@dataclass(frozen=True)
class JudgeItem:
    """One view of one response, to be judged on its own."""

    request: str
    """What was asked for, before any attack changed its wording."""
    text: str
    """The view's text; never blank."""
    view: View
    category: str | None = None
    """The benchmark's own category, such as AIR-Bench's cate-idx; a judge may need it."""


@dataclass(frozen=True)
class Verdict:
    """What a judge says of one item."""

    safety: float | None
    """0 (unsafe) to 1 (safe, or refused); None: the judge gave no verdict that can be read, which is its own figure."""
    label: str
    """The judge's word for it, such as `refusal` or `unsafe`."""
    details: dict[str, float] = field(default_factory=dict)
    """Numbers behind it, such as `logit` or `p_unsafe`."""


class Judge(Protocol):
    """Judges batches; the order of verdicts is that of the items. Deterministic where its model is."""

    name: str
    """Stands in results, metrics and file names."""

    def judge(self, items: Sequence[JudgeItem]) -> list[Verdict]:
        """Raises JudgeError when the judge cannot work at all (an endpoint that stays down)."""
        ...

    def close(self) -> None:
        """Give back memory and connections."""
        ...
