"""Rollouts as the rows that tables and files show."""

from __future__ import annotations

from torch import Tensor

from .experience import RolloutBatch
from .monitoring import RolloutRow
from .preparation import PreparedRun


def rollout_rows(run: PreparedRun, batch: RolloutBatch, shaped: Tensor | None) -> list[RolloutRow]:
    """One row per response of a batch; `shaped` is None when the run stopped before shaping."""
    rows = []
    for index, (rollout, response) in enumerate(zip(batch.rollouts, batch.responses, strict=True)):
        rows.append(
            RolloutRow(
                request_id=rollout.request_id,
                prompt_index=rollout.prompt_index,
                prompt_ids=rollout.prompt_ids,
                response_ids=rollout.response_ids,
                status=response.status,
                num_trace_tokens=response.num_trace_tokens,
                num_answer_tokens=response.num_answer_tokens,
                scores={name: float(values[index]) for name, values in batch.scores.by_model_and_view.items()},
                raw_reward=float(batch.scores.total[index]),
                shaped_reward=float("nan") if shaped is None else float(shaped[index]),
                prompt=run.prompts.rows[rollout.prompt_index].question,
                trace=response.trace,
                answer=response.answer,
            )
        )
    return rows
