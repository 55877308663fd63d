"""Which rank of the policy group is given which micro-batches."""

from __future__ import annotations

import numpy as np
import pytest

from lrm_safety.rollouts import TrainingSequence
from lrm_safety.settings import AlgorithmSettings, ClusterSettings, ModelSettings, TrainerSettings
from lrm_safety.workers.policy_group import share_out
from lrm_safety.workers.specs import PolicySpec


def indices(
    lengths: list[int], num_ranks: int, budget: int, together: int, count: int | None = None
) -> list[list[list[int]]]:
    """[rank][micro-batch]: positions of the sequences, each of which is a prompt token and its response."""
    spec = PolicySpec(
        model=ModelSettings(name="m", path="m", family="plain"),
        trainer=TrainerSettings(micro_batch_tokens=budget, sequence_parallel_size=together),
        cluster=ClusterSettings(),
        seed=0,
        algorithm=AlgorithmSettings(),
        engines=None,
    )
    ids = [np.zeros(length, dtype=np.int32) for length in lengths]
    sequences = [TrainingSequence(index, one[:1], one[1:]) for index, one in enumerate(ids)]
    shares = share_out(spec, num_ranks, sequences, count)
    return [[[sequence.index for sequence in batch] for batch in share] for share in shares]


def test_each_rank_alone() -> None:
    assert indices([6, 5, 4, 3], 2, 9, 1) == [[[0, 3]], [[1, 2]]]
    assert indices([6, 5, 4, 3], 2, 8, 1) == [[[0], [3]], [[1], [2]]]


def test_ranks_in_twos_have_the_same_rows_of_twice_the_budget() -> None:
    """Of eighteen tokens under a budget of 9 two ranks read one row, and four read two; one sequence of 12 is no row of its own."""
    assert indices([6, 5, 4, 3], 2, 9, 2) == [[[0, 1, 2, 3]]] * 2
    assert indices([6, 5, 4, 3], 4, 5, 2) == [[[0, 3]]] * 2 + [[[1, 2]]] * 2
    assert indices([12, 4, 2], 2, 9, 2) == [[[0, 1, 2]]] * 2


@pytest.mark.parametrize("together", [1, 2])
def test_counted_micro_batches_are_dealt_to_groups(together: int) -> None:
    shares = indices([3] * 4, 2 * together, 100, together, count=1)
    assert shares == [[[0], [2]]] * together + [[[1], [3]]] * together
