import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.modeling.packing import pack, part_of_row


def ids(*tokens):
    return np.array(tokens, dtype=np.int32)


PAIRS = [(ids(5, 6), ids(7, 1)), (ids(8), ids(1, 1, 9))]


def test_packed_row():
    batch = pack(PAIRS, packing=True)
    assert batch.input_ids.tolist() == [[5, 6, 7, 1, 8, 1, 1, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3]]
    assert batch.attention_mask is None
    assert batch.predict.tolist() == [1, 2, 4, 5, 6]
    assert batch.targets.tolist() == [7, 1, 1, 1, 9]
    assert batch.lengths.tolist() == [2, 3]
    assert batch.num_response_tokens == 5


def test_padded_rows_take_the_mask_from_lengths():
    batch = pack([(ids(5, 6), ids(7, 0)), (ids(8), ids(0))], packing=False)
    assert batch.input_ids.tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    # Token 0 in a response is real; filling with the same id is not.
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch.predict.tolist() == [1, 2, 4]
    assert batch.targets.tolist() == [7, 0, 0]


@pytest.mark.parametrize("packing", [True, False])
def test_every_target_is_the_token_after_its_predicting_position(packing):
    random = np.random.default_rng(1)
    pairs = [
        (random.integers(1, 90, n).astype(np.int32), random.integers(1, 90, m).astype(np.int32))
        for n, m in [(3, 4), (1, 1), (6, 2)]
    ]
    batch = pack(pairs, packing=packing)
    assert torch.equal(batch.input_ids.flatten()[batch.predict + 1], batch.targets)
    assert batch.targets.tolist() == np.concatenate([response for _, response in pairs]).tolist()


@pytest.mark.parametrize("packing", [True, False])
def test_dummy_has_no_responses_but_something_to_run(packing):
    batch = pack([], packing=packing)
    assert batch.num_response_tokens == 0
    assert batch.lengths.shape == (0,)
    assert batch.input_ids.numel() == 2 and batch.predict.tolist() == [0]


def test_empty_prompt_or_response_is_refused():
    with pytest.raises(ValueError, match="at least one token"):
        pack([(ids(), ids(1))], packing=True)
    with pytest.raises(ValueError, match="at least one token"):
        pack([(ids(1), ids())], packing=True)


def test_a_row_in_two_parts():
    """Nine tokens and one that fills up; the last target of the first part lies in the second."""
    whole = pack([(ids(5, 6), ids(7, 1)), (ids(8), ids(1, 1, 9, 2))], packing=True)
    (first, counts), (second, again) = (part_of_row(whole, rank, 2) for rank in range(2))
    assert counts == again == [3, 3]
    assert first.input_ids.tolist() == [[5, 6, 7, 1, 8]] and second.input_ids.tolist() == [[1, 1, 9, 2, 0]]
    assert first.position_ids.tolist() == [[0, 1, 2, 3, 0]] and second.position_ids.tolist() == [[1, 2, 3, 4, 0]]
    assert first.predict.tolist() == [1, 2, 4] and first.targets.tolist() == [7, 1, 1]
    assert second.predict.tolist() == [0, 1, 2] and second.targets.tolist() == [1, 9, 2]
    assert first.borders.lengths == second.borders.lengths == (4, 5, 1)
    assert second.borders.starts.tolist() == [0, 4, 9, 10]


@given(sizes=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=6), size=st.integers(1, 8))
def test_parts_of_a_row_make_the_row(sizes, size):
    """Whatever the lengths and the number of ranks, a dummy included: joined, the parts are the row, each token is predicted
    once, and the borders are still those of the sequences."""
    random = np.random.default_rng(0)
    pairs = [tuple(random.integers(1, 90, n).astype(np.int32) for n in both) for both in sizes]
    whole = pack(pairs, packing=True)
    columns = whole.input_ids.shape[1]
    parts = [part_of_row(whole, rank, size) for rank in range(size)]
    each = parts[0][0].input_ids.shape[1]
    assert 0 <= size * each - columns < size
    for name in ("input_ids", "position_ids"):
        joined = torch.cat([getattr(part, name) for part, _ in parts], dim=1)
        assert torch.equal(joined[:, :columns], getattr(whole, name)) and not joined[:, columns:].any()
    counts = parts[0][1]
    assert all(part[1] == counts for part in parts) and sum(counts) == len(whole.predict)
    predicted, targets = [], []
    for rank, (part, _) in enumerate(parts):
        assert part.input_ids.shape == part.position_ids.shape == (1, each)
        assert len(part.predict) == len(part.targets) == max(1, counts[rank])
        assert part.num_response_tokens == counts[rank] and part.predict.min() >= 0 and part.predict.max() < each
        predicted += (part.predict[: counts[rank]] + rank * each).tolist()
        targets += part.targets[: counts[rank]].tolist()
        lengths = part.borders.lengths
        assert lengths[: len(whole.borders.lengths)] == whole.borders.lengths and sum(lengths) == size * each
    assert predicted == whole.predict.tolist() and targets == whole.targets.tolist()
