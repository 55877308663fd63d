"""From generated token ids to graded and judged responses."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..conversation import ParsedResponse, ResponseParser, compose_response
from ..errors import DataError, JudgeError
from ..files import write_atomically
from .benchmarks.custom import GradedQuestion
from .benchmarks.question import Question
from .benchmarks.registry import Scoring
from .graders.choice import grade_choice
from .graders.grade import UNFINISHED, Grade
from .graders.math import MathGrader, MathItem
from .judges.judge import Judge, JudgeItem, Verdict, View
from .judges.prefixes import first_unsafe, prefixes_of
from .plan import Ask, PlannedBenchmark
from .responses import Generated

NEVER_SAFE = ("unfinished_trace", "unfinished_answer", "empty_answer")
"""Responses that prove nothing: their own figures, and 0 in every figure of safety. So does every other that was cut off."""


@dataclass
class Scored:
    """One response with everything that is known about it."""

    ask: Ask
    response: ParsedResponse
    views: dict[View, str]
    """Text by view; a view that is blank is left out."""
    num_tokens: int
    """Generated tokens."""
    grade: Grade | None = None
    verdicts: dict[str, dict[View, Verdict]] = field(default_factory=dict)
    """By judge and view."""

    @property
    def measures(self) -> dict[str, float]:
        """Figures that only this benchmark has."""
        return self.ask.question.measures(self.response)

    @property
    def answered(self) -> bool:
        """Whether there is an answer that may count as safe."""
        return answered(self.response)


def views_of(response: ParsedResponse) -> dict[View, str]:
    """Text by view; a view that is blank is left out."""
    views: dict[View, str] = {
        "trace": response.trace,
        "answer": response.answer,
        "full": compose_response(response.trace, response.answer),
    }
    return {view: text for view, text in views.items() if text.strip()}


def answered(response: ParsedResponse) -> bool:
    """Whether there is an answer that may count as safe: a malformed response can have been cut off too."""
    return response.finished and response.status not in NEVER_SAFE and bool(response.answer)


def parse(planned: PlannedBenchmark, generated: Sequence[Generated], parser: ResponseParser) -> list[Scored]:
    """Split every response into its views; a prefilled beginning is part of it."""
    scored = []
    for ask, one in zip(planned.asks, generated, strict=True):
        response = parser.parse([*ask.prefill_ids.tolist(), *one.ids.tolist()], one.finish_reason)
        scored.append(Scored(ask, response, views_of(response), len(one.ids)))
    return scored


def grade(scoring: Scoring, items: Sequence[tuple[Question, ParsedResponse, str]], grader: MathGrader) -> list[Grade]:
    """Grade (question, response, target) triples of a benchmark that is not judged."""
    if scoring in ("math", "integer"):
        return grader.grade_many(MathItem(response, target, scoring == "integer") for _, response, target in items)
    if scoring == "choice":
        return [grade_choice(response, target) for _, response, target in items]
    assert scoring == "own", scoring
    return [_own_grade(question, response) for question, response, _ in items]


def _own_grade(question: Question, response: ParsedResponse) -> Grade:
    assert isinstance(question, GradedQuestion) and question.grader is not None
    name = getattr(question.grader, "__qualname__", type(question.grader).__name__)
    source = f"grader {getattr(question.grader, '__module__', '')}:{name}, question {question.id}"
    try:
        returned = question.grader(question.row, response.trace, response.answer, response.finished)
    except Exception as error:  # a user's function may raise anything; it is told as the cause
        raise JudgeError(f"{source}: raised {type(error).__name__}: {error}") from error
    try:
        value = float(returned)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise JudgeError(f"{source}: returned {returned!r}; must be a finite number, usually 0 or 1")
    if not response.finished and value == 0.0:
        return UNFINISHED
    return Grade(value, "", "correct" if value == 1.0 else "wrong")


class VerdictStore:
    """The verdicts of one judge in FOLDER/NAME/verdicts-JUDGE/batch-0000.json, judged and saved in fixed batches.

    A hash of what was judged stands beside the verdicts: where a batch was generated again since, they count as missing.
    """

    def __init__(
        self, folder: Path, name: str, identity: dict[str, Any], views: Sequence[View], batch_size: int
    ) -> None:
        """`identity` is the judge's configuration and what its model, prompts or function hold."""
        self._folder, self.name, self.identity = folder, name, identity
        self._views, self._batch_size = views, batch_size
        self._content = json.dumps(identity, indent=2, sort_keys=True)

    def num_missing(self, planned: PlannedBenchmark, scored: Sequence[Scored]) -> int:
        """Responses that this judge has not read."""
        return sum(
            len(batch)
            for number, batch in self._batches(scored)
            if self._verdicts(self._path(planned, number), batch) is None
        )

    def open(self, planned: PlannedBenchmark) -> None:
        """Claim the folder; raises DataError as `check` does."""
        self.check(planned)
        path = self._path_of_identity(planned)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, self._content.encode())

    def check(self, planned: PlannedBenchmark) -> None:
        """Raises DataError when another configuration of this judge has written in the folder. Writes nothing."""
        path = self._path_of_identity(planned)
        if path.is_file() and path.read_text(encoding="utf-8") != self._content:
            raise DataError(
                f"{path.parent} holds verdicts of another configuration of evaluation.judges.{self.name}; give the judge "
                "another name, or delete that folder to judge again"
            )

    def complete(
        self, planned: PlannedBenchmark, scored: Sequence[Scored], judge: Judge, on_response: Callable[[], None]
    ) -> None:
        """Judge and save every batch that is missing."""
        for number, batch in self._batches(scored):
            path = self._path(planned, number)
            if self._verdicts(path, batch) is not None:
                continue
            rows = [
                {view: asdict(verdict) for view, verdict in verdicts.items()}
                for verdicts in judge_batch(batch, judge, self._views)
            ]
            write_atomically(path, json.dumps({"judged": self._judged(batch), "verdicts": rows}).encode())
            for _ in batch:
                on_response()

    def read(self, planned: PlannedBenchmark, scored: Sequence[Scored]) -> None:
        """Fill in this judge's verdicts; every batch must be there."""
        for number, batch in self._batches(scored):
            found = self._verdicts(self._path(planned, number), batch)
            assert found is not None, "every batch has been judged"
            for one, verdicts in zip(batch, found, strict=True):
                one.verdicts[self.name] = verdicts

    def _verdicts(self, path: Path, batch: Sequence[Scored]) -> list[dict[View, Verdict]] | None:
        """What is kept about a batch; None where nothing is, or verdicts of other responses."""
        if not path.is_file():
            return None
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            if held["judged"] != self._judged(batch):
                return None
            found = [{view: Verdict(**verdict) for view, verdict in row.items()} for row in held["verdicts"]]
            if len(found) != len(batch):
                raise ValueError(f"{len(found)} rows for {len(batch)} responses")
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it, and it is judged again") from error
        return found

    def _judged(self, batch: Sequence[Scored]) -> str:
        """sha256 of what the judge is given."""
        items = [asdict(item) for _, _, item in judge_items(batch, self._views)]
        return hashlib.sha256(json.dumps(items).encode()).hexdigest()

    def _batches(self, scored: Sequence[Scored]) -> Iterator[tuple[int, Sequence[Scored]]]:
        for number, start in enumerate(range(0, len(scored), self._batch_size)):
            yield number, scored[start : start + self._batch_size]

    def _path_of_identity(self, planned: PlannedBenchmark) -> Path:
        return self._folder / planned.name / f"verdicts-{self.name}" / "identity.json"

    def _path(self, planned: PlannedBenchmark, number: int) -> Path:
        return self._folder / planned.name / f"verdicts-{self.name}" / f"batch-{number:04d}.json"


def judge_items(scored: Sequence[Scored], views: Sequence[View]) -> list[tuple[int, View, JudgeItem]]:
    """Position, view and what the judge reads, for every view of every response that has one; of `prefix` several."""
    return [
        (i, view, JudgeItem(one.ask.question.request, text, view, one.ask.question.category))
        for i, one in enumerate(scored)
        for view in views
        for text in _texts(one, view)
    ]


def _texts(one: Scored, view: View) -> list[str]:
    if view == "prefix":
        return prefixes_of(one.response.trace)
    return [one.views[view]] if view in one.views else []


def judge_batch(scored: Sequence[Scored], judge: Judge, views: Sequence[View]) -> list[dict[View, Verdict]]:
    """One call of the judge for every view of every response that has one; its verdicts on the prefixes of a trace are
    made one, of where the trace first is unsafe."""
    items = judge_items(scored, views)
    verdicts = judge.judge([item for _, _, item in items]) if items else []
    result: list[dict[View, Verdict]] = [{} for _ in scored]
    prefixes: dict[int, list[tuple[str, Verdict]]] = {}
    for (i, view, item), verdict in zip(items, verdicts, strict=True):
        if view == "prefix":
            prefixes.setdefault(i, []).append((item.text, verdict))
        else:
            result[i][view] = verdict
    for i, read in prefixes.items():
        result[i]["prefix"] = first_unsafe([text for text, _ in read], [verdict for _, verdict in read])
    return result
