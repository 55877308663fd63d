import numpy as np
import pytest
import torch

from lrm_safety.modeling.packing import pack


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
