"""THE loop: REINFORCE++ over four groups of workers. Read `Controller.iterate` first.

One iteration takes a batch of prompts through sampling, scoring, advantages, one or more updates, and a weight sync. Whether
its batch is sampled now or was begun while earlier ones were learned from is known to `generation.py` alone.
The controller holds no model and no tensor heavier than the rollouts. When a run resumes, evaluates and saves stands in
`lifecycle.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .algorithm.shaping import RunningMoments
from .batch_metrics import iteration_metrics, rollout_rows, staleness_metrics
from .batch_record import batch_record
from .datasets.prompts import PromptSource
from .errors import InvariantError, RewardError
from .evaluation.in_loop import InLoopEvaluation, write_records
from .experience import (
    AdvantageBatch,
    RolloutBatch,
    advantages,
    make_kl_controller,
    shuffled_mini_batches,
)
from .generation import generation_of
from .interruption import Interruption
from .invariants import PROBE_SEQUENCES, SelfChecks, SkippedSteps
from .lifecycle import TrainingRun
from .monitoring.recorder import Recorder
from .monitoring.rollout_files import save_offending
from .preparation import PreparedRun
from .rollouts import TrainingSequence, Update
from .schedule import needs_old_logprobs
from .scoring import PendingChunk, StreamScorer, training_sequence
from .workers.protocols import LearningGroups


class Controller(TrainingRun[PreparedRun, LearningGroups]):
    """Runs one RL run from its present state to its end."""

    def __init__(
        self,
        run: PreparedRun,
        groups: LearningGroups,
        recorder: Recorder,
        interruption: Interruption,
        evaluation: InLoopEvaluation,
    ) -> None:
        super().__init__(run, groups, recorder, interruption)
        self.evaluation = evaluation
        self.settings = settings = run.settings
        self.best_figure = settings.checkpoint.best_metric
        self.source = PromptSource(len(run.prompts), settings.algorithm.rollout_batch_size, settings.seed)
        self.recomputes = needs_old_logprobs(settings.algorithm, self.schedule.updates_per_iteration)
        self.kl_controller = make_kl_controller(settings.algorithm.kl)
        self.moments = RunningMoments()
        self.checks = SelfChecks(settings.run, recorder.note)
        self.skipped = SkippedSteps(settings.trainer.max_skipped_steps, recorder.note)
        scores_now = self.recomputes and settings.trainer_waits_for_samples
        self.scorer = StreamScorer(
            run.prompts,
            run.parser,
            settings.reward,
            groups.reward,
            groups.reference,
            groups.policy if scores_now else None,
            recorder.waiting,
        )
        self.generation = generation_of(run, groups, self.source, self.scorer)
        self.iteration = 0

    @property
    def steps(self) -> int:
        return self.iteration

    def step(self) -> None:
        self.iterate()

    def iterate(self) -> None:
        """One rollout batch through the loop."""
        phases, groups = self.recorder.phases, self.groups
        with phases.phase("generate"):  # finished responses go to reward and reference while others still generate
            pending = self.generation.take(self.update, self.iteration)
        with phases.phase("score_wait"):
            batch = self.collect(pending)
        with self.interruption.deferred():  # from here on weights change: the iteration is finished before a stop
            groups.begin_training()
            if self.recomputes:
                with phases.phase("logprobs"):
                    sequences = [training_sequence(rollout) for rollout in batch.rollouts]
                    batch.policy = self.scorer.logprobs(pending) or groups.policy.logprobs(sequences)
            learned = self.advantages(batch)
            mini_batches = shuffled_mini_batches(learned.sequences, self.settings, self.iteration)
            with phases.phase("update"):
                updates = groups.policy.update(
                    mini_batches, self.schedule.learning_rates(self.update), self.kl_controller.coef
                )
            if not self.recomputes and len(updates) == 1:
                batch.policy = updates[0].scores  # one update scores the whole batch under the weights before it
            self.check(batch, updates, mini_batches[0])
            self.update += len(updates)
            self.iteration += 1
            with phases.phase("sync"):
                groups.end_training()
                probed = batch.rollouts[:PROBE_SEQUENCES]
                sync = self.publish([np.concatenate([r.prompt_ids, r.response_ids]) for r in probed])
            metrics = iteration_metrics(batch, mini_batches, updates, self.settings.algorithm, self.run.reflection_ids)
            if "kl/per_response" in metrics:
                self.kl_controller.update(metrics["kl/per_response"], len(batch.rollouts))
            staleness = staleness_metrics(batch, self.settings.algorithm.max_staleness)
            self.record(batch, learned, metrics | sync | staleness | self.generation.metrics())

    def restored(self) -> None:
        """The trainer's weights go to the engines in every case."""
        self.publish(self.run.rendered)

    def collect(self, pending: list[PendingChunk]) -> RolloutBatch:
        """The scored batch; a reward that cannot be computed stops the run with the rollouts saved."""
        try:
            batch = self.scorer.collect(pending)
        except RewardError:
            self.save_offending(self.scorer.unscored(pending))
            raise
        batch.weights_version = self.groups.policy.weights_version
        return batch

    def advantages(self, batch: RolloutBatch) -> AdvantageBatch:
        """Scores to advantages; a failed check stops the run with its rollouts saved."""
        try:
            self.checks.not_too_old(batch, self.settings.algorithm.max_staleness)
            self.checks.starts_at_reference(self.update, batch)
            return advantages(batch, self.settings, self.kl_controller, self.moments)
        except (InvariantError, RewardError):
            self.save_offending(batch)
            raise

    def check(self, batch: RolloutBatch, updates: list[Update], first: list[TrainingSequence]) -> None:
        """Steps finite or few skipped, rho = 1 at the first, KL = 0 before it; a failure stops the run with its rollouts
        saved."""
        try:
            self.skipped.count(self.update, updates)
            self.checks.starts_at_reference(self.update, batch)
            if self.settings.algorithm.old_logprobs == "recompute" and updates[0].taken:
                self.checks.ratio_is_one(updates[0], first)
        except InvariantError:
            self.save_offending(batch)
            raise

    def publish(self, sequences: list[np.ndarray]) -> dict[str, float]:
        """Sync the weights, then prove by version and by probe that the engines hold what the trainer holds."""
        version = self.groups.publish_weights()
        return {"sync/version": float(version)} | self.checks.after_sync(
            self.groups.rollout, self.groups.policy, version, sequences, self.settings.rollout
        )

    def record(self, batch: RolloutBatch, learned: AdvantageBatch, metrics: dict[str, float]) -> None:
        """Everything known about this iteration, into metrics.jsonl and its views."""
        usage = self.groups.usage()
        metrics |= learned.metrics | usage.memory
        metrics |= {
            "train/iteration": self.iteration,
            "train/passes": self.schedule.passes(self.iteration),
            "run/worker_replacements": self.run.replacements,
            "run/restarts": self.run.restarts,
            "rollout/num_respelled": float(self.run.prompts.num_respelled),
        }
        seconds = self.recorder.phases.take()
        # Engines that sample ahead do so in all of the iteration.
        sampling = "iteration" if self.settings.algorithm.max_staleness else "generate"
        metrics |= self.speed.metrics(
            [len(rollout.prompt_ids) for rollout in batch.rollouts],
            [len(rollout.response_ids) for rollout in batch.rollouts],
            seconds | {"time/generate_seconds": seconds[f"time/{sampling}_seconds"]},
            usage.work,
            [rollout.prompt_index for rollout in batch.rollouts],
        )
        if self.settings.algorithm.records_batches:
            self.recorder.batch(self.update, batch_record(batch, self.iteration, self.settings.algorithm))
        self.recorder.record(self.update, metrics | seconds)
        self.recorder.rollout_table(self.update, rollout_rows(self.run, batch, learned.shaped))

    def save_offending(self, batch: RolloutBatch) -> None:
        """Keep the rollouts that made a run stop."""
        rows = rollout_rows(self.run, batch, None)
        path = save_offending(self.run.directory, self.update, rows, log_text=self.settings.tracking.log_text)
        self.recorder.note(f"the rollouts are saved in {path}")

    def evaluate_if_due(self) -> None:
        """Held-out sets at update 0, every `every_updates`, and at the end; by engines that do nothing else."""
        every = self.settings.evaluation.every_updates
        due = self.update == 0 or self.finished or self.schedule.crossed(self.update, every)
        if not every or not due or self.is_evaluated:
            return
        with self.recorder.phases.phase("evaluate"):
            self.generation.settle()
            chunks = self.groups.rollout.generate(self.evaluation.requests, self.evaluation.sampling)
            metrics, records = self.evaluation.grade([rollout for chunk in chunks for rollout in chunk])
        write_records(self.run.directory / "evaluation", self.update, records, log_text=self.settings.tracking.log_text)
        self.evaluated(metrics)

    def state(self) -> dict[str, Any]:
        return {
            "update": self.update,
            "iteration": self.iteration,
            "weights_version": self.groups.policy.weights_version,
            "prompt_source": self.generation.state(),
            "kl_controller": self.kl_controller.state_dict(),
            "moments": self.moments.state_dict(),
            "last_evaluation": self.last_evaluation,
            "recorder": self.recorder.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.update, self.iteration = state["update"], state["iteration"]
        # The sync that follows a resume repeats the last one of the checkpoint, version number included.
        self.groups.policy.weights_version = state["weights_version"] - 1
        if self.load_source(state["prompt_source"]) and (lost := self.generation.restore(state["prompt_source"])):
            self.recorder.note(
                f"algorithm.oversampling is 1 now: {lost} prompts that were cut off before are not asked again"
            )
        try:
            self.kl_controller.load_state_dict(state["kl_controller"])
        except ValueError:  # another kind of controller, which checkpoint.allow_changes let through
            self.recorder.note("algorithm.kl.controller changed: it begins from algorithm.kl.coef")
        self.moments.load_state_dict(state["moments"])
        self.last_evaluation = state["last_evaluation"]
