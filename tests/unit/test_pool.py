"""Which prompts in flight make a batch: whatever order they are answered in, each is learned from once, none left for long."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lrm_safety.pool import Pool
from lrm_safety.rollouts import Rollout


def answer(number: int, sample: int, samples: int) -> Rollout:
    ids = np.zeros(1, dtype=np.int32)
    return Rollout(number * samples + sample, number, ids, ids, np.zeros(1, dtype=np.float32), "stop", 1)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_every_prompt_is_learned_from_once_and_within_its_time(data: st.DataObject) -> None:
    """Prompts are numbers in the order in which they are drawn; any order of answers, restarts of the run, and answers that are
    forgotten after a batch where the weights that learn are to have sampled."""
    size, samples, patience = (data.draw(st.integers(1, top)) for top in (5, 3, 3))
    in_flight = data.draw(st.integers(size, 2 * size))
    forgets = patience == 1 and data.draw(st.booleans())
    pool, drawn, learned = Pool(size, samples, patience), 0, []
    owed: dict[int, deque[int]] = {}
    drawn_for: dict[int, int] = {}
    for iteration in range(8):
        fresh = range(drawn, drawn + in_flight - len(pool))
        drawn = fresh.stop
        drawn_for |= dict.fromkeys(fresh, iteration)
        positions = [one.request_id for one in pool.begin(iteration, fresh)]
        owed |= {number: deque(range(samples)) for number in pool.to_ask()}
        assert pool.to_ask() == {}, "what was asked is not asked again"
        while not pool.is_full:
            number = data.draw(st.sampled_from(sorted(owed)))
            placed = pool.answered(number, answer(number, owed[number].popleft(), samples))
            positions += [one.request_id for one in placed]
            if not owed[number]:
                del owed[number]
        assert sorted(positions) == list(range(size * samples)), "every position of the batch is sent on once"
        batch = pool.take()
        assert len(batch) == size and [one.place for one in batch] == list(range(size))
        for one in batch:
            assert sorted(each.request_id % samples for each in one.answers) == list(range(samples))
            assert 0 <= iteration - drawn_for[one.prompt] <= patience
        learned += [one.prompt for one in batch]
        assert len(pool) == in_flight - size
        if forgets:
            pool.forget()
            owed.clear()
        if data.draw(st.booleans()):  # the run is killed here, and goes on from a checkpoint
            carried = pool.carried()
            pool = Pool(size, samples, patience)
            pool.restore(carried)
            owed.clear()
    assert len(set(learned)) == len(learned) and {*learned, *(one for one, _ in pool.carried())} == {*range(drawn)}


def made(in_flight: int, patience: int = 1) -> tuple[Pool, Any]:
    """Batches of 2 prompts with 1 sample, and a function that answers some."""
    pool = Pool(2, 1, patience)
    pool.begin(0, range(in_flight))

    def ends(*numbers: int) -> list[tuple[int, int]]:
        """(position in the batch, prompt) of what gets a place."""
        placed = [one for number in numbers for one in pool.answered(number, answer(number, 0, 1))]
        return [(one.request_id, one.prompt_index) for one in placed]

    return pool, ends


def test_the_first_that_are_answered_are_the_batch() -> None:
    pool, ends = made(4)
    assert ends(2) == [(0, 2)] and not pool.is_full
    assert ends(0, 3) == [(1, 0)] and pool.is_full
    assert [one.prompt for one in pool.take()] == [2, 0] and pool.carried() == [[1, 0], [3, 0]]


def test_a_place_is_kept_for_what_was_passed_over() -> None:
    """Of 3 in flight prompt 1 is left; the next batch has one place beside it, whatever ends first."""
    pool, ends = made(3)
    ends(0, 2)
    pool.take()
    assert pool.begin(1, [3, 4]) == []
    assert ends(3, 4) == [(0, 3)], "prompt 4 would take the place of prompt 1"
    assert ends(1) == [(1, 1)]
    assert [one.prompt for one in pool.take()] == [3, 1]
    assert [one.request_id for one in pool.begin(2, [5, 6])] == [0], "prompt 4 is answered already"


def test_with_more_patience_it_may_be_passed_over_again() -> None:
    pool, ends = made(3, patience=2)
    ends(0, 2)
    pool.take()
    pool.begin(1, [3, 4])
    assert ends(3, 4) == [(0, 3), (1, 4)]
    pool.take()
    pool.begin(2, [5, 6])
    assert ends(5, 6) == [(0, 5)] and ends(1) == [(1, 1)]


def test_what_is_forgotten_is_asked_again() -> None:
    pool, ends = made(4)
    assert list(pool.to_ask()) == [0, 1, 2, 3]
    ends(3, 2, 1)  # the third is whole, and too late
    pool.take()
    assert [one.request_id for one in pool.forget()] == [1]
    assert list(pool.to_ask()) == [0, 1] and pool.begin(1, [4, 5]) == []


def test_a_batch_is_whole_when_it_is_taken() -> None:
    pool, ends = made(3)
    ends(0)
    with pytest.raises(AssertionError, match="before it is whole"):
        pool.take()
