"""From generated token ids to graded and judged responses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..conversation import ParsedResponse, ResponseParser, compose_response
from ..errors import DataError
from .benchmarks.custom import GradedQuestion
from .benchmarks.question import Question
from .benchmarks.registry import Scoring
from .graders.choice import grade_choice
from .graders.grade import UNFINISHED, Grade
from .graders.math import MathGrader, MathItem
from .judges.judge import Judge, JudgeItem, Verdict, View
from .plan import Ask, PlannedBenchmark
from .responses import Generated, write_atomically

NEVER_SAFE = ("unfinished_trace", "unfinished_answer", "empty_answer")
"""Responses that prove nothing: their own figures, and 0 in every figure of safety."""


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
    """Whether there is an answer that may count as safe."""
    return response.status not in NEVER_SAFE and bool(response.answer)


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
    value = float(question.grader(question.row, response.trace, response.answer, response.finished))
    if not response.finished and value == 0.0:
        return UNFINISHED
    return Grade(value, "", "correct" if value == 1.0 else "wrong")


class VerdictStore:
    """The verdicts of one judge in FOLDER/NAME/verdicts-JUDGE/batch-0000.json, judged and saved in fixed batches."""

    def __init__(
        self, folder: Path, name: str, identity: dict[str, Any], views: Sequence[View], batch_size: int
    ) -> None:
        """`identity` is the judge's configuration."""
        self._folder, self.name, self._identity = folder, name, identity
        self._views, self._batch_size = views, batch_size

    def num_missing(self, planned: PlannedBenchmark) -> int:
        """Responses that this judge has not read."""
        return sum(
            min(self._batch_size, len(planned.asks) - start)
            for number, start in self._batches(planned)
            if not self._path(planned, number).is_file()
        )

    def open(self, planned: PlannedBenchmark) -> None:
        """Claim the folder; raises DataError when another configuration of this judge has written in it."""
        path = self._folder / planned.name / f"verdicts-{self.name}" / "identity.json"
        content = json.dumps(self._identity, indent=2, sort_keys=True)
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content.encode())
        elif path.read_text(encoding="utf-8") != content:
            raise DataError(
                f"{path.parent} holds verdicts of another configuration of evaluation.judges.{self.name}; give the judge "
                "another name, or delete that folder to judge again"
            )

    def complete(
        self, planned: PlannedBenchmark, scored: Sequence[Scored], judge: Judge, on_response: Callable[[], None]
    ) -> None:
        """Judge and save every batch that is missing."""
        for number, start in self._batches(planned):
            path = self._path(planned, number)
            if path.is_file():
                continue
            batch = scored[start : start + self._batch_size]
            rows = [
                {view: asdict(verdict) for view, verdict in verdicts.items()}
                for verdicts in judge_batch(batch, judge, self._views)
            ]
            write_atomically(path, json.dumps(rows).encode())
            for _ in batch:
                on_response()

    def read(self, planned: PlannedBenchmark, scored: Sequence[Scored]) -> None:
        """Fill in this judge's verdicts; every batch must be there."""
        for number, start in self._batches(planned):
            path = self._path(planned, number)
            try:
                rows = json.loads(path.read_text(encoding="utf-8"))
                batch = scored[start : start + self._batch_size]
                found = [{view: Verdict(**verdict) for view, verdict in row.items()} for row in rows]
                for one, verdicts in zip(batch, found, strict=True):
                    one.verdicts[self.name] = verdicts
            except (OSError, ValueError, TypeError, AttributeError) as error:
                raise DataError(f"{path}: cannot be read ({error}); delete it, and it is judged again") from error

    def _batches(self, planned: PlannedBenchmark) -> Iterator[tuple[int, int]]:
        yield from enumerate(range(0, len(planned.asks), self._batch_size))

    def _path(self, planned: PlannedBenchmark, number: int) -> Path:
        return self._folder / planned.name / f"verdicts-{self.name}" / f"batch-{number:04d}.json"


def judge_batch(scored: Sequence[Scored], judge: Judge, views: Sequence[View]) -> list[dict[View, Verdict]]:
    """One call of the judge for every view of every response that has one."""
    places = [(i, view) for i, one in enumerate(scored) for view in views if view in one.views]
    items = [
        JudgeItem(one.ask.question.request, one.views[view], view, one.ask.question.category)
        for one, view in ((scored[i], view) for i, view in places)
    ]
    verdicts = judge.judge(items) if items else []
    result: list[dict[View, Verdict]] = [{} for _ in scored]
    for (i, view), verdict in zip(places, verdicts, strict=True):
        result[i][view] = verdict
    return result
