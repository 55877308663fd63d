from __future__ import annotations

import math
from typing import Any

import pytest

from lrm_safety.schedule import Schedule, needs_old_logprobs
from lrm_safety.settings import AlgorithmSettings, KLSettings, ScheduleSettings, Settings, TrainerSettings


def schedule(
    num_prompts: int = 100,
    trainer: dict[str, Any] | None = None,
    algorithm: dict[str, Any] | None = None,
    **limits: Any,
) -> Schedule:
    """Rollout batches of 40 prompts in two updates, unless `algorithm` says otherwise."""
    sizes = {"rollout_batch_size": 40, "mini_batch_size": 20} | (algorithm or {})
    settings = Settings(
        algorithm=AlgorithmSettings(**sizes),
        trainer=TrainerSettings(**(trainer or {})),
        schedule=ScheduleSettings(**limits),
    )
    return Schedule.of(settings, num_prompts)


def first_end(of: Schedule) -> int:
    """The update after which a run ends."""
    return next(
        iteration * of.updates_per_iteration
        for iteration in range(10_000)
        if of.finished(iteration * of.updates_per_iteration, iteration)
    )


@pytest.mark.parametrize(
    ("limits", "end"),
    [
        ({"max_updates": 10}, 10),
        ({"max_updates": 500}, 500),
        ({"max_updates": 500, "passes": 2.0}, 10),  # 2 passes of 100 prompts are 5 batches of 40
        ({"max_updates": 500, "passes": 1.0}, 6),  # 2.5 batches: the third completes the pass
        ({"max_updates": 4, "passes": 2.0}, 4),
        ({"max_updates": 500, "stop_after_updates": 7}, 8),  # an iteration is never cut
        ({"max_updates": 6, "stop_after_updates": 100}, 6),
        ({"max_updates": 500, "passes": 2.0, "stop_after_updates": 6}, 6),
    ],
)
def test_the_first_limit_ends_the_run(limits: dict[str, Any], end: int) -> None:
    assert first_end(schedule(**limits)) == end


def test_passes_and_updates_of_an_iteration() -> None:
    one = schedule(
        num_prompts=1000, algorithm={"rollout_batch_size": 64, "samples_per_prompt": 4, "mini_batch_size": 32}
    )
    assert one.updates_per_iteration == 8
    assert one.passes(5) == 0.32, "samples of one prompt are one draw of it"


@pytest.mark.parametrize(
    ("every", "due"),
    [
        (0, []),
        (2, [2, 4, 6, 8, 10, 12]),
        (4, [4, 8, 12]),
        (5, [6, 10]),  # 5 is passed on the way to 6
        (3, [4, 6, 10, 12]),
        (1, [2, 4, 6, 8, 10, 12]),
        (100, []),
    ],
)
def test_crossed(every: int, due: list[int]) -> None:
    assert [update for update in range(2, 14, 2) if schedule().crossed(update, every)] == due


def test_cosine_learning_rates() -> None:
    # ceil(0.3 * 10) = 3 updates of warm-up, the peak at update 2, a tenth of it at update 9.
    one = schedule(max_updates=10, trainer={"lr": 1e-3, "warmup_fraction": 0.3})
    expected = [1 / 3, 2 / 3, *(0.1 + 0.45 * (1 + math.cos(math.pi * (update - 2) / 7)) for update in range(2, 10))]
    rates = [rate for update in range(0, 10, 2) for rate in one.learning_rates(update)]
    assert rates == pytest.approx([1e-3 * factor for factor in expected], rel=1e-12)
    assert (rates[2], rates[9]) == (pytest.approx(1e-3), pytest.approx(1e-4))
    assert one.learning_rates(10) == pytest.approx([1e-4, 1e-4]), "a run that goes on stays at the end"


@pytest.mark.parametrize(
    ("kind", "expected"), [("constant", [1.0, 1.0]), ("linear", [1 - 0.9 * 7 / 9, 1 - 0.9 * 8 / 9])]
)
def test_other_shapes(kind: str, expected: list[float]) -> None:
    one = schedule(max_updates=10, trainer={"lr": 2.0, "warmup_fraction": 0.0, "lr_schedule": kind})
    assert one.learning_rates(7) == pytest.approx([2.0 * factor for factor in expected])


def test_the_default_schedule() -> None:
    one = schedule()  # 500 updates, 3% of them warm-up
    assert one.learning_rates(0) == pytest.approx([1e-6 / 15, 2e-6 / 15])
    assert one.learning_rates(14)[0] == pytest.approx(1e-6)
    assert one.learning_rates(498)[1] == pytest.approx(1e-7)


@pytest.mark.parametrize(
    ("source", "mini_batch_size", "placement", "needed"),
    [
        ("recompute", 20, "reward", True),
        ("recompute", 20, "loss", True),
        ("recompute", 20, "none", True),
        ("recompute", 40, "reward", True),  # the penalty needs log pi_old before the update
        ("recompute", 40, "loss", False),
        ("recompute", 40, "none", False),
        ("rollout", 20, "reward", False),
        ("rollout", 40, "none", False),
    ],
)
def test_when_the_recompute_pass_is_made(source: str, mini_batch_size: int, placement: str, needed: bool) -> None:
    updates = schedule(algorithm={"mini_batch_size": mini_batch_size}).updates_per_iteration
    algorithm = AlgorithmSettings(old_logprobs=source, kl=KLSettings(placement=placement))
    assert needs_old_logprobs(algorithm, updates) is needed
