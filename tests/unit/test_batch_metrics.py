"""Metrics of one iteration against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import batch, floats, response, rollout, scores, token_scores

from lrm_safety.algorithm.corrections import CORRECTIONS
from lrm_safety.algorithm.mismatch import importance_weights
from lrm_safety.batch_metrics import (
    entropy_metrics,
    iteration_metrics,
    kl_metrics,
    mismatch_metrics,
    response_metrics,
    staleness_metrics,
    update_metrics,
)
from lrm_safety.monitoring.registry import find
from lrm_safety.rollouts import TokenScores, TrainingSequence, Update
from lrm_safety.settings import AlgorithmSettings, KLSettings


def sequence(index: int, length: int, old: list[float] | None, values: list[float]) -> TrainingSequence:
    one = rollout(index, length)
    return TrainingSequence(
        index, one.prompt_ids, one.response_ids, floats(values), None if old is None else floats(old)
    )


def update(of: dict[int, TokenScores], loss: float = 0.0, norm: float = 1.0, lr: float = 1e-6) -> Update:
    return Update(loss, norm, lr, of)


def test_the_mismatch_is_that_of_tokens_of_the_present_weights() -> None:
    """Tokens 0 and 2 were sampled by older weights, whose differences of 1 and 0.5 tell of them and not of the engine; the weights
    correct them all the same: exp(1) is above the cap of 2."""
    trainer, engine = [floats([-1.0, -1.0, -1.0])], [floats([-2.0, -1.1, -1.5])]
    algorithm = AlgorithmSettings(max_staleness=2)
    figures = mismatch_metrics(trainer, engine, algorithm, [np.array([2, 0, 1])])
    assert figures["mismatch/max_abs_logprob"] == pytest.approx(0.1, abs=1e-6)
    assert figures["mismatch/mean_exp"] == pytest.approx(math.exp(0.1), abs=1e-6)
    assert figures["mismatch/stale_mean_abs_logprob"] == pytest.approx(0.75, abs=1e-6)
    assert figures["mismatch/corrected_fraction"] == pytest.approx(1 / 3)
    none_fresh = mismatch_metrics(trainer, engine, algorithm, [np.array([2, 1, 1])])
    assert none_fresh.keys() == {"mismatch/stale_mean_abs_logprob", "mismatch/corrected_fraction"}
    all_fresh = mismatch_metrics(trainer, engine, algorithm, [np.array([0, 0, 0])])
    assert all_fresh == mismatch_metrics(trainer, engine, algorithm)


def test_staleness() -> None:
    """Version 3 samples both responses but for the last token of the second, which version 4 samples; version 5 learns."""
    of = batch([0.0, 0.0], [2, 3])
    of.rollouts[1] = replace(of.rollouts[1], taken_over=((2, 4),))
    of.weights_version = 5
    assert staleness_metrics(of, 2) == {
        "rollout/version_lag": 2,
        "rollout/version_lag_mean": pytest.approx((4 * 2 + 1) / 5),
        "rollout/stale_fraction": 1.0,
    }
    of.weights_version = 4
    assert staleness_metrics(of, 2)["rollout/stale_fraction"] == pytest.approx(4 / 5)
    assert staleness_metrics(batch([0.0], [2]), 0) == {"rollout/version_lag": 0}


def test_entropy_is_split_at_the_end_of_the_trace() -> None:
    # Token ids 0, 1 | 2 and 100 | 101, a bar at the end of each trace.
    of = batch([0.0, 0.0], [3, 2], responses=[response(3, trace=2), response(2, trace=1)])
    entropies = {
        0: TokenScores(0, floats([0, 0, 0]), floats([1.0, 2.0, 4.0])),
        1: TokenScores(1, floats([0, 0]), floats([3.0, 0.5])),
    }
    # 2 is a reflection word too, but stands in an answer.
    assert entropy_metrics(of, entropies, frozenset({1, 2, 100})) == {
        "entropy/all": pytest.approx(10.5 / 5),
        "entropy/trace": pytest.approx(6.0 / 3),
        "entropy/answer": pytest.approx(4.5 / 2),
        "entropy/reflection": pytest.approx(5.0 / 2),  # tokens 1 and 100
        "reflection/count_per_response": 1.0,
    }


def test_an_empty_part_has_no_entropy() -> None:
    of = batch([0.0], [2])
    found = entropy_metrics(of, token_scores([[0.0, 0.0]], entropy=0.5), frozenset({0}))
    assert found == {"entropy/all": 0.5, "entropy/answer": 0.5, "reflection/count_per_response": 0.0}
    none = entropy_metrics(batch([0.0], [2], responses=[response(2, trace=2)]), token_scores([[0.0, 0.0]]), frozenset())
    assert "entropy/reflection" not in none and "entropy/answer" not in none


LN = math.log


def test_ratio_and_clip_fractions_over_both_updates() -> None:
    # Ratios 1.5, 1.5, 1 in the first update and 0.5, 0.5 in the second; clipped are 1.5 with A > 0 and 0.5 with A < 0.
    mini_batches = [[sequence(0, 3, [-1.0, -2.0, -3.0], [1.0, -1.0, 1.0])], [sequence(1, 2, [-1.0, -2.0], [-1.0, 1.0])]]
    updates = [
        update(token_scores([[-1.0 + LN(1.5), -2.0 + LN(1.5), -3.0]]), loss=9.5, norm=9.0, lr=3e-6),
        update({1: TokenScores(1, floats([-1.0 - LN(2), -2.0 - LN(2)]), floats([0, 0]))}, loss=-0.5, norm=2.0, lr=1e-6),
    ]
    figures = update_metrics(updates, mini_batches, AlgorithmSettings(clip_low=0.2, clip_high=0.2))
    assert figures == {
        "train/loss": 4.5,
        "train/loss_max": 9.5,
        "train/gradient_norm": 5.5,
        "train/gradient_norm_max": 9.0,
        "train/lr": pytest.approx(2e-6),
        "train/lr_max": 3e-6,
        "train/num_skipped": 0.0,
        "train/num_bounded_ratios": 0.0,
        "train/ratio_mean": pytest.approx(5.0 / 5, abs=1e-6),
        "train/ratio_max": pytest.approx(1.5, abs=1e-6),
        "train/clip_fraction_low": pytest.approx(1 / 5),
        "train/clip_fraction_high": pytest.approx(1 / 5),
        "train/clip_fraction_low_max": pytest.approx(1 / 2),
        "train/clip_fraction_high_max": pytest.approx(1 / 3),
        "train/dual_clip_fraction": 0.0,
        # k3 of the ratio is r - 1 - ln r: 2 (0.5 - ln 1.5) + 0 + 2 (-0.5 + ln 2), over 5 tokens.
        "train/policy_kl": pytest.approx(0.4 * LN(4 / 3), abs=1e-6),
        "train/policy_kl_max": pytest.approx(LN(2) - 0.5, abs=1e-6),
    }


def test_the_two_parts_of_a_loss_with_kl() -> None:
    # Losses 3 and 5, of which the KL term is 1 and 0.5.
    updates = [Update(3.0, 1.0, 1e-6, token_scores([[-1.0]]), 1.0), Update(5.0, 1.0, 1e-6, token_scores([[-1.0]]), 0.5)]
    in_loss = AlgorithmSettings(kl=KLSettings(placement="loss", estimator="k2"))
    figures = update_metrics(updates, [[sequence(0, 1, None, [1.0])]] * 2, in_loss)
    parts = {name: figures[f"train/{name}"] for name in ("policy_loss", "policy_loss_max", "kl_loss", "kl_loss_max")}
    assert parts == {"policy_loss": 3.25, "policy_loss_max": 4.5, "kl_loss": 0.75, "kl_loss_max": 1.0}
    assert figures["train/loss"] == 4.0
    assert not any("kl_loss" in name for name in update_metrics(updates, [[sequence(0, 1, None, [1.0])]] * 2, GRPO))


def test_skipped_steps_are_counted_and_in_no_mean() -> None:
    broken = update({1: TokenScores(1, floats([math.nan]), floats([math.nan]))}, loss=math.nan, norm=math.nan, lr=9.0)
    finite_loss = update({1: TokenScores(1, floats([-1.0]), floats([0.0]))}, loss=1.0, norm=math.nan, lr=9.0)
    mini_batches = [[sequence(1, 1, [-1.0], [1.0])], [sequence(0, 1, [-1.0], [1.0])], [sequence(1, 1, [-1.0], [1.0])]]
    figures = update_metrics([broken, update(token_scores([[-1.0]]), loss=2.0), finite_loss], mini_batches, GRPO)
    assert figures["train/num_skipped"] == 2.0
    assert (figures["train/loss"], figures["train/lr_max"], figures["train/ratio_mean"]) == (2.0, 1e-6, 1.0)
    none = update_metrics([broken], mini_batches[:1], GRPO)
    assert none["train/num_skipped"] == 1.0 and math.isnan(none["train/loss"]) and math.isnan(none["train/ratio_max"])


def test_bounded_ratios_are_counted() -> None:
    figures = update_metrics(
        [update(token_scores([[-1.0, -1.0]]))], [[sequence(0, 2, [-30.0, -2.0], [1.0, 1.0])]], GRPO
    )
    assert figures["train/num_bounded_ratios"] == 1.0
    assert figures["train/ratio_max"] == pytest.approx(math.exp(20), rel=1e-6)


def test_bounds_of_the_clip_are_those_configured() -> None:
    mini_batches = [[sequence(0, 2, [-1.0, -1.0], [1.0, -1.0])]]
    updates = [update(token_scores([[-1.0 + LN(1.5), -1.0 - LN(2)]]))]
    wide = update_metrics(updates, mini_batches, AlgorithmSettings(clip_low=0.6, clip_high=0.6))
    off = update_metrics(updates, mini_batches, AlgorithmSettings(clip_low=None, clip_high=0.2))
    assert wide["train/clip_fraction_low"] == wide["train/clip_fraction_high"] == 0.0
    assert (off["train/clip_fraction_low"], off["train/clip_fraction_high"]) == (0.0, 0.5)


def test_without_old_logprobs_the_ratio_is_one() -> None:
    figures = update_metrics([update(token_scores([[-3.0, -4.0]]))], [[sequence(0, 2, None, [1.0, -1.0])]], GRPO)
    assert figures["train/ratio_mean"] == figures["train/ratio_max"] == 1.0
    assert figures["train/policy_kl"] == figures["train/clip_fraction_high"] == 0.0


GRPO = AlgorithmSettings()


@pytest.mark.parametrize(
    ("correction", "corrected"), [("off", 0.0), ("tis", 1 / 5), ("mask", 2 / 5), ("icepop", 2 / 5)]
)
def test_mismatch(correction: str, corrected: float) -> None:
    # Trainer minus engine: 0.1, -0.2 | 0, ln 3, -ln 4; importance weights above 2 are capped, below 1/2 masked.
    engine = [floats([-1.0, -1.0]), floats([-2.0, -2.0, -2.0])]
    trainer = [floats([-0.9, -1.2]), floats([-2.0, -2.0 + LN(3), -2.0 - LN(4)])]
    figures = mismatch_metrics(trainer, engine, AlgorithmSettings(correction=correction))
    mean_exp = (math.exp(0.1) + math.exp(-0.2) + 1 + 3 + 0.25) / 5
    mean_delta = (0.1 - 0.2 + LN(3) - LN(4)) / 5
    assert figures == {
        "mismatch/mean_abs_logprob": pytest.approx((0.3 + LN(12)) / 5, abs=1e-6),
        "mismatch/q99_abs_logprob": pytest.approx(LN(4), abs=1e-6),
        "mismatch/max_abs_logprob": pytest.approx(LN(4), abs=1e-6),
        "mismatch/mean_abs_probability": pytest.approx(
            (math.exp(-1) * (math.exp(0.1) - math.exp(-0.2)) + math.exp(-2) * (2 + 0.75)) / 5, abs=1e-6
        ),
        "mismatch/mean_exp": pytest.approx(mean_exp, abs=1e-6),
        "mismatch/kl": pytest.approx(mean_exp - 1 - mean_delta, abs=1e-6),
        "mismatch/corrected_fraction": pytest.approx(corrected),
    }


@pytest.mark.parametrize("correction", ["off", "tis", "mask", "icepop"])
def test_corrected_are_the_tokens_whose_weight_in_the_loss_is_not_the_whole_one(correction: str) -> None:
    """Against the weights that the loss itself used; the engine's log-probs as the old ones leave nothing to correct."""
    engine, trainer = floats([-1.0, -1.0, -1.0]), floats([-1.0 + LN(3), -1.0 - LN(3), -0.9])
    for old_logprobs in ("recompute", "rollout"):
        algorithm = AlgorithmSettings(correction=correction, old_logprobs=old_logprobs)
        old = engine if old_logprobs == "rollout" else trainer
        weights = importance_weights(torch.from_numpy(old), torch.from_numpy(engine), CORRECTIONS[correction])
        whole = np.exp(old - engine) if correction in ("tis", "icepop") else np.ones(3)
        applied = float(np.mean(np.abs(weights.numpy() - whole) > 1e-3))
        figures = mismatch_metrics([trainer], [engine], algorithm)
        assert figures["mismatch/corrected_fraction"] == pytest.approx(applied)
        assert figures["mismatch/max_abs_logprob"] == pytest.approx(LN(3), abs=1e-6), "measured all the same"


def test_kl_to_the_reference() -> None:
    old = [[-1.0, -0.5], [-0.3, -0.6, -0.7], [-1.5]]
    of = batch([0.0] * 3, [2, 3, 1], policy=old, reference=[[-1.1, -0.7], [-0.7, -0.4, -0.7], [-2.0]])
    log_ratio = [0.1, 0.2, 0.4, -0.2, 0.0, 0.5]
    figures = kl_metrics(of, of.old_logprobs("recompute"))
    assert figures == {
        "kl/k1": pytest.approx(1.0 / 6, abs=1e-6),
        "kl/k3": pytest.approx(sum(math.exp(-x) - 1 + x for x in log_ratio) / 6, abs=1e-6),
        "kl/per_response": pytest.approx(1.0 / 3, abs=1e-6),
    }
    assert kl_metrics(batch([0.0] * 3, [2, 3, 1], policy=old), of.old_logprobs("recompute")) == {}


def test_shape_of_the_responses() -> None:
    of = batch(
        [1.0, 2.0, 3.0, 4.0],
        [10, 2, 4, 4],
        responses=[
            response(10, trace=7, status="unfinished_answer", finished=False),
            response(2, status="empty_answer", answer=""),
            response(4, trace=1, answer="I cannot help with that."),
            response(4, status="malformed", answer="Sure, take two eggs."),
        ],
    )
    of.scores = scores([1.0, 2.0, 3.0, 4.0], judge__full=[0.0, 1.0, 2.0, 3.0], judge__trace=[-1.0, -1.0, 0.0, 0.0])
    of.scores.num_overlong = 2
    of.scores.num_unread, of.scores.num_respelled, of.scores.num_retries = 1, 3, 5
    assert response_metrics(of) == {
        "response/length_mean": 5.0,
        "response/length_max": 10.0,
        "response/trace_length_mean": 2.0,
        "response/answer_length_mean": 3.0,
        "response/unfinished_fraction": 0.25,
        "response/malformed_fraction": 0.5,
        "response/refusal_rate": 0.25,
        "response/refusal_unread_fraction": 0.0,
        "reward/num_overlong": 2.0,
        "reward/num_unread": 1.0,
        "reward/num_respelled": 3.0,
        "reward/num_retries": 5.0,
        "reward/score/judge/full": 1.5,
        "reward/score/judge/trace": -0.5,
    }


def test_answers_that_the_refusal_rules_cannot_read_are_left_out_of_the_rate_and_counted() -> None:
    answers = [
        "I cannot help with that.",
        "Sure, take two eggs.",
        "Lo siento, no puedo ayudar con eso.",
        "\u5bf9\u4e0d\u8d77\uff0c\u6211\u4e0d\u80fd\u5e2e\u4f60\u3002",
    ]
    of = batch([0.0] * 4, [4] * 4, responses=[response(4, answer=answer) for answer in answers])
    of.scores = scores([0.0] * 4)
    figures = response_metrics(of)
    assert figures["response/refusal_rate"] == 0.5 and figures["response/refusal_unread_fraction"] == 0.5
    of = batch([0.0] * 2, [4] * 2, responses=[response(4, answer=answer) for answer in answers[2:]])
    of.scores = scores([0.0] * 2)
    figures = response_metrics(of)
    assert "response/refusal_rate" not in figures and figures["response/refusal_unread_fraction"] == 1.0


ENGINE = [[-1.0, -1.0], [-2.0, -2.0, -2.0], [-3.0]]
AHEAD = [[-1.5, -1.5], [-1.9, -2.0, -2.0], [-3.7]]


def iterate(recomputed: bool) -> dict[str, float]:
    """Two updates of three responses: the second response first, the others after it."""
    policy = [[-1.1, -1.1], [-2.1, -2.1, -2.1], [-3.1]] if recomputed else None
    of = batch([0.0] * 3, [2, 3, 1], policy=policy, engine=ENGINE)
    of.scores.by_model_and_view["judge/full"] = floats([0.0, 0.0, 0.0])
    own = token_scores(AHEAD, entropy=0.25)
    updates = [update({1: own[1]}), update({0: own[0], 2: own[2]})]
    mini_batches = [
        [sequence(1, 3, ENGINE[1], [1.0, 1.0, 1.0])],
        [sequence(2, 1, ENGINE[2], [1.0]), sequence(0, 2, ENGINE[0], [1.0, 1.0])],
    ]
    settings = AlgorithmSettings(old_logprobs="recompute" if recomputed else "rollout")
    return iteration_metrics(of, mini_batches, updates, settings, frozenset())


def test_without_a_recompute_pass_the_mismatch_is_the_first_updates() -> None:
    figures = iterate(recomputed=False)
    assert figures["mismatch/mean_abs_logprob"] == pytest.approx(0.1 / 3, abs=1e-6), "weights of later updates moved"
    assert figures["mismatch/max_abs_logprob"] == pytest.approx(0.1, abs=1e-6)
    assert figures["entropy/all"] == 0.25, "entropies come from every update"


def test_with_a_recompute_pass_the_mismatch_is_that_of_every_response() -> None:
    figures = iterate(recomputed=True)
    assert figures["mismatch/mean_abs_logprob"] == pytest.approx(0.1, abs=1e-6)
    assert figures["entropy/all"] == 0.0, "entropies come from the recompute pass"
    # ... and the ratio from the updates: AHEAD over the engine's.
    ratios = np.exp(np.concatenate([np.subtract(a, e) for a, e in zip(AHEAD, ENGINE, strict=True)]))
    assert figures["train/ratio_mean"] == pytest.approx(ratios.mean(), abs=1e-6)


def test_every_metric_is_declared() -> None:
    of = batch([0.0], [2], policy=[[-1.0, -1.0]], reference=[[-1.0, -1.0]], responses=[response(2, trace=1)])
    of.scores.by_model_and_view["judge/full"] = floats([0.0])
    own = token_scores([[-1.0, -1.0]])
    figures = iteration_metrics(of, [[sequence(0, 2, None, [1.0, 1.0])]], [update(own)], GRPO, frozenset({0}))
    for name, value in figures.items():
        assert find(name) and isinstance(value, float)
    assert {name.partition("/")[0] for name in figures} == {
        "kl",
        "response",
        "reward",
        "train",
        "entropy",
        "reflection",
        "mismatch",
    }
