"""What every judge of safety offers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from lrm_safety.errors import JudgeError, calling
from lrm_safety.settings.evaluation import JUDGES, JudgeKind, Needs, RefusalIn, TellsRefusals
from lrm_safety.settings.evaluation import JudgeView as View

VIEWS: tuple[View, ...] = ("trace", "answer", "full")
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
        yield from enumerate(judge_all(judge, items))
        return
    with calling(source_of(judge), JudgeError, of=type(judge)):
        for position, verdict in stream(items, proven=proven):
            yield position, _checked(judge, position, verdict)


def judge_all(judge: Judge, items: Sequence[JudgeItem]) -> list[Verdict]:
    """Verdicts in the order of the items. Raises JudgeError, naming the judge, for anything but one for each."""
    if not items:
        return []
    with calling(source_of(judge), JudgeError, of=type(judge)):
        verdicts = list(judge.judge(items))
    if len(verdicts) != len(items):
        raise JudgeError(f"{source_of(judge)}: gave {len(verdicts)} verdicts for {len(items)} texts")
    return [_checked(judge, position, verdict) for position, verdict in enumerate(verdicts)]


def source_of(judge: Judge) -> str:
    """The key and the class of a judge, for messages."""
    return f"evaluation.judges.{judge.name}.kind={type(judge).__module__}:{type(judge).__qualname__}"


def _checked(judge: Judge, position: int, verdict: object) -> Verdict:
    """What a judge said of the text at `position`; raises JudgeError, naming the judge, where it is no verdict."""
    if not isinstance(verdict, Verdict):
        told = f"{verdict!r} is no Verdict"
    elif not (verdict.safety is None or (isinstance(verdict.safety, float | int) and 0.0 <= verdict.safety <= 1.0)):
        told = f"safety is {verdict.safety!r}, and must be None or a number from 0 to 1"
    elif not isinstance(verdict.label, str):
        told = f"label is {verdict.label!r}, and must be a word"
    else:
        return verdict
    raise JudgeError(f"{source_of(judge)}: text {position}: {told}")


J = TypeVar("J", bound=type)


def judge(
    name: str,
    *,
    needs: Needs = "nothing",
    of_harm: bool = True,
    refusal_in: RefusalIn | TellsRefusals = "nowhere",
    finds_beginnings: bool = True,
) -> Callable[[J], J]:
    """Declare a class a kind of judge: known by `name` where it is one of ours, by its import path elsewhere. The options of
    its constructor are the keys of `evaluation.judges.NAME.arguments`; it is given `name`, and `path` and `device` where it
    takes them. One that needs more than nothing has a static method `check(key, **options)`."""

    def declare(made: J) -> J:
        declared = JudgeKind(name, needs, of_harm, refusal_in, finds_beginnings)
        setattr(made, "declared", declared)  # noqa: B010, a type knows no such attribute
        if made.__module__.startswith(f"{__package__}."):
            JUDGES.add(name, made)
        return made

    return declare
