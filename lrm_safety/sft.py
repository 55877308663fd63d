"""Supervised fine-tuning on the policy group: the loop. Read `SftTrainer.step` first, `lifecycle.py` for what is around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .datasets.prompts import PromptSource
from .datasets.supervised import SupervisedRow
from .errors import InvariantError
from .interruption import Interruption
from .invariants import SkippedSteps
from .lifecycle import TrainingRun
from .monitoring.recorder import Recorder
from .rollouts import TokenScores, TrainingSequence
from .sft_preparation import PreparedSft
from .workers.protocols import SupervisedGroups

VALIDATION_LOSS = "sft/validation_loss"


class SftTrainer(TrainingRun[PreparedSft, SupervisedGroups]):
    """Runs one supervised run from its present state to its end."""

    best_figure = VALIDATION_LOSS

    def __init__(
        self, run: PreparedSft, groups: SupervisedGroups, recorder: Recorder, interruption: Interruption
    ) -> None:
        super().__init__(run, groups, recorder, interruption)
        settings = run.settings
        self.source = PromptSource(len(run.rows), settings.sft.batch_size, settings.seed)
        self.skipped = SkippedSteps(settings.trainer.max_skipped_steps, recorder.note)

    @property
    def steps(self) -> int:
        return self.update

    def step(self) -> None:
        """One batch, one update."""
        phases = self.recorder.phases
        with self.interruption.deferred():  # order and weights change together
            rows = [self.run.rows[index] for index in self.source.next_batch()]
            with phases.phase("update"):
                (result,) = self.groups.policy.update(
                    [training_sequences(rows)], self.schedule.learning_rates(self.update)
                )
            try:
                self.skipped.count(self.update, [result])
            except InvariantError as error:
                raise InvariantError(f"{error} (rows {', '.join(row.id for row in rows[:8])} and so on)") from error
            self.update += 1
            usage, seconds = self.groups.usage(), phases.take()
            lengths = [len(row.prompt_ids) for row in rows], [len(row.response_ids) for row in rows]
            self.recorder.record(
                self.update,
                supervised_metrics(rows, result.scores)
                | {
                    "sft/loss": result.loss,
                    "sft/num_dropped": self.run.num_dropped,
                    "sft/num_respelled": self.run.num_respelled,
                    "train/gradient_norm": result.gradient_norm,
                    "train/lr": result.lr,
                    "train/num_skipped": float(not result.taken),
                    "train/iteration": self.update,
                    "train/passes": self.schedule.passes(self.update),
                    "run/restarts": self.run.restarts,
                }
                | self.speed.metrics(*lengths, seconds, usage.work)
                | seconds
                | usage.memory,
            )

    def evaluate_if_due(self) -> None:
        """Loss of the held-out rows before the first update, after every pass, and at the end."""
        if not self.run.validation or self.is_evaluated:
            return
        passes = [int(self.schedule.passes(update)) for update in (self.update - 1, self.update)]
        if self.update > 0 and passes[0] == passes[1] and not self.finished:
            return
        with self.recorder.phases.phase("evaluate"):
            scores = self.groups.policy.logprobs(training_sequences(self.run.validation))
        self.evaluated({VALIDATION_LOSS: -mean([scores[index].logprobs for index in range(len(self.run.validation))])})

    def state(self) -> dict[str, Any]:
        return {
            "update": self.update,
            "source": self.source.state_dict(),
            "last_validation": self.last_evaluation,
            "recorder": self.recorder.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.update, self.last_evaluation = state["update"], state["last_validation"]
        self.load_source(state["source"])


def training_sequences(rows: list[SupervisedRow]) -> list[TrainingSequence]:
    """The rows for the policy group; `index` is the position in `rows`."""
    return [TrainingSequence(index, row.prompt_ids, row.response_ids) for index, row in enumerate(rows)]


def supervised_metrics(rows: list[SupervisedRow], scores: dict[int, TokenScores]) -> dict[str, float]:
    """Loss over traces and over answers, entropy and length; a part without tokens has no figure.

    `scores` are by position in `rows`, under the weights before the update.
    """
    cuts = [(scores[index], row.num_trace_tokens) for index, row in enumerate(rows)]
    parts = {
        "sft/trace_loss": [-one.logprobs[:cut] for one, cut in cuts],
        "sft/answer_loss": [-one.logprobs[cut:] for one, cut in cuts],
        "sft/entropy": [one.entropy for one, _ in cuts],
    }
    figures = {name: mean(values) for name, values in parts.items() if any(map(len, values))}
    return figures | {"sft/response_length_mean": sum(len(row.response_ids) for row in rows) / len(rows)}


def mean(parts: list[np.ndarray]) -> float:
    """Mean over all tokens of all parts, in float64."""
    return float(np.concatenate(parts).mean(dtype=np.float64))
