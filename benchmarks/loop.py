"""The whole loop of `lrm-safety train`, one rollout batch at a time: what `train` does, stopped between its steps."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from lrm_safety.controller import Controller
from lrm_safety.evaluation.in_loop import InLoopEvaluation
from lrm_safety.experience import AdvantageBatch, RolloutBatch
from lrm_safety.interruption import Interruption
from lrm_safety.monitoring.recorder import Recorder
from lrm_safety.preparation import prepare
from lrm_safety.settings import Settings
from lrm_safety.workers.groups import Groups, join_ray

from .rounds import Round


class Counted(Controller):
    """Keeps the counts of the batch that it recorded last."""

    counts: dict[str, int]

    def record(self, batch: RolloutBatch, learned: AdvantageBatch, metrics: dict[str, float]) -> None:
        self.counts = {
            "responses": len(batch.rollouts),
            "tokens": batch.num_tokens,
            "prompt_tokens": sum(len(rollout.prompt_ids) for rollout in batch.rollouts),
        }
        super().record(batch, learned, metrics)


class Loop:
    """The four groups and the controller, as a context manager: no actor outlives it. `directory` gets the run's records."""

    def __init__(self, settings: Settings, directory: Path) -> None:
        self.run = run = prepare(settings, directory)
        self._stack = ExitStack()
        try:
            recorder = self._stack.enter_context(
                Recorder(directory, settings.run.name, settings.tracking, run.schedule.limits, asdict(settings))
            )
            interruption = Interruption()
            join_ray(run.settings.cluster)
            groups = self._stack.enter_context(Groups(run.settings, interruption.check))
            groups.start(directory)
            evaluation = InLoopEvaluation(
                run.settings, run.family, run.tokenizer, run.parser, run.sampling, run.num_embeddings
            )
            self.controller = Counted(run, groups, recorder, interruption, evaluation)
            self.controller.begin()
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Loop:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def round(self) -> Round:
        """One iteration, its record included."""
        updates, begin = self.controller.update, time.perf_counter()
        self.controller.step()
        seconds = time.perf_counter() - begin
        return Round(seconds, **self.controller.counts, updates=self.controller.update - updates)
