"""Advantages of a small batch against numbers worked out by hand, in every arrangement of the algorithm contract."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import hypothesis
import numpy as np
import pytest
from batches import batch, floats, response
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.algorithm.kl import FixedKL
from lrm_safety.algorithm.shaping import RunningMoments
from lrm_safety.errors import InvariantError
from lrm_safety.experience import (
    AdvantageBatch,
    RolloutBatch,
    advantages,
    generation_requests,
    shuffled_mini_batches,
)
from lrm_safety.monitoring.registry import find
from lrm_safety.rewards.segments import Segments, Step
from lrm_safety.rollouts import TrainingSequence
from lrm_safety.settings import AlgorithmSettings, KLSettings, RewardSettings, RolloutSettings, Settings

# Three responses of 2, 3 and 1 tokens, scored 2, -1 and 0.5. Their k1, log pi_old - log pi_ref, is
#   [0.1, 0.2]   [0.4, -0.2, 0.0]   [-0.5]
LENGTHS, RAW = [2, 3, 1], [2.0, -1.0, 0.5]
OLD = [[-1.0, -0.5], [-0.3, -0.6, -0.7], [-1.5]]
REFERENCE = [[-1.1, -0.7], [-0.7, -0.4, -0.7], [-1.0]]
ENGINE = [[-1.0, -0.4], [-0.3, -0.5, -0.7], [-1.4]]
BETA = 0.1

# G_t = R - 0.1 * sum of k1 from t on: e.g. 2 - 0.1 * (0.1 + 0.2) = 1.97 for the first token.
RETURNS = [1.97, 1.98, -1.02, -0.98, -1.0, 0.55]
# Their mean is 1.5 / 6 = 0.25; the squared distances 2.9584, 2.9929, 1.6129, 1.5129, 1.5625, 0.09 add up to 10.7296.
NORMALISED = [(value - 0.25) / math.sqrt(10.7296 / 6) for value in RETURNS]


def configured(reward: dict[str, Any] | None = None, kl: str = "reward", **algorithm: Any) -> Settings:
    estimator = "k1" if kl == "reward" else "k3"
    values: dict[str, Any] = {"normalisation": "none", "kl": KLSettings(placement=kl, estimator=estimator)} | algorithm
    return Settings(
        reward=RewardSettings(**(reward or {})),
        algorithm=AlgorithmSettings(**values),
        rollout=RolloutSettings(max_response_tokens=4),
    )


def three(reference: bool = True) -> RolloutBatch:
    return batch(RAW, LENGTHS, policy=OLD, reference=REFERENCE if reference else None, engine=ENGINE)


def learn(
    settings: Settings, of: RolloutBatch | None = None, moments: RunningMoments | None = None, beta: float = BETA
) -> AdvantageBatch:
    return advantages(of or three(), settings, FixedKL(beta), moments or RunningMoments())


def flat(learned: AdvantageBatch) -> list[float]:
    parts = [sequence.advantages for sequence in learned.sequences]
    return np.concatenate([part for part in parts if part is not None]).tolist()


def test_kl_in_the_reward() -> None:
    learned = learn(configured())
    assert flat(learned) == pytest.approx(RETURNS, abs=1e-6)
    assert learned.metrics["return/mean"] == pytest.approx(0.25, abs=1e-6)
    assert learned.metrics["kl/coef"] == BETA


def test_discount() -> None:
    # Backwards: 2 - 0.02 = 1.98; -0.01 + 0.5 * 1.98 = 0.98. And -1; 0.02 - 0.5 = -0.48; -0.04 - 0.24 = -0.28.
    expected = [0.98, 1.98, -0.28, -0.48, -1.0, 0.55]
    assert flat(learn(configured(gamma=0.5))) == pytest.approx(expected, abs=1e-6)


def test_normalised_over_all_tokens_of_the_batch() -> None:
    learned = learn(configured(normalisation="batch"))
    assert flat(learned) == pytest.approx(NORMALISED, abs=1e-5)
    assert learned.metrics["advantage/mean"] == pytest.approx(0.0, abs=1e-6)
    assert learned.metrics["advantage/std"] == pytest.approx(1.0, abs=1e-5)
    assert learned.metrics["advantage/max_abs"] == pytest.approx(1.73 / math.sqrt(10.7296 / 6), abs=1e-5)
    assert learned.metrics["return/mean"] == pytest.approx(0.25, abs=1e-6), "returns are those before normalisation"


def test_the_coefficient_is_the_controllers() -> None:
    doubled = [2 - 0.2 * 0.3, 2 - 0.2 * 0.2, -1 - 0.2 * 0.2, -1 + 0.2 * 0.2, -1.0, 0.5 + 0.2 * 0.5]
    assert flat(learn(configured(), beta=0.2)) == pytest.approx(doubled, abs=1e-6)


@pytest.mark.parametrize("placement", ["loss", "none"])
def test_kl_outside_the_reward_leaves_the_return_alone(placement: str) -> None:
    learned = learn(configured(kl=placement), three(reference=placement == "loss"))
    assert flat(learned) == [2.0, 2.0, -1.0, -1.0, -1.0, 0.5]


def test_engine_logprobs_as_the_old_ones() -> None:
    # k1 against the engine's: [0.1, 0.3], [0.4, -0.1, 0], [-0.4].
    learned = learn(configured(old_logprobs="rollout"))
    assert flat(learned) == pytest.approx([1.96, 1.97, -1.03, -0.99, -1.0, 0.54], abs=1e-6)
    assert [sequence.old_logprobs.tolist() for sequence in learned.sequences] == [  # type: ignore[union-attr]
        floats(values).tolist() for values in ENGINE
    ]


def test_kl_in_the_reward_needs_a_reference() -> None:
    with pytest.raises(AssertionError, match="KL in the reward"):
        learn(configured(), three(reference=False))


PENALISED = [
    response(2),
    response(3, status="unfinished_answer", finished=False),
    response(1, status="malformed"),
]
PENALTIES = {
    "unfinished_penalty": 0.5,
    "malformed_penalty": 0.25,
    "overlong_penalty": 1.0,
    "overlong_buffer_tokens": 2,  # of 4 tokens: 2 tokens cost nothing, 3 cost half
}


def test_penalties_then_clip() -> None:
    of = replace(three(), responses=PENALISED)
    learned = learn(configured(PENALTIES, kl="none"), of)
    assert learned.shaped.tolist() == [2.0, -2.0, 0.25]  # -1 - 0.5 - 0.5, 0.5 - 0.25
    assert learned.metrics["reward/raw_mean"] == pytest.approx(0.5)
    assert learned.metrics["reward/raw_std"] == pytest.approx(math.sqrt(1.5))
    assert learned.metrics["reward/penalty_mean"] == pytest.approx(-1.25 / 3)
    parts = [learned.metrics[f"reward/penalty/{name}"] for name in ("unfinished", "malformed", "overlong")]
    assert all(part <= 0 for part in parts) and sum(parts) == pytest.approx(-1.25 / 3)
    assert learned.metrics["reward/clipped_fraction"] == 0.0

    clipped = learn(configured(PENALTIES | {"clip_low": -1.5, "clip_high": 1.0}, kl="none"), of)
    assert clipped.shaped.tolist() == [1.0, -1.5, 0.25]
    assert clipped.metrics["reward/clipped_fraction"] == pytest.approx(2 / 3)
    assert clipped.metrics["reward/shaped_mean"] == pytest.approx(-0.25 / 3)


@pytest.mark.parametrize(
    ("bounds", "expected"), [({"clip_low": 0.0}, [2.0, 0.0, 0.5]), ({"clip_high": 1.0}, [1.0, -1.0, 0.5])]
)
def test_one_sided_clip(bounds: dict[str, float], expected: list[float]) -> None:
    assert learn(configured(bounds, kl="none")).shaped.tolist() == expected


@pytest.mark.parametrize("status", ["malformed", "empty_answer"])
def test_what_counts_as_malformed(status: str) -> None:
    of = replace(three(), responses=[response(2, status=status), response(3, status="no_trace"), response(1)])
    assert learn(configured({"malformed_penalty": 1.0}, kl="none"), of).shaped.tolist() == [1.0, -1.0, 0.5]


def test_scores_standardised_in_the_batch_then_clipped() -> None:
    unit = 1.5 / math.sqrt(1.5)  # mean 0.5, variance (2.25 + 2.25 + 0) / 3
    learned = learn(configured({"normalise": "batch"}, kl="none"))
    assert learned.shaped.tolist() == pytest.approx([unit, -unit, 0.0], abs=1e-6)
    clipped = learn(configured({"normalise": "batch", "clip_high": 1.0}, kl="none"))
    assert clipped.shaped.tolist() == pytest.approx([1.0, -unit, 0.0], abs=1e-6)


def test_running_moments_go_on_from_batch_to_batch() -> None:
    settings, moments = configured({"normalise": "running"}, kl="none"), RunningMoments()
    learn(settings, moments=moments)
    # All six scores 2, -1, 0.5, 5, 2, 3.5: mean 2, variance 22.5 / 6 = 3.75.
    second = learn(settings, batch([5.0, 2.0, 3.5], LENGTHS, policy=OLD), moments)
    assert second.shaped.tolist() == pytest.approx([3 / math.sqrt(3.75), 0.0, 1.5 / math.sqrt(3.75)], abs=1e-6)
    assert (moments.count, moments.mean) == (6, pytest.approx(2.0))


# Two prompts with two samples each, of 2, 3, 1 and 2 tokens.
GROUPS, GROUP_LENGTHS = [3.0, 1.0, 0.5, -0.5], [2, 3, 1, 2]


@pytest.mark.parametrize(
    ("baseline", "first", "second"),
    [
        ("group_mean", 1.0, 0.5),  # 3 - 2, 0.5 - 0
        ("leave_one_out", 2.0, 1.0),  # 3 - 1, 0.5 - -0.5
        ("group_zscore", 1 / (math.sqrt(2) + 1e-6), 0.5 / (math.sqrt(0.5) + 1e-6)),  # sample std
    ],
)
def test_baselines_of_two_samples_a_prompt(baseline: str, first: float, second: float) -> None:
    settings = configured(kl="none", samples_per_prompt=2, baseline=baseline)
    learned = learn(settings, batch(GROUPS, GROUP_LENGTHS))
    expected = [first] * 2 + [-first] * 3 + [second] + [-second] * 2
    assert flat(learned) == pytest.approx(expected, abs=1e-6)
    assert learned.metrics["reward/shaped_mean"] == pytest.approx(1.0), "the baseline is no part of the shaping"


def test_group_mean_then_normalised_over_the_batch() -> None:
    # Tokens 1, 1, -1, -1, -1, 0.5, -0.5, -0.5: sum -1.5, squares 5.75.
    mean, std = -1.5 / 8, math.sqrt(5.75 / 8 - (1.5 / 8) ** 2)
    settings = configured(kl="loss", samples_per_prompt=2, baseline="group_mean", normalisation="batch")
    values = [1.0, 1.0, -1.0, -1.0, -1.0, 0.5, -0.5, -0.5]
    assert flat(learn(settings, batch(GROUPS, GROUP_LENGTHS, reference=[[-1.0] * n for n in GROUP_LENGTHS]))) == (
        pytest.approx([(value - mean) / std for value in values], abs=1e-5)
    )


def test_normalised_per_group() -> None:
    # Tokens 3, 3, 1, 1, 1: mean 1.8, variance (2 * 1.44 + 3 * 0.64) / 5 = 0.96; 0.5, -0.5, -0.5: mean -1/6, variance 2/9.
    settings = configured(kl="none", samples_per_prompt=2, normalisation="group")
    first = [1.2 / math.sqrt(0.96)] * 2 + [-0.8 / math.sqrt(0.96)] * 3
    second = [2 / 3 / math.sqrt(2 / 9)] + [-1 / 3 / math.sqrt(2 / 9)] * 2
    assert flat(learn(settings, batch(GROUPS, GROUP_LENGTHS))) == pytest.approx(first + second, abs=1e-5)


def test_sequences_hold_their_own_tokens() -> None:
    learned = learn(configured())
    for index, (sequence, length) in enumerate(zip(learned.sequences, LENGTHS, strict=True)):
        assert sequence.index == index and sequence.prompt_ids.tolist() == [7, index]
        assert sequence.response_ids.tolist() == [100 * index + step for step in range(length)]
        assert sequence.advantages is not None and sequence.advantages.dtype == np.float32
        assert len(sequence.advantages) == length


@pytest.mark.parametrize(
    ("algorithm", "kl", "recomputed", "columns"),
    [
        ({"correction": "tis"}, "reward", True, {"old_logprobs", "rollout_logprobs"}),
        ({"correction": "mask"}, "loss", True, {"old_logprobs", "rollout_logprobs", "reference_logprobs"}),
        ({"correction": "off"}, "reward", True, {"old_logprobs"}),
        ({"correction": "off"}, "loss", True, {"old_logprobs", "reference_logprobs"}),
        ({"correction": "off"}, "none", True, {"old_logprobs"}),
        ({"correction": "off"}, "loss", False, {"reference_logprobs"}),
        ({"correction": "tis"}, "none", False, {"rollout_logprobs"}),
        ({"correction": "off", "old_logprobs": "rollout"}, "reward", False, {"old_logprobs"}),
    ],
)
def test_a_sequence_carries_only_what_is_read(
    algorithm: dict[str, Any], kl: str, recomputed: bool, columns: set[str]
) -> None:
    of = batch(RAW, LENGTHS, policy=OLD if recomputed else None, reference=REFERENCE, engine=ENGINE)
    learned = learn(configured(kl=kl, **algorithm), of)
    sources = {
        "old_logprobs": ENGINE if algorithm.get("old_logprobs") == "rollout" else OLD,
        "rollout_logprobs": ENGINE,
        "reference_logprobs": REFERENCE,
    }
    for index, sequence in enumerate(learned.sequences):
        for name, values in sources.items():
            column = getattr(sequence, name)
            if name in columns:
                np.testing.assert_array_equal(column, floats(values[index]))
            else:
                assert column is None, name


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number(bad: float) -> None:
    with pytest.raises(InvariantError, match="1 of 3 reward values"):
        learn(configured(), batch([2.0, bad, 0.5], LENGTHS, policy=OLD, reference=REFERENCE))


@pytest.mark.parametrize("side", ["policy", "reference"])
def test_a_logprob_that_is_no_number(side: str) -> None:
    broken = [[-1.0, math.nan], [-0.3, -math.inf, -0.7], [-1.5]]
    sides: dict[str, Any] = {"policy": OLD, "reference": REFERENCE} | {side: broken}
    with pytest.raises(InvariantError, match="2 of 6 log-prob values"):
        learn(configured(), batch(RAW, LENGTHS, **sides))


def test_an_advantage_that_is_no_number() -> None:
    with pytest.raises(InvariantError, match="of 6 advantage values"):
        learn(configured(kl="reward"), beta=1e38 * 10)


# Response 0 has steps of 2, 1 and 1 tokens, response 1 of 1 and 2, response 2 fell back. The mean of the prefixes'
# scores, 2, -4 and -1, is -1, so the potentials are 3, -3 and 0.
STEPPED_LENGTHS = [4, 3, 1]
SEGMENTS = Segments(
    steps=[[Step(0, 2, 9), Step(2, 3, 12), Step(3, 4, None)], [Step(0, 1, 5), Step(1, 3, None)], []],
    prefix_scores=[floats([2.0, -4.0]), floats([-1.0]), floats([])],
    seconds=3.0,
    response_seconds=1.5,
)


def stepped(**values: Any) -> RolloutBatch:
    return replace(batch(RAW, STEPPED_LENGTHS, **values), segments=SEGMENTS)


def test_segment_rewards_by_hand() -> None:
    # Rewards of response 0: 3 at the second token, -6 at the third, 2 + 3 at the last: 2 in all. From the second step on
    # 2 - 3 is to be had, at the last 2 + 3.
    learned = learn(configured({"granularity": "segment"}, kl="none"), stepped())
    assert flat(learned) == pytest.approx([2.0, 2.0, -1.0, 5.0, -1.0, -1.0, -1.0, 0.5], abs=1e-6)
    assert learned.metrics["reward/raw_mean"] == pytest.approx(0.5), "what is shared is the responses' own score"
    assert learned.metrics["reward/segment_fallback_rate"] == pytest.approx(1 / 3)
    assert learned.metrics["reward/prefixes_per_response"] == 1.0
    assert learned.metrics["reward/segment_cost"] == 2.0
    assert all(find(name).name == name for name in learned.metrics)


def test_the_share_of_a_step_is_what_its_prefix_adds_beside_kl_and_penalties() -> None:
    # k1 of 0.1 at every token costs 0.01 of all that come after; the answer that was cut off costs the last step 0.5.
    answers = [response(4), response(3, status="unfinished_answer", finished=False), response(1)]
    of = stepped(
        responses=answers,
        policy=[[-1.0] * n for n in STEPPED_LENGTHS],
        reference=[[-1.1] * n for n in STEPPED_LENGTHS],
    )
    learned = learn(configured({"granularity": "segment", "unfinished_penalty": 0.5}), of)
    expected = [2 - 0.04, 2 - 0.03, -1 - 0.02, 5 - 0.01, -1.5 - 0.03, -1.5 - 0.02, -1.5 - 0.01, 0.5 - 0.01]
    assert flat(learned) == pytest.approx(expected, abs=1e-6)


def test_prefixes_are_standardised_and_clipped_as_the_scores_are() -> None:
    # The scores 2, -1, 0.5 have mean 0.5 and deviation sqrt(1.5); the prefixes' become 1.5, -4.5 and -1.5 times 1 over
    # it, of which the clip at -2 bounds the second: 1.225, -2 and -1.225, less their mean.
    unit = 1 / math.sqrt(1.5)
    mean = -2 / 3
    settings = configured({"granularity": "segment", "normalise": "batch", "clip_low": -2.0}, kl="none")
    values = flat(learn(settings, stepped()))
    score, first, second, third = 1.5 * unit, 1.5 * unit - mean, -2 - mean, -1.5 * unit - mean
    expected = [score, score, score - first, score - second, -score, -score - third, -score - third, 0.0]
    assert values == pytest.approx(expected, abs=1e-6)


# Two prompts with two samples each, of two steps of one token: scores 6, 4 and 0, -4, prefixes 5, 3 and -1, -3.
PAIRED = Segments(
    steps=[[Step(0, 1, 3), Step(1, 2, None)]] * 4,
    prefix_scores=[floats([5.0]), floats([3.0]), floats([-1.0]), floats([-3.0])],
    seconds=1.0,
    response_seconds=1.0,
)


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        # Less their groups' means, 5 and -2 for scores and 4 and -2 for prefixes: R - b, then R - b - phi.
        ({"baseline": "group_mean"}, [1, 0, -1, 0, 2, 1, -2, -1]),
        ({"baseline": "leave_one_out"}, [2, 1, -2, -1, 4, 3, -4, -3]),
        # Returns 6, 5, 4, 5 (mean 5, variance 1/2) and 0, -1, -4, -3 (mean -2, variance 5/2).
        (
            {"normalisation": "group"},
            [2**0.5, 0, -(2**0.5), 0, *(value / 2.5**0.5 for value in (2, 1, -2, -1))],
        ),
        # Without a comparison within the prompt: less the mean of all prefixes, 1.
        ({}, [6, 2, 4, 2, 0, 2, -4, 0]),
    ],
)
def test_potentials_are_centred_as_far_as_scores_are_compared(algorithm: dict[str, Any], expected: list[float]) -> None:
    of = replace(batch([6.0, 4.0, 0.0, -4.0], [2] * 4), segments=PAIRED)
    settings = configured({"granularity": "segment"}, kl="none", samples_per_prompt=2, **algorithm)
    assert flat(learn(settings, of)) == pytest.approx(expected, abs=1e-6)


def step_correlations(granularity: str, baseline: str) -> list[float]:
    """By step: correlation of the advantage with the true return to go, over 20 batches of 16 prompts of different
    difficulty x 4 samples x 5 steps of one token; the reward model sees quality and difficulty without an error."""
    random = np.random.default_rng(0)
    settings = configured(
        {"granularity": granularity}, kl="none", samples_per_prompt=4, baseline=baseline, normalisation="batch"
    )
    found, true = [], []
    for _ in range(20):
        difficulty = np.repeat(random.normal(0, 8, 16), 4)
        quality = random.normal(0, 0.5, (64, 5))
        scores = difficulty[:, None] + quality.cumsum(1)
        steps = [[Step(k, k + 1, None if k == 4 else k + 1) for k in range(5)]] * 64
        segments = Segments(steps, [floats(row[:4].tolist()) for row in scores], 1.0, 1.0)
        of = batch(scores[:, 4].tolist(), [5] * 64)
        of.segments = segments if granularity == "segment" else None
        found.append(np.reshape(flat(learn(settings, of)), (64, 5)))
        true.append(quality[:, ::-1].cumsum(1)[:, ::-1])
    return [
        float(np.mean([np.corrcoef(a[:, k], b[:, k])[0, 1] for a, b in zip(found, true, strict=True)]))
        for k in range(5)
    ]


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
def test_with_a_group_baseline_segments_tell_more_about_every_later_step(baseline: str) -> None:
    segment, whole = step_correlations("segment", baseline), step_correlations("response", baseline)
    assert segment[0] == pytest.approx(whole[0], abs=0.03) and segment[0] > 0.8
    assert all(fine > coarse + 0.1 for fine, coarse in zip(segment[1:], whole[1:], strict=True))
    assert min(segment[1:]) > 0.7


def test_prefixes_that_all_score_the_same_change_nothing() -> None:
    same = replace(SEGMENTS, prefix_scores=[floats([-4.0, -4.0]), floats([-4.0]), floats([])])
    of = replace(stepped(), segments=same)
    whole = learn(configured(kl="none", normalisation="batch"), replace(of, segments=None))
    assert flat(learn(configured({"granularity": "segment"}, kl="none", normalisation="batch"), of)) == flat(whole)


@hypothesis.settings(deadline=None)
@given(st.data())
def test_every_responses_rewards_sum_to_its_score(data: st.DataObject) -> None:
    score = st.floats(-100, 100, width=32)
    lengths = data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    steps, prefixes = [], []
    for length in lengths:
        inner = sorted(data.draw(st.sets(st.integers(1, max(1, length - 1)), max_size=length - 1)))
        ends = [*inner, length] if inner else []
        steps.append([Step(a, b, None) for a, b in itertools.pairwise([0, *ends])])
        prefixes.append(floats(data.draw(st.lists(score, min_size=len(inner), max_size=len(inner)))))
    raw = data.draw(st.lists(score, min_size=len(lengths), max_size=len(lengths)))
    of = replace(batch(raw, lengths), segments=Segments(steps, prefixes, 0.0, 1.0))
    learned = learn(configured({"granularity": "segment"}, kl="none"), of)
    for sequence, whole in zip(learned.sequences, raw, strict=True):
        assert sequence.advantages is not None
        assert sequence.advantages[0] == pytest.approx(whole, abs=1e-3), "the first token's return is all there is"


def test_segment_rewards_need_an_undiscounted_return() -> None:
    with pytest.raises(ValueError, match="gamma"):
        learn(configured({"granularity": "segment"}, kl="none", gamma=0.9), stepped())


def test_every_metric_is_declared() -> None:
    for name in learn(configured()).metrics:
        assert find(name).name == name


def test_requests_are_numbered_in_order_and_every_seed_is_its_own() -> None:
    settings = configured(samples_per_prompt=2)
    rendered = [np.array([i, i + 1], dtype=np.int32) for i in range(6)]
    requests = generation_requests(rendered, [4, 1, 4], settings, iteration=3)
    assert [request.request_id for request in requests] == [0, 1, 2, 3, 4, 5]
    assert [request.prompt_index for request in requests] == [4, 4, 1, 1, 4, 4]
    assert all(np.array_equal(request.prompt_ids, rendered[request.prompt_index]) for request in requests)
    # The seed depends on run, iteration, prompt and sample, not on the position in the batch.
    assert [r.seed for r in requests[:2]] == [r.seed for r in requests[4:]]
    assert len({request.seed for request in requests}) == 4
    other = generation_requests(rendered, [4, 1, 4], settings, iteration=4)
    assert not {r.seed for r in requests} & {r.seed for r in other}


def test_mini_batches_use_every_response_once_in_an_order_of_the_iteration() -> None:
    settings = configured(mini_batch_size=4)
    ids = np.zeros(1, dtype=np.int32)
    sequences = [TrainingSequence(index, ids, ids) for index in range(12)]
    cut = shuffled_mini_batches(sequences, settings, iteration=5)
    assert [len(mini_batch) for mini_batch in cut] == [4, 4, 4]
    order = [sequence.index for mini_batch in cut for sequence in mini_batch]
    assert sorted(order) == list(range(12)) and order != list(range(12))
    again = shuffled_mini_batches(sequences, settings, iteration=5)
    assert order == [sequence.index for mini_batch in again for sequence in mini_batch]
    later = shuffled_mini_batches(sequences, settings, iteration=6)
    assert order != [sequence.index for mini_batch in later for sequence in mini_batch]
