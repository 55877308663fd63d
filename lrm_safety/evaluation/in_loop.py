"""Evaluation inside training: the same benchmarks, judges and graders, answered by the engines that hold the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..conversation.families import Family
from ..conversation.response import ResponseParser
from ..files import write_json_lines
from ..rollouts import GenerationRequest, Rollout, SamplingParameters
from ..settings import Settings
from .figures import figures, is_of_group, primary_figure
from .graders.math import MathGrader
from .judges.judge import build_judge, check_in_training, check_judged, judge_views
from .plan import Planner, check_template_thinks, choose_protocol, sampling_parameters
from .responses import Generated
from .scoring import Scored, grade, judge_batch, parse

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT_FIELDS = ("prompt", "trace", "answer", "extracted")
"""What of a record is text of data and model, and is written only where text is logged."""


class InLoopEvaluation:
    """The benchmarks of a run, planned once; seeds are fixed per question, so that two evaluations differ by weights alone."""

    def __init__(
        self,
        settings: Settings,
        family: Family,
        tokenizer: PreTrainedTokenizerBase,
        parser: ResponseParser,
        sampling: SamplingParameters,
        num_embeddings: int | None = None,
    ) -> None:
        """`num_embeddings`: tokens that the model's embedding has.

        Raises ConfigError, DataError or ModelError for a benchmark, judge or grader that cannot be used.
        """
        self._settings = (
            settings.evaluation if settings.evaluation.every_updates else replace(settings.evaluation, benchmarks={})
        )
        self._parser = parser
        protocol = choose_protocol(self._settings, family, sampling)
        if self._settings.benchmarks:
            check_template_thinks(protocol, family, tokenizer)
        longest = min(protocol.max_response_tokens, settings.rollout.max_response_tokens)
        self.sampling = sampling_parameters(replace(protocol, max_response_tokens=longest), sampling.stop_token_ids)
        planner = Planner(
            family,
            tokenizer,
            system_prompt=settings.model.system_prompt,
            max_prompt_tokens=settings.rollout.max_prompt_tokens,
            limit_key="rollout.max_prompt_tokens",
            num_embeddings=num_embeddings,
        )
        self._planned = planner.plan(self._settings, protocol)
        self._judges = {}
        judged = {planned.name: planned.benchmark.kind for planned in self._planned if planned.benchmark.judged}
        check_judged(judged, self._settings.judges)
        if judged:
            for name, judge in self._settings.judges.items():
                check_in_training(name, judge)
                self._judges[name] = (build_judge(name, judge, device="cpu"), judge_views(judge))

    @property
    def requests(self) -> list[GenerationRequest]:
        """One request per response, benchmark after benchmark."""
        asks = [ask for planned in self._planned for ask in planned.asks]
        return [GenerationRequest(i, i, ask.prompt_ids, ask.seed) for i, ask in enumerate(asks)]

    def grade(self, rollouts: Sequence[Rollout]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """The primary figure of each benchmark (`evaluation/NAME`) and its others, and one record per response.

        Only figures that are finite: one that nothing adds to, or that is not defined, is left out.
        """
        by_request = {rollout.request_id: rollout for rollout in rollouts}
        metrics: dict[str, float] = {}
        records: list[dict[str, Any]] = []
        position = 0
        with MathGrader() as grader:
            for planned in self._planned:
                mine = [by_request[position + i] for i in range(len(planned.asks))]
                position += len(planned.asks)
                scored = parse(planned, [Generated.of(one) for one in mine], self._parser)
                if planned.benchmark.judged:
                    for name, (judge, views) in self._judges.items():
                        for one, verdicts in zip(scored, judge_batch(scored, judge, views), strict=True):
                            one.verdicts[name] = verdicts
                else:
                    items = [(one.ask.question, one.response, one.ask.target) for one in scored]
                    for one, result in zip(scored, grade(planned.benchmark.scoring, items, grader), strict=True):
                        one.grade = result
                readers = {name: views for name, (_, views) in self._judges.items()}
                found = figures(planned, scored, readers, self._settings.seed)
                primary = primary_figure(planned, readers)
                metrics |= {
                    f"evaluation/{planned.name}" + ("" if name == primary else f"/{name}"): figure.value
                    for name, figure in found.items()
                    # kappa is not a number where both judges always say the same; checkpoints keep these as JSON
                    if not is_of_group(name) and math.isfinite(figure.value)
                }
                if primary in found:
                    metrics[f"evaluation/{planned.name}/num_questions"] = float(found[primary].n)
                records.extend(record(planned.name, one) for one in scored)
        return metrics, records


def record(benchmark: str, one: Scored) -> dict[str, Any]:
    """One response as a row of a samples file; TEXT_FIELDS are the only ones that hold text."""
    row: dict[str, Any] = {
        "set": benchmark,
        "id": one.ask.question.id,
        "repeat": one.ask.repeat,
        "seed": one.ask.seed,
        "status": one.response.status,
        "finished": one.response.finished,
        "num_response_tokens": one.num_tokens,
        "num_trace_tokens": one.num_trace_tokens,
    }
    if one.grade is not None:
        row |= {"grade": float(one.grade.correct), "outcome": one.grade.outcome, "extracted": one.grade.extracted}
    if one.verdicts:
        row["verdicts"] = {
            judge: {view: {"safety": v.safety, "label": v.label} for view, v in verdicts.items()}
            for judge, verdicts in one.verdicts.items()
        }
    return row | {"prompt": one.ask.prompt, "trace": one.response.trace, "answer": one.response.answer}


def write_records(folder: Path, update: int, records: list[dict[str, Any]], *, log_text: bool) -> None:
    """One JSON line per response in `evaluation/update-000123.jsonl`; texts only when the run logs text."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = records if log_text else [{k: v for k, v in row.items() if k not in TEXT_FIELDS} for row in records]
    write_json_lines(folder / f"update-{update:06d}.jsonl", rows)
