"""The controller over real groups: what it refuses to learn from, and what it never saves."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from started_groups import Started

from lrm_safety.checkpoints import CheckpointStore
from lrm_safety.controller import Controller
from lrm_safety.errors import InvariantError, JudgeError
from lrm_safety.evaluation.in_loop import InLoopEvaluation
from lrm_safety.experience import generation_requests
from lrm_safety.interruption import Interruption, StopRequested
from lrm_safety.monitoring.recorder import Recorder
from lrm_safety.rewards.conversation import Conversation
from lrm_safety.rollouts import GenerationRequest, Update
from lrm_safety.schedule import Schedule
from lrm_safety.scoring import training_sequence
from lrm_safety.settings import Settings

pytestmark = pytest.mark.timeout(600)


def requests(controller: Controller, prompts: list[int]) -> list[GenerationRequest]:
    return generation_requests(controller.run.rendered, prompts, controller.settings, controller.iteration)


def small(settings: Settings) -> Settings:
    """Two updates of 8 responses an iteration; what the workers were started with stays."""
    algorithm = replace(settings.algorithm, rollout_batch_size=16, mini_batch_size=8)
    evaluation = replace(settings.evaluation, every_updates=0)
    tracking = replace(settings.tracking, wandb="disabled", console="off")
    schedule = replace(settings.schedule, max_updates=4)
    return replace(settings, algorithm=algorithm, evaluation=evaluation, tracking=tracking, schedule=schedule)


@pytest.fixture
def controller(started: Started, tmp_path: Path) -> Iterator[Controller]:
    store = CheckpointStore(tmp_path / "checkpoints")
    settings = small(started.run.settings)
    schedule = Schedule.of(settings, len(started.run.prompts))
    run = replace(started.run, settings=settings, schedule=schedule, directory=tmp_path, store=store)
    evaluation = InLoopEvaluation(settings, run.family, run.tokenizer, run.parser, run.sampling)
    with Recorder(tmp_path, settings.run.name, settings.tracking, settings.schedule, {}) as recorder:
        yield Controller(run, started.groups, recorder, Interruption(), evaluation)


def move_the_policy(controller: Controller) -> None:
    """One update that nobody else knows of."""
    chunks = controller.groups.rollout.generate(requests(controller, [0, 1, 2, 3]), controller.run.sampling)
    rollouts = [rollout for chunk in chunks for rollout in chunk]
    sequences = [
        replace(training_sequence(one), advantages=np.ones(len(one.response_ids), dtype=np.float32)) for one in rollouts
    ]
    controller.groups.policy.update([sequences], [1e-3], 0.0)


def offending(controller: Controller) -> list[dict]:
    """The rows of the file of rollouts that made the run stop; none where there is no file."""
    files = list((controller.run.directory / "rollouts").glob("offending-*.jsonl"))
    assert len(files) <= 1
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_an_iteration_syncs_counts_and_writes_one_line(controller: Controller) -> None:
    controller.begin()
    controller.update = 2  # the groups may have learned in another test, and the first update demands KL = 0
    version = controller.groups.policy.weights_version
    controller.iterate()
    assert (controller.update, controller.iteration) == (4, 1)
    assert controller.groups.policy.weights_version == version + 1
    assert controller.groups.rollout.weights_versions() == [version + 1]
    (line,) = map(json.loads, (controller.run.directory / "metrics.jsonl").read_text().splitlines())
    assert line["update"] == 4 and line["rollout/version_lag"] == 0 and line["sync/probe_max_abs"] < 1e-4
    assert all(math.isfinite(value) for value in line.values() if isinstance(value, float))


def test_an_iteration_with_segment_rewards(controller: Controller, started: Started) -> None:
    """The same groups: workers need no setting of it. The very first prefix is scored as the reward group scores it."""
    settings = replace(controller.settings, reward=replace(controller.settings.reward, granularity="segment"))
    run = replace(controller.run, settings=settings)
    by_segment = Controller(run, started.groups, controller.recorder, Interruption(), controller.evaluation)
    by_segment.begin()
    by_segment.update = 2  # as above
    by_segment.iterate()
    (line,) = map(json.loads, (controller.run.directory / "metrics.jsonl").read_text().splitlines())
    assert 1 < line["reward/prefixes_per_response"] <= 7 and 0 <= line["reward/segment_fallback_rate"] < 1
    assert (
        line["reward/segment_seconds"] > 0 and line["reward/segment_cost"] > 0 and line["reward/prefix_score_std"] > 0
    )

    prompts = by_segment.source.next_batch()
    batch = by_segment.collect(
        by_segment.scorer.submit(
            started.groups.rollout.generate(requests(by_segment, prompts), run.sampling), len(prompts)
        )
    )
    assert batch.segments is not None
    ends = [len(rollout.response_ids) for rollout in batch.rollouts]
    assert all(not steps or steps[-1].end == end for steps, end in zip(batch.segments.steps, ends, strict=True))
    index = next(i for i, steps in enumerate(batch.segments.steps) if steps)
    step, response = batch.segments.steps[index][0], batch.responses[index]
    trace = run.parser.decode(batch.rollouts[index].response_ids[: step.end].tolist()).strip()
    read = Conversation(
        run.prompts.rows[batch.rollouts[index].prompt_index].question,
        trace,
        "",
        f"<think>\n{trace}",
        "unfinished_trace",
    )
    assert response.trace.startswith(trace)
    alone = started.groups.reward.result(started.groups.reward.submit([read])).total[0]
    assert batch.segments.prefix_scores[index][0] == pytest.approx(alone, abs=1e-4)


def test_a_policy_that_does_not_start_at_its_reference_is_refused(controller: Controller) -> None:
    move_the_policy(controller)
    controller.begin()
    with pytest.raises(InvariantError, match="KL\\(policy, reference\\) is not 0 before the first update"):
        controller.iterate()
    assert [row["request_id"] for row in offending(controller)] == list(range(16))
    assert controller.update == 0


def test_weights_that_were_never_published_are_noticed(controller: Controller) -> None:
    controller.begin()
    move_the_policy(controller)
    probe = controller.run.rendered[:4]
    engines, trainer = controller.groups.rollout.probe(probe), controller.groups.policy.probe_scores(probe)
    with pytest.raises(InvariantError, match=r"rollout\.probe_tolerance"):
        controller.checks.probe_agrees(engines, trainer, controller.settings.rollout.probe_tolerance)


def test_a_loss_that_is_not_a_number_stops_the_run_with_its_rollouts(controller: Controller) -> None:
    controller.begin()
    prompts = controller.source.next_batch()
    chunks = controller.groups.rollout.generate(requests(controller, prompts), controller.run.sampling)
    batch = controller.collect(controller.scorer.submit(chunks, len(prompts)))
    spoiled = Update(loss=math.nan, gradient_norm=math.nan, lr=1e-4, scores={})
    controller.check(batch, [spoiled], [])
    assert not offending(controller), "one step is skipped"
    with pytest.raises(InvariantError, match=r"^update 3: loss .* 4 in a row \(trainer\.max_skipped_steps=3\)"):
        controller.check(batch, [spoiled] * 3, [])
    assert [row["prompt_index"] for row in offending(controller)] == prompts


def test_the_second_signal_saves_nothing(controller: Controller, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may come in the middle of an update, when the weights are no longer those of the last whole iteration."""

    def interrupted() -> None:
        raise StopRequested(signal.SIGINT, at_once=True)

    monkeypatch.setattr(controller, "iterate", interrupted)
    with pytest.raises(StopRequested):
        controller.train()
    assert controller.run.store.latest() is None


def test_a_judge_that_fails_costs_no_update_and_the_resume_evaluates(
    controller: Controller, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = started.run.settings.evaluation
    few = {name: replace(benchmark, limit=4) for name, benchmark in wanted.benchmarks.items()}
    settings = replace(controller.settings, evaluation=replace(wanted, every_updates=2, benchmarks=few))
    run = replace(controller.run, settings=settings)
    evaluation = InLoopEvaluation(settings, run.family, run.tokenizer, run.parser, run.sampling)
    grade, graded = evaluation.grade, []

    def fails_the_second_time(rollouts):
        graded.append(len(rollouts))
        if len(graded) == 2:
            raise JudgeError("the judge is down")
        return grade(rollouts)

    monkeypatch.setattr(evaluation, "grade", fails_the_second_time)
    first = Controller(run, started.groups, controller.recorder, Interruption(), evaluation)
    first.update = 2  # the groups may have learned in another test, and the first update demands KL = 0
    with pytest.raises(JudgeError, match="is down"):
        first.train()
    saved = run.store.latest()
    assert saved is not None and saved.update == 4 and saved.state["last_evaluation"]["update"] == 2

    second = Controller(replace(run, checkpoint=saved), started.groups, controller.recorder, Interruption(), evaluation)
    second.begin()
    assert second.last_evaluation["update"] == 4 and "evaluation/safety" in second.last_evaluation
    second.evaluate_if_due()
    assert len(graded) == 3, "an update is evaluated once"
    lines = [json.loads(line) for line in (run.directory / "metrics.jsonl").read_text().splitlines()]
    assert [line["update"] for line in lines if "evaluation/safety" in line] == [2, 4]
