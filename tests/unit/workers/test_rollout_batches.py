"""Whole batches on several engines, with streams made by hand in the place of Ray's: who gets what, and what a death costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.workers import rollout_group
from lrm_safety.workers.rollout_group import RolloutGroup

SAMPLING = SamplingParameters(1.0, 1.0, 0, 4, (1,))


class Dead(Exception):
    """What Ray raises for an actor that is gone."""


def request(number: int) -> GenerationRequest:
    return GenerationRequest(number, number, np.zeros(1, dtype=np.int32), number)


def rollout(number: int) -> Rollout:
    ids = np.zeros(1, dtype=np.int32)
    return Rollout(number, number, ids, ids, np.zeros(1, dtype=np.float32), "stop", 0)


class MadeGroup(RolloutGroup):
    """Two engines that answer in chunks of two, `asked` being what each stream was given."""

    def __init__(self, *, dies: dict[int, int]) -> None:
        """`dies`: the stream, by number, that ends in a death after so many chunks."""
        self._spec = SimpleNamespace(rollout=SimpleNamespace(timeout_seconds=60.0))  # type: ignore[assignment]
        self._group = [0, 1]  # type: ignore[assignment]
        self._on_wait = lambda: None
        self._dies, self.asked, self.revived = dies, [], []  # type: ignore[var-annotated]

    def _stream(self, engine: int, requests: dict[int, GenerationRequest], sampling: SamplingParameters) -> Any:
        number = len(self.asked)
        self.asked.append((engine, list(requests)))

        def chunks() -> Iterator[Any]:
            names = list(requests)
            for place, start in enumerate(range(0, len(names), 2)):
                if self._dies.get(number) == place:
                    raise Dead
                yield [rollout(name) for name in names[start : start + 2]]

        return chunks()

    def _revive(self, engine: int, error: Exception) -> None:
        self.revived.append(engine)


@pytest.fixture(autouse=True)
def made_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def wait(streams: Sequence[Any], num_returns: int, timeout: float) -> tuple[list[Any], list[Any]]:
        return [streams[0]], list(streams[1:])

    monkeypatch.setattr(rollout_group, "ray", SimpleNamespace(wait=wait, get=lambda chunk: chunk))
    monkeypatch.setattr(rollout_group, "DEATHS", (Dead,))


def answered(chunks: Iterator[list[Rollout]]) -> list[int]:
    return sorted(one.request_id for chunk in chunks for one in chunk)


def test_each_batch_goes_whole_to_one_engine_and_the_next_to_whoever_is_free() -> None:
    group = MadeGroup(dies={})
    batches = [[request(n) for n in range(start, start + 4)] for start in (0, 4, 8)]
    assert answered(group.generate_batches(batches, SAMPLING)) == list(range(12))
    assert group.asked == [(0, [0, 1, 2, 3]), (1, [4, 5, 6, 7]), (0, [8, 9, 10, 11])]


def test_a_batch_of_a_dead_engine_is_asked_again_whole_and_answered_once() -> None:
    group = MadeGroup(dies={0: 1})
    assert answered(group.generate_batches([[request(n) for n in range(6)]], SAMPLING)) == list(range(6))
    assert group.asked == [(0, [0, 1, 2, 3, 4, 5]), (0, [0, 1, 2, 3, 4, 5])] and group.revived == [0]


def test_requests_that_may_be_cut_are_asked_again_alone() -> None:
    group = MadeGroup(dies={0: 1})
    assert answered(group.generate([request(n) for n in range(8)], SAMPLING)) == list(range(8))
    assert group.asked == [(0, [0, 2, 4, 6]), (1, [1, 3, 5, 7]), (0, [4, 6])]
