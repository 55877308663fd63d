"""Which engine is given what: never more than there is room for, never idle beside waiting work, each request once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety.errors import InvariantError
from lrm_safety.rollouts import GenerationRequest, Rollout
from lrm_safety.workers.request_queue import RequestQueue

IDS = np.zeros(1, dtype=np.int32)


def requests(count: int, first: int = 0) -> list[GenerationRequest]:
    return [GenerationRequest(first + i, 0, IDS, i) for i in range(count)]


def answers(*numbers: int) -> list[Rollout]:
    return [Rollout(number, 0, IDS, IDS, np.zeros(1, dtype=np.float32), "stop", 0) for number in numbers]


@given(st.data())
def test_each_request_is_answered_once_and_nobody_waits_beside_room(data: st.DataObject) -> None:
    number, places = data.draw(st.integers(1, 4)), data.draw(st.none() | st.integers(1, 9))
    room = math.inf if places is None else places + math.ceil(places / 8)
    queue, asked, answered, begun = RequestQueue(number, places), 0, [], set()
    for _ in range(data.draw(st.integers(1, 30))):
        move = data.draw(st.sampled_from(["add", "answer", "answer", "lose"]))
        engine = data.draw(st.integers(0, number - 1))
        if move == "add":
            count = data.draw(st.integers(0, 20))
            queue.add(requests(count, first=asked))
            asked += count
        elif move == "lose":
            begun -= queue.held[engine].keys()
            queue.lost(engine)
        elif queue.held[engine]:
            ended = data.draw(st.sampled_from(sorted(queue.held[engine])))
            queue.answered(engine, answers(ended))
            answered.append(ended)
        shares = queue.deal()
        given_now = [one.request_id for share in shares for one in share]
        assert not begun & {*given_now}, "asked of two engines"
        begun |= {*given_now}
        held = [len(one) for one in queue.held]
        assert max(held) <= room
        if min(held) < room:
            assert sum(held) == len(queue), "a request waits beside an engine that has room"
        assert all(count <= min(held) + 1 for count, share in zip(held, shares, strict=True) if share), "not the fewest"
    assert len(queue) + len(answered) == asked and len({*answered}) == len(answered)


def test_what_is_long_first_is_shared_evenly() -> None:
    """In descending order of length, neighbours go to different engines."""
    queue = RequestQueue(2, 8)
    queue.add(requests(6))
    assert [[one.request_id for one in share] for share in queue.deal()] == [[0, 2, 4], [1, 3, 5]]


def test_what_an_engine_lost_comes_first_again_in_its_order() -> None:
    queue = RequestQueue(2, 2)
    queue.add(requests(8))
    assert [[one.request_id for one in share] for share in queue.deal()] == [[0, 2, 4], [1, 3, 5]]
    queue.lost(0)
    queue.answered(1, answers(1))
    assert [[one.request_id for one in share] for share in queue.deal()] == [[0, 2, 4], [6]]


def test_an_answer_to_what_was_not_asked() -> None:
    queue = RequestQueue(1, None)
    queue.add(requests(1))
    queue.deal()
    queue.answered(0, answers(0))
    with pytest.raises(InvariantError, match="engine 0 answered request 0 twice"):
        queue.answered(0, answers(0))
