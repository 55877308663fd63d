import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.algorithm.ragged import (
    discounted_suffix_sum,
    expand_to_tokens,
    last_token_index,
    segment_ids,
    segment_sum,
)

LENGTHS = torch.tensor([3, 1, 2])
VALUES = torch.tensor([1.0, 2.0, 3.0, 10.0, -4.0, 8.0])

responses = st.lists(
    st.lists(st.floats(-50, 50, width=32), min_size=1, max_size=37),
    min_size=1,
    max_size=6,
)


def flatten(rows: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(row) for row in rows])
    return torch.tensor([value for row in rows for value in row], dtype=torch.float32), lengths


def test_segments_by_hand():
    assert segment_ids(LENGTHS).tolist() == [0, 0, 0, 1, 2, 2]
    assert last_token_index(LENGTHS).tolist() == [2, 3, 5]
    assert expand_to_tokens(torch.tensor([7.0, 8.0, 9.0]), LENGTHS).tolist() == [7, 7, 7, 8, 9, 9]
    assert segment_sum(VALUES, LENGTHS).tolist() == [6.0, 10.0, 4.0]


def test_suffix_sum_by_hand():
    assert discounted_suffix_sum(VALUES, LENGTHS, 1.0).tolist() == [6.0, 5.0, 3.0, 10.0, 4.0, 8.0]
    # 1 + 0.5 * (2 + 0.5 * 3) = 2.75
    assert discounted_suffix_sum(VALUES, LENGTHS, 0.5).tolist() == [2.75, 3.5, 3.0, 10.0, 0.0, 8.0]
    assert discounted_suffix_sum(VALUES, LENGTHS, 0.0).tolist() == VALUES.tolist()


@settings(max_examples=60, deadline=None)
@given(rows=responses, gamma=st.sampled_from([0.0, 0.3, 0.95, 1.0]))
def test_suffix_sum_is_the_recursion(rows, gamma):
    values, lengths = flatten(rows)
    expected = []
    for row in rows:
        running, sums = 0.0, []
        for value in reversed(row):
            running = value + gamma * running
            sums.append(running)
        expected += reversed(sums)
    torch.testing.assert_close(
        discounted_suffix_sum(values, lengths, gamma), torch.tensor(expected, dtype=torch.float32), rtol=1e-5, atol=1e-5
    )


@settings(max_examples=40, deadline=None)
@given(rows=responses, order=st.randoms(use_true_random=False))
def test_neighbours_do_not_change_a_response(rows, order):
    """Exactly: not one bit of a response's sums depends on what is stored beside it."""
    permutation = list(range(len(rows)))
    order.shuffle(permutation)
    values, lengths = flatten(rows)
    shuffled_values, shuffled_lengths = flatten([rows[index] for index in permutation])
    sums = discounted_suffix_sum(values, lengths, 0.9).split(lengths.tolist())
    shuffled = discounted_suffix_sum(shuffled_values, shuffled_lengths, 0.9).split(shuffled_lengths.tolist())
    for position, index in enumerate(permutation):
        assert torch.equal(shuffled[position], sums[index])
    assert torch.equal(segment_sum(shuffled_values, shuffled_lengths), segment_sum(values, lengths)[permutation])


def test_a_huge_neighbour_costs_no_digits():
    values = torch.tensor([0.1, 0.2, 1e12, 1e12])
    sums = discounted_suffix_sum(values, torch.tensor([2, 2]), 1.0)
    torch.testing.assert_close(sums[:2], torch.tensor([0.3, 0.2]))


def test_sums_accumulate_in_float64():
    values = torch.full((100_000,), 0.1)
    assert segment_sum(values, torch.tensor([100_000])).item() == pytest.approx(10_000.0, abs=1e-3)
    # 1 + 1e8 has no float32: the 1 would be gone before -1e8 arrives.
    assert discounted_suffix_sum(torch.tensor([1.0, 1e8, -1e8]), torch.tensor([3]), 1.0)[0].item() == 1.0


def test_empty_batch_and_dtype():
    empty = discounted_suffix_sum(torch.zeros(0), torch.zeros(0, dtype=torch.long), 1.0)
    assert empty.shape == (0,)
    assert segment_sum(VALUES, LENGTHS).dtype == torch.float32


@pytest.mark.parametrize(
    ("values", "lengths", "message"),
    [
        (torch.zeros(3), torch.tensor([2, 2]), "flat with 4 tokens"),
        (torch.zeros(2, 2), torch.tensor([2, 2]), "flat with 4 tokens"),
        (torch.zeros(2), torch.tensor([2, 0]), "at least one token"),
        (torch.zeros(2), torch.tensor([[2]]), "num_responses"),
    ],
)
def test_wrong_shapes_are_refused(values, lengths, message):
    with pytest.raises(ValueError, match=message):
        segment_sum(values, lengths)
