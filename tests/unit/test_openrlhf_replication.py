"""`algorithm=openrlhf_0_9` against OpenRLHF v0.9.0: a batch that was put through its own functions, recorded."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from batches import batch, floats

from lrm_safety.algorithm.kl import FixedKL
from lrm_safety.algorithm.schedules import lr_multiplier
from lrm_safety.algorithm.shaping import RunningMoments
from lrm_safety.batching import plan_counted
from lrm_safety.experience import AdvantageBatch, advantages
from lrm_safety.modeling.loss import policy_loss
from lrm_safety.rollouts import MiniBatch
from lrm_safety.settings import Settings
from lrm_safety.settings.compose import compose_settings

RECORDED = json.loads((Path(__file__).parent / "algorithm" / "openrlhf_0_9_0.json").read_text())
PARTS = ("model=miniature", "reward=miniature", "data=miniature", "cluster=node_8gpu_split")


def composed(*overrides: str) -> Settings:
    return compose_settings([*PARTS, "algorithm=openrlhf_0_9", *overrides])[0]


def learned(settings: Settings) -> AdvantageBatch:
    lengths = [len(row) for row in RECORDED["old"]]
    of = batch(RECORDED["scores"], lengths, policy=RECORDED["old"], reference=RECORDED["reference"])
    return advantages(of, settings, FixedKL(RECORDED["beta"]), RunningMoments())


def flat(rows: list[list[float]]) -> list[float]:
    return [value for row in rows for value in row]


def step(settings: Settings) -> tuple[list[float], np.ndarray]:
    """Losses by micro-batch and the gradient of the step in the new log-probs, over two ranks that sum and average."""
    sequences = learned(settings).sequences
    count = settings.trainer.micro_batch_sequences
    assert count is not None
    plan = plan_counted(len(sequences), 2, count)
    assert plan == RECORDED["micro_batches"]
    new = [torch.tensor(row, requires_grad=True) for row in RECORDED["new"]]
    losses = []
    for rank in plan:
        for places in rank:
            micro = [sequences[place] for place in places]
            whole = MiniBatch([], sum(map(len, RECORDED["new"])), len(sequences), lr=0.0)
            loss, kl_term = policy_loss(
                torch.cat([new[place] for place in places]),
                micro,
                whole,
                settings.algorithm,
                num_micro_batches=len(rank),
                world_size=2,
            )
            assert kl_term.item() == 0.0
            losses.append(loss.item() * len(rank))
            (loss / len(plan)).backward()
    return losses, np.concatenate([row.grad.numpy() for row in new if row.grad is not None])


def test_advantages_losses_and_gradient_are_its_own() -> None:
    settings = composed()
    assert settings.algorithm.kl.coef == RECORDED["beta"]
    found = np.concatenate([one.advantages for one in learned(settings).sequences if one.advantages is not None])
    np.testing.assert_allclose(found, flat(RECORDED["advantages"]), atol=2e-6)
    losses, gradient = step(settings)
    assert losses == pytest.approx(RECORDED["micro_batch_losses"], abs=2e-6)
    np.testing.assert_allclose(gradient, flat(RECORDED["gradient"]), atol=1e-6)


@pytest.mark.parametrize("without", ["reward.clip_high=null", "algorithm.kl.clamp=null"])
def test_each_bound_of_the_preset_is_needed(without: str) -> None:
    found = np.concatenate(
        [one.advantages for one in learned(composed(without)).sequences if one.advantages is not None]
    )
    assert np.abs(found - floats(flat(RECORDED["advantages"]))).max() > 1e-3, "far beyond rounding, 2e-6"


def test_the_learning_rate_is_that_of_transformers_scheduler() -> None:
    """OpenRLHF takes `cosine_with_min_lr` from transformers, whose first step has lr 0."""
    from transformers import get_scheduler

    settings = composed()
    trainer, total = settings.trainer, settings.schedule.max_updates
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(
        "cosine_with_min_lr",
        optimizer,
        num_warmup_steps=math.ceil(trainer.warmup_fraction * total),
        num_training_steps=total,
        scheduler_specific_kwargs={"min_lr": 0.1},
    )
    for update in range(total):
        ours = lr_multiplier(update, total, warmup_fraction=trainer.warmup_fraction, from_zero=trainer.warmup_from_zero)
        assert ours == pytest.approx(scheduler.get_last_lr()[0], abs=1e-12), update
        optimizer.step()
        scheduler.step()
    assert lr_multiplier(0, total, from_zero=True) == 0.0


def test_what_else_the_preset_states() -> None:
    settings = composed()
    assert (settings.reward.clip_low, settings.reward.clip_high, settings.algorithm.kl.clamp) == (-10.0, 10.0, 10.0)
    assert (settings.rollout.max_prompt_tokens, settings.rollout.max_response_tokens) == (1024, 1024)
    assert (settings.algorithm.mini_batch_size, settings.trainer.micro_batch_sequences) == (128, 4)
