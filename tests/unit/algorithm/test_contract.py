"""A whole REINFORCE++ update, from raw scores to the gradient in the logits, against float64 loops."""

import math
import random

import pytest
import torch

from lrm_safety.algorithm.advantages import compute_advantages
from lrm_safety.algorithm.baselines import BASELINES
from lrm_safety.algorithm.corrections import CORRECTIONS
from lrm_safety.algorithm.kl import kl_estimate
from lrm_safety.algorithm.losses import aggregate, clipped_surrogate, kl_loss
from lrm_safety.algorithm.mismatch import importance_weights, mismatch_stats
from lrm_safety.algorithm.schedules import lr_multiplier
from lrm_safety.algorithm.shaping import overlong_penalty, shape_scores
from lrm_safety.algorithm.token_statistics import surrogate_stats

VOCABULARY = 5
LENGTHS = [3, 1, 4, 2]
RAW_SCORES = [4.0, -2.5, 0.5, 7.0]
KL_COEF, CLIP_LOW, CLIP_HIGH, CAP = 0.05, 0.2, 0.3, 2.0
LOSS_KL_COEF = 0.1


def make_batch(seed: int):
    """Logits of four policies (current, old = trainer's own, rollout engine, reference) and the sampled tokens."""
    source = random.Random(seed)
    total = sum(LENGTHS)

    def logits(near, spread):
        return [[value + source.gauss(0, spread) for value in row] for row in near]

    old = logits([[0.0] * VOCABULARY] * total, 1.0)
    tokens = [source.randrange(VOCABULARY) for _ in range(total)]
    return logits(old, 0.4), old, logits(old, 0.4), logits(old, 0.5), tokens


def log_softmax(row):
    normaliser = math.log(math.fsum(math.exp(value) for value in row))
    return [value - normaliser for value in row]


def reference_update(current, old, rollout, reference, tokens):
    """Advantages and d loss / d logits of the current policy, token by token."""
    chosen = {
        name: [log_softmax(row)[token] for row, token in zip(rows, tokens, strict=True)]
        for name, rows in {"now": current, "old": old, "rollout": rollout, "reference": reference}.items()
    }
    # Limit 4 tokens, buffer 2: lengths 3 and 4 lose 0.5 and 1.
    scores = [score - max(0.0, (length - 2) / 2) for score, length in zip(RAW_SCORES, LENGTHS, strict=True)]
    returns, start = [], 0
    for score, length in zip(scores, LENGTHS, strict=True):
        for token in range(start, start + length):
            later = range(token, start + length)
            returns.append(score - KL_COEF * math.fsum(chosen["old"][s] - chosen["reference"][s] for s in later))
        start += length
    mean = math.fsum(returns) / len(returns)
    variance = math.fsum((value - mean) ** 2 for value in returns) / len(returns)
    advantages = [(value - mean) / math.sqrt(variance) for value in returns]

    gradient = []
    for index, token in enumerate(tokens):
        ratio = math.exp(chosen["now"][index] - chosen["old"][index])
        advantage = advantages[index]
        clipped = (advantage > 0 and ratio > 1 + CLIP_HIGH) or (advantage < 0 and ratio < 1 - CLIP_LOW)
        weight = min(math.exp(chosen["old"][index] - chosen["rollout"][index]), CAP)
        in_logprob = 0.0 if clipped else -weight * ratio * advantage
        in_logprob += LOSS_KL_COEF * (chosen["now"][index] - chosen["reference"][index])
        probabilities = [math.exp(value) for value in log_softmax(current[index])]
        gradient.append([in_logprob * ((row == token) - p) / len(tokens) for row, p in enumerate(probabilities)])
    return advantages, gradient


@pytest.mark.parametrize("seed", range(5))
def test_one_update_against_loops(seed):
    current, old, rollout, reference, tokens = make_batch(seed)
    expected_advantages, expected_gradient = reference_update(current, old, rollout, reference, tokens)

    index = torch.tensor(tokens)[:, None]
    lengths = torch.tensor(LENGTHS)

    def logprobs(logits):
        return torch.log_softmax(logits, dim=-1).gather(1, index).squeeze(1)

    logits = torch.tensor(current, requires_grad=True)
    now = logprobs(logits)
    old_logprobs, rollout_logprobs, reference_logprobs = (
        logprobs(torch.tensor(rows)) for rows in (old, rollout, reference)
    )
    shaped = shape_scores(torch.tensor(RAW_SCORES), penalties={"overlong": overlong_penalty(lengths, 4, 2, weight=1.0)})
    kl = kl_estimate(old_logprobs - reference_logprobs, "k1")
    advantages = compute_advantages(shaped.scores, lengths, kl=kl, kl_coef=KL_COEF).advantages
    weights = importance_weights(old_logprobs, rollout_logprobs, CORRECTIONS["tis"], CAP)
    token_loss = weights * clipped_surrogate(now, old_logprobs, advantages, CLIP_LOW, CLIP_HIGH).token_loss
    token_loss = token_loss + LOSS_KL_COEF * kl_loss(now, reference_logprobs, "k2")
    aggregate(
        token_loss,
        lengths,
        "token_mean",
        global_tokens=sum(LENGTHS),
        global_responses=len(LENGTHS),
        num_micro_batches=1,
        world_size=1,
    ).backward()

    torch.testing.assert_close(advantages, torch.tensor(expected_advantages), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits.grad, torch.tensor(expected_gradient), rtol=1e-4, atol=1e-6)


def test_nothing_is_created_on_the_default_device():
    """Every new tensor follows its inputs: with another default device, a forgotten `device=` would clash."""
    lengths = torch.tensor([2, 1, 1])
    scores, groups = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 0])
    kl = torch.tensor([0.1, 0.2, 0.3, 0.4])
    now = torch.tensor([-1.0, -2.0, -0.5, -3.0], requires_grad=True)
    old = torch.tensor([-1.1, -2.0, -0.7, -9.0])
    with torch.device("meta"):
        penalty = {"overlong": overlong_penalty(lengths, 4, 2)}
        shaped = shape_scores(scores, penalties=penalty, normalise="batch", clip=(-1.0, 1.0)).scores
        for baseline in BASELINES.values():
            for normalisation in ("none", "batch", "group"):
                advantages = compute_advantages(
                    shaped,
                    lengths,
                    kl=kl,
                    kl_coef=0.1,
                    group_ids=groups,
                    baseline=baseline,
                    gamma=0.9,
                    normalisation=normalisation,
                ).advantages
        compute_advantages(shaped, lengths)
        surrogate = clipped_surrogate(now, old, advantages, 0.2, 0.2, 3.0)
        for correction in CORRECTIONS.values():
            importance_weights(now, old, correction)
            mismatch_stats(now, old, correction)
        surrogate_stats(surrogate, now, old)
        for mode in ("token_mean", "sequence_mean", "micro_batch_mean"):
            loss = aggregate(
                surrogate.token_loss + kl_loss(now, old, "k3"),
                lengths,
                mode,
                global_tokens=4,
                global_responses=3,
                num_micro_batches=1,
                world_size=1,
            )
            assert loss.device.type == "cpu"
            assert math.isfinite(loss.item())
        assert 0 < lr_multiplier(0, 10) <= 1
