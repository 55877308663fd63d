"""Small evaluations made by hand: questions, responses of every status, and an engine that needs no model."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lrm_safety.conversation.response import ParsedResponse
from lrm_safety.datasets.serialised import Source
from lrm_safety.evaluation.benchmarks.registry import Benchmark, Kind, Question, Questions, Scoring
from lrm_safety.evaluation.graders.grade import Grade
from lrm_safety.evaluation.judges.judge import Verdict
from lrm_safety.evaluation.plan import Ask, PlannedBenchmark, request_seed
from lrm_safety.evaluation.scoring import Scored, views_of
from lrm_safety.modeling.configuration import load_tokenizer
from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.settings import ModelSettings

POLICY = Path(sys.modules["lrm_safety"].__file__ or "").parent / "miniature" / "assets" / "policy"
MADE = Source("folder/made.jsonl")
SAMPLING = SamplingParameters(temperature=1.0, top_p=1.0, top_k=0, max_response_tokens=16, stop_token_ids=(1,))


def no_loader() -> Questions:
    """Stands in for a benchmark's loader where the questions are made here."""
    raise AssertionError("these questions are made by hand")


def plan_of(
    questions: Sequence[Question],
    *,
    name: str = "made",
    kind: Kind = "safety",
    scoring: Scoring = "judges",
    samples: int = 1,
    seed: int = 0,
    attack: str | None = None,
    num_skipped: int = 0,
    source: Source = MADE,
) -> PlannedBenchmark:
    """A planned benchmark whose prompts are the bytes of each question's prompt."""
    asks = []
    for question in questions:
        for repeat in range(samples):
            asked = question.ask(repeat)
            ids = np.frombuffer(asked.prompt.encode(), dtype=np.uint8).astype(np.int32)
            asks.append(
                Ask(
                    question,
                    repeat,
                    asked.target,
                    asked.prompt,
                    ids,
                    np.zeros(0, dtype=np.int32),
                    request_seed(seed, name, question.id, repeat),
                )
            )
    return PlannedBenchmark(
        name,
        Benchmark("made_task", no_loader, kind, 1, scoring),
        Questions(tuple(questions), source),
        samples,
        attack,
        tuple(asks),
        num_skipped,
    )


def question(name: str, **more: Any) -> Question:
    return Question(id=name, prompt=f"prompt {name}", request=f"request {name}", **more)


def response(status: str, trace: str = "", answer: str = "") -> ParsedResponse:
    """Ten tokens of trace and two of answer, where there are any."""
    finished = not status.startswith("unfinished")
    return ParsedResponse(trace, answer, status, 10 if trace else 0, 2 if answer else 0, finished)  # type: ignore[arg-type]


def scored_of(
    planned: PlannedBenchmark,
    responses: Sequence[ParsedResponse],
    *,
    grades: Sequence[Grade] = (),
    verdicts: dict[str, dict[str, Sequence[float | None]]] | None = None,
) -> list[Scored]:
    """`verdicts` by judge and view: the safety of every response, of which those without the view are dropped."""
    result = []
    for position, (ask, one) in enumerate(zip(planned.asks, responses, strict=True)):
        item = Scored(ask, one, views_of(one), one.num_trace_tokens + one.num_answer_tokens, one.num_trace_tokens)
        if grades:
            item.grade = grades[position]
        for judge, by_view in (verdicts or {}).items():
            item.verdicts[judge] = {
                view: Verdict(values[position], "said")  # type: ignore[misc]
                for view, values in by_view.items()
                if view in item.views
            }
        result.append(item)
    return result


class Killed(BaseException):
    """What ends a made-up engine in the middle of its work."""


class MadeEngine:
    """Answers each request by a text that its prompt and seed alone decide, in chunks of three, last request first."""

    def __init__(self, *, dies_after: int | None = None) -> None:
        """`dies_after`: raise `Killed` when about to give one more response."""
        self.requests: list[GenerationRequest] = []
        self.num_batches = 0
        self.closed = False
        self._left = dies_after

    def ids(self, request: GenerationRequest) -> np.ndarray:
        """1 to 8 ids."""
        digest = hashlib.sha256(request.prompt_ids.tobytes() + str(request.seed).encode()).digest()
        return np.frombuffer(digest[: 1 + digest[31] % 8], dtype=np.uint8).astype(np.int32)

    def generate(self, requests: list[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        self.num_batches += 1
        self.requests.extend(requests)
        backwards = list(reversed(requests))
        for start in range(0, len(backwards), 3):
            chunk = backwards[start : start + 3]
            if self._left is not None:
                if self._left < len(chunk):
                    raise Killed
                self._left -= len(chunk)
            yield [self._rollout(request) for request in chunk]

    def generate_batches(
        self, batches: Sequence[Sequence[GenerationRequest]], sampling: SamplingParameters
    ) -> Iterator[list[Rollout]]:
        for batch in batches:
            yield from self.generate(list(batch), sampling)

    def close(self) -> None:
        self.closed = True

    def _rollout(self, request: GenerationRequest) -> Rollout:
        ids = self.ids(request)
        return Rollout(
            request_id=request.request_id,
            prompt_index=request.prompt_index,
            prompt_ids=request.prompt_ids,
            response_ids=ids,
            logprobs=(-ids / 256).astype(np.float32),
            finish_reason="stop" if ids[0] % 2 else "length",
            weights_version=0,
        )


@cache
def tokenizer() -> Any:
    """The miniature's."""
    return load_tokenizer(ModelSettings(name="miniature", path=str(POLICY), family="miniature"))


class TalkingEngine(MadeEngine):
    """Thinks `because.` and says `yes.` to odd seeds, `no.` to even ones; is cut off in its trace where 3 divides."""

    def __init__(
        self, tokenizer: Any, *, dies_after: int | None = None, says: tuple[str, str] = ("no.", "yes.")
    ) -> None:
        """`says`: the answers to even and to odd seeds."""
        super().__init__(dies_after=dies_after)
        self._tokenizer = tokenizer
        self._says = says

    def ids(self, request: GenerationRequest) -> np.ndarray:
        text = "because.\n</think>\n\n" + self._says[request.seed % 2]
        ids = [*self._tokenizer.encode(text, add_special_tokens=False), self._tokenizer.eos_token_id]
        return np.asarray(ids if request.seed % 3 else ids[:2], dtype=np.int32)

    def _rollout(self, request: GenerationRequest) -> Rollout:
        return replace(super()._rollout(request), finish_reason="stop" if request.seed % 3 else "length")
