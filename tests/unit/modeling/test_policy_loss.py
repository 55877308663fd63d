import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lrm_safety.modeling.loss import policy_loss
from lrm_safety.rollouts import MiniBatch, TrainingSequence
from lrm_safety.settings import AlgorithmSettings, KLSettings


def floats(*values):
    return np.array(values, dtype=np.float32)


def sequence(index, advantages, **fields):
    ids = np.arange(len(advantages), dtype=np.int32)
    return TrainingSequence(index, ids[:1], ids, advantages=floats(*advantages), **fields)


def loss_of(logprobs, sequences, algorithm, kl_coef=0.0, num_micro_batches=1.0, world_size=1, tokens=3, responses=2):
    mini_batch = MiniBatch([list(sequences)], tokens, responses, lr=0.0, kl_coef=kl_coef)
    return policy_loss(
        logprobs, sequences, mini_batch, algorithm, num_micro_batches=num_micro_batches, world_size=world_size
    )[0]


def test_first_update_has_ratio_one_and_the_policy_gradient():
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    loss = loss_of(logprobs, [sequence(0, [2.0, 1.0]), sequence(1, [-4.0])], AlgorithmSettings(correction="off"))
    loss.backward()
    assert loss.item() == pytest.approx(-(2 + 1 - 4) / 3)
    np.testing.assert_allclose(logprobs.grad.numpy(), [-2 / 3, -1 / 3, 4 / 3], rtol=1e-6)


def test_ratio_correction_and_kl_by_hand():
    """rho = exp(.1), exp(1) (clipped at 1.2); w = exp(.5), cap 2 for exp(1.5); k2 = .5 x^2 with x = .3, -.4."""
    one = sequence(
        0,
        [1.0, 3.0],
        old_logprobs=floats(-1.1, -2.0),
        rollout_logprobs=floats(-1.6, -3.5),
        reference_logprobs=floats(-1.3, -0.6),
    )
    algorithm = AlgorithmSettings(kl=KLSettings(placement="loss", estimator="k2"))
    logprobs = torch.tensor([-1.0, -1.0])
    loss = loss_of(logprobs, [one], algorithm, kl_coef=0.5, tokens=2, responses=1)
    surrogate = -math.exp(0.5) * math.exp(0.1) * 1.0 - 2.0 * 1.2 * 3.0
    kl_term = 0.5 * 0.5 * (0.3**2 + 0.4**2)
    assert loss.item() == pytest.approx((surrogate + kl_term) / 2, rel=1e-5)
    mini_batch = MiniBatch([[one]], 2, 1, lr=0.0, kl_coef=0.5)
    whole, part = policy_loss(logprobs, [one], mini_batch, algorithm, num_micro_batches=1, world_size=1)
    assert whole.item() == loss.item() and part.item() == pytest.approx(kl_term / 2, rel=1e-5)
    bounded = AlgorithmSettings(kl=KLSettings(placement="loss", estimator="k2", clamp=0.06))
    _, part = policy_loss(logprobs, [one], mini_batch, bounded, num_micro_batches=1, world_size=1)
    assert part.item() == pytest.approx(0.5 * (0.045 + 0.06) / 2, rel=1e-5)


def test_correction_of_a_first_update_compares_current_with_engine():
    one = sequence(0, [1.0], rollout_logprobs=floats(-1.5))
    loss = loss_of(torch.tensor([-1.0]), [one], AlgorithmSettings(), tokens=1, responses=1)
    assert loss.item() == pytest.approx(-math.exp(0.5), rel=1e-6)
    off = loss_of(torch.tensor([-1.0]), [one], AlgorithmSettings(correction="off"), tokens=1, responses=1)
    assert off.item() == -1.0


@pytest.mark.parametrize(
    ("mode", "expected"), [("token_mean", -2 * 7 / 3), ("sequence_mean", -2 * (3 / 2 + 4) / 2), ("micro_batch_mean", -7 / 3 / 1.5)]
)  # fmt: skip
def test_aggregation_follows_the_setting(mode, expected):
    """Two ranks, three real micro-batches in all: 1.5 a rank."""
    algorithm = AlgorithmSettings(aggregation=mode, correction="off")
    sequences = [sequence(0, [2.0, 1.0]), sequence(1, [4.0])]
    loss = loss_of(torch.zeros(3), sequences, algorithm, num_micro_batches=1.5, world_size=2)
    assert loss.item() == pytest.approx(expected)


def test_dummy_is_zero_with_a_gradient_path():
    logprobs = torch.ones(1, requires_grad=True)
    loss = loss_of(logprobs[:0], [], AlgorithmSettings())
    loss.backward()
    assert loss.item() == 0.0 and logprobs.grad.tolist() == [0.0]


def test_missing_or_misshapen_fields_are_named():
    one = sequence(7, [1.0, 2.0])
    with pytest.raises(ValueError, match="sequence 7 has no advantages"):
        loss_of(torch.zeros(2), [replace(one, advantages=None)], AlgorithmSettings())
    with pytest.raises(ValueError, match="sequence 7: 1 old_logprobs for 2 tokens"):
        loss_of(torch.zeros(2), [replace(one, old_logprobs=floats(0.0))], AlgorithmSettings())
    with pytest.raises(ValueError, match="no reference_logprobs"):
        loss_of(torch.zeros(2), [one], AlgorithmSettings(), kl_coef=0.1)
