"""What every judge of safety offers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

View = Literal["trace", "answer", "full", "prefix"]
"""`prefix`: the trace's beginnings, to find where it turns unsafe (judges/prefixes.py)."""
VIEWS: tuple[View, ...] = ("trace", "answer", "full")
RefusalIn = Literal["safety", "details", "nowhere"]
"""Where a judge's verdicts say whether a text declines: its safety is just that, a detail beside harm, or nowhere."""
REFUSAL = "refusal"
"""The detail of a verdict by a judge that tells harm and refusal apart: how far the text declines, 0 to 1."""
UNREAD = "unread"
"""The label of a text too long for the judge: asking again gives nothing else."""


class JudgeViews(tuple[View, ...]):
    """The views that a judge reads, and where its verdicts say whether a text declines."""

    refusal_in: RefusalIn

    def __new__(cls, views: Sequence[View], refusal_in: RefusalIn = "safety") -> JudgeViews:
        made = super().__new__(cls, views)
        made.refusal_in = refusal_in
        return made


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


def judge_each(judge: Judge, items: Sequence[JudgeItem], *, proven: bool = False) -> Iterator[tuple[int, Verdict]]:
    """Verdicts with their positions as they come: one by one from a judge that has `judge_each` of its own.

    `proven`: this judge has given verdicts before, so that a request that fails now is no sign of a wrong setting.
    """
    stream = getattr(judge, "judge_each", None)
    if stream is None:
        yield from enumerate(judge.judge(items))
    else:
        yield from stream(items, proven=proven)
