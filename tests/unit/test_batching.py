import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.batching import plan_counted, plan_micro_batches

LENGTHS = st.lists(st.integers(1, 300), max_size=60)


def cost(micro_batch, lengths, packing):
    sizes = [lengths[position] for position in micro_batch]
    return sum(sizes) if packing else max(sizes) * len(sizes)


@given(LENGTHS, st.integers(1, 5), st.integers(1, 400), st.booleans())
def test_plan_is_a_partition_within_the_budget_with_equal_counts(lengths, num_ranks, budget, packing):
    plan = plan_micro_batches(lengths, num_ranks, budget, packing=packing)

    assert len(plan) == num_ranks
    assert len({len(rank) for rank in plan}) == 1
    flat = [position for rank in plan for micro_batch in rank for position in micro_batch]
    assert sorted(flat) == list(range(len(lengths)))
    for rank in plan:
        for micro_batch in rank:
            if micro_batch:
                within = cost(micro_batch, lengths, packing) <= budget
                alone_and_longer = len(micro_batch) == 1 and lengths[micro_batch[0]] > budget
                assert within or alone_and_longer
    assert plan == plan_micro_batches(lengths, num_ranks, budget, packing=packing)


@given(LENGTHS.filter(bool), st.integers(1, 5), st.booleans())
def test_ranks_differ_by_at_most_the_longest_sequence(lengths, num_ranks, packing):
    plan = plan_micro_batches(lengths, num_ranks, 256, packing=packing)
    tokens = [sum(lengths[p] for micro_batch in rank for p in micro_batch) for rank in plan]
    assert max(tokens) - min(tokens) <= max(lengths)


@given(LENGTHS.filter(bool), st.integers(1, 5), st.booleans())
def test_no_step_is_empty_on_every_rank(lengths, num_ranks, packing):
    plan = plan_micro_batches(lengths, num_ranks, 256, packing=packing)
    assert all(any(rank[step] for rank in plan) for step in range(len(plan[0])))


def test_hand_worked_packed_plan():
    # Longest first onto the emptier rank: 90 -> 0, 60 -> 1, 50 -> 1, 40 -> 0, 10 -> 1, 10 -> 1 (110 < 130).
    lengths = [60, 10, 90, 50, 10, 40]
    plan = plan_micro_batches(lengths, 2, 100, packing=True)
    assert plan == [[[2], [5]], [[0, 1, 4], [3]]]


def test_hand_worked_padded_plan():
    # Sorted 50, 40, 30, 30, 5: 50 x 2 = 100 fits, 50 x 3 does not; 30 x 3 = 90 fits.
    plan = plan_micro_batches([30, 50, 5, 40, 30], 1, 100, packing=False)
    assert plan == [[[1, 3], [0, 4, 2]]]


def test_fewer_sequences_than_ranks_gives_dummies():
    assert plan_micro_batches([7], 3, 100, packing=True) == [[[0]], [[]], [[]]]
    assert plan_micro_batches([], 2, 100, packing=True) == [[], []]


@pytest.mark.parametrize(("packing", "least"), [(True, 0.93), (False, 0.80)])
def test_efficiency_on_reasoning_traces(packing, least):
    """Prompts of about 60 tokens and traces with a median of 700, a long tail, cut at 4096: two updates' worth."""
    random = np.random.default_rng(0)
    lengths = [
        int(n) for n in np.minimum(random.lognormal(np.log(700), 0.7, 256), 4096) + random.integers(20, 120, 256)
    ]
    plan = plan_micro_batches(lengths, 4, 8192, packing=packing)
    slots = sum(cost(m, lengths, packing) if not packing else 8192 for rank in plan for m in rank if m)
    assert sum(lengths) / slots >= least
    assert len([m for rank in plan for m in rank if not m]) <= 4


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="positive"):
        plan_micro_batches([3, 0], 1, 10, packing=True)
    with pytest.raises(ValueError, match="num_ranks"):
        plan_micro_batches([3], 0, 10, packing=True)


def test_counted_by_hand():
    assert plan_counted(10, 2, 2) == [[[0, 2], [4, 6], [8]], [[1, 3], [5, 7], [9]]]
    assert plan_counted(5, 2, 2) == [[[0, 2], [4]], [[1, 3], []]]
    assert plan_counted(1, 3, 4) == [[[0]], [[]], [[]]]
    with pytest.raises(ValueError, match="positive"):
        plan_counted(4, 2, 0)


@given(st.integers(0, 70), st.integers(1, 5), st.integers(1, 9))
def test_counted_is_a_partition_with_equal_counts(count, num_ranks, size):
    plan = plan_counted(count, num_ranks, size)
    assert len(plan) == num_ranks and len({len(rank) for rank in plan}) == 1
    assert sorted(place for rank in plan for micro in rank for place in micro) == list(range(count))
    assert all(len(micro) <= size for rank in plan for micro in rank)
    if count % (num_ranks * size) == 0:
        assert all(len(micro) == size for rank in plan for micro in rank)


def test_counted_micro_batches_weigh_short_and_long_tokens_nearly_alike():
    """Micro-batches of few sorted responses would weigh a token of a short response several times that of a long one."""
    random = np.random.default_rng(0)
    lengths = random.lognormal(6, 0.8, 128).astype(int) + 1
    order = random.permutation(128)

    def weight_by_quarter(plan, positions):
        weights = np.zeros(128)
        for rank in plan:
            real = [micro for micro in rank if micro]
            for micro in real:
                members = [positions[place] for place in micro]
                weights[members] = 1 / sum(lengths[members]) / len(real) / len(plan) * sum(lengths)
        ranked = weights[np.argsort(lengths)]
        return ranked[:32].mean(), ranked[-32:].mean()

    counted = weight_by_quarter(plan_counted(128, 4, 4), order)
    packed = weight_by_quarter(plan_micro_batches(lengths.tolist(), 4, 8192, packing=True), np.arange(128))
    assert counted[0] / counted[1] < 2.5 < packed[0] / packed[1]


@given(LENGTHS.filter(bool), st.integers(1, 9))
def test_each_sequence_goes_to_the_rank_with_the_fewest_tokens(lengths, num_ranks):
    """Longest first, of ranks with as many tokens to the one with fewer sequences, then to the first."""
    ranks = [[] for _ in range(num_ranks)]
    for position in sorted(range(len(lengths)), key=lambda p: (-lengths[p], p)):
        min(ranks, key=lambda rank: (sum(lengths[p] for p in rank), len(rank))).append(position)
    plan = plan_micro_batches(lengths, num_ranks, 10**6, packing=True)
    assert plan == [[rank] for rank in ranks]
