"""Evaluation inside training: held-out prompts answered by the engines that already hold the weights."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..conversation import Family, ResponseParser
from ..datasets import load_prompts, render_prompts
from ..errors import ConfigError
from ..rollouts import GenerationRequest, Rollout, SamplingParameters
from ..settings import EvaluationSetSettings, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Grader = Callable[[dict[str, Any], str, str, bool], float]
"""grade(row, trace, answer, finished) -> grade, usually 0 or 1."""


@dataclass(frozen=True)
class _Item:
    """One held-out prompt."""

    set_name: str
    row: dict[str, Any]
    request: GenerationRequest


class InLoopEvaluation:
    """The held-out sets of a run, rendered once; seeds are fixed per prompt, so that two evaluations differ by weights alone."""

    def __init__(
        self,
        settings: Settings,
        family: Family,
        tokenizer: PreTrainedTokenizerBase,
        parser: ResponseParser,
        sampling: SamplingParameters,
    ) -> None:
        """Raises ConfigError or DataError for a grader or a file that cannot be used."""
        self._parser = parser
        self.sampling = SamplingParameters(
            temperature=settings.evaluation.temperature,
            top_p=settings.evaluation.top_p,
            top_k=0,
            max_response_tokens=sampling.max_response_tokens,
            stop_token_ids=sampling.stop_token_ids,
        )
        self._graders: dict[str, Grader] = {}
        self._items: list[_Item] = []
        for name, one in settings.evaluation.sets.items():
            self._graders[name] = import_grader(one.grader, f"evaluation.sets.{name}.grader")
            self._add(name, one, settings, family, tokenizer)

    @property
    def requests(self) -> list[GenerationRequest]:
        """One request per held-out prompt."""
        return [item.request for item in self._items]

    def grade(self, rollouts: list[Rollout]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Mean grade per set (`evaluation/NAME`), and one record per response."""
        by_set: dict[str, list[float]] = {}
        records = []
        for rollout in sorted(rollouts, key=lambda rollout: rollout.request_id):
            item = self._items[rollout.request_id]
            response = self._parser.parse(rollout.response_ids.tolist(), rollout.finish_reason)
            grade = float(self._graders[item.set_name](item.row, response.trace, response.answer, response.finished))
            by_set.setdefault(item.set_name, []).append(grade)
            records.append(
                {
                    "set": item.set_name,
                    "id": item.row["id"],
                    "grade": grade,
                    "status": response.status,
                    "num_response_tokens": len(rollout.response_ids),
                    "trace": response.trace,
                    "answer": response.answer,
                }
            )
        return {f"evaluation/{name}": float(np.mean(grades)) for name, grades in by_set.items()}, records

    def _add(
        self,
        name: str,
        one: EvaluationSetSettings,
        settings: Settings,
        family: Family,
        tokenizer: PreTrainedTokenizerBase,
    ) -> None:
        prompts = load_prompts(one.path)
        _, rendered = render_prompts(
            prompts,
            family,
            tokenizer,
            system_prompt=settings.model.system_prompt,
            max_prompt_tokens=settings.rollout.max_prompt_tokens,
        )
        rows = [
            {"id": row.id, "question": row.question, "category": list(row.categories), **row.extra} for row in prompts
        ]
        chosen = [i for i, row in enumerate(rows) if all(row.get(key) == value for key, value in one.where.items())]
        if not chosen:
            raise ConfigError(f"evaluation.sets.{name}.where={one.where}: no row of {one.path} matches")
        for index in chosen[: one.limit]:
            position = len(self._items)
            seed = int(np.random.SeedSequence([settings.seed, position]).generate_state(1)[0])
            self._items.append(_Item(name, rows[index], GenerationRequest(position, index, rendered[index], seed)))


def import_grader(path: str, key: str) -> Grader:
    """The function at `package.module:function`; raises ConfigError naming `key`."""
    module_name, colon, function = path.partition(":")
    if not colon:
        raise ConfigError(f"{key}={path}: must be package.module:function")
    try:
        grader = getattr(importlib.import_module(module_name), function)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}={path}: cannot be imported ({error})") from error
    if not callable(grader):
        raise ConfigError(f"{key}={path}: is not a function")
    return grader


def write_records(folder: Path, update: int, records: list[dict[str, Any]], *, log_text: bool) -> None:
    """One JSON line per response in `evaluation/update-000123.jsonl`; texts only when the run logs text."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"update-{update:06d}.jsonl").open("w", encoding="utf-8") as file:
        for record in records:
            kept = record if log_text else {k: v for k, v in record.items() if k not in ("trace", "answer")}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")
