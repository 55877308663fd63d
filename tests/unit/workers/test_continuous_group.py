"""Engines that are asked now and answer later, made by hand: whatever dies and whenever weights change, each request is answered
once, by an engine that has the weights that all have."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrm_safety.errors import InvariantError, WorkerError
from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.settings import RolloutSettings
from lrm_safety.workers import continuous_group, rollout_group
from lrm_safety.workers.continuous_group import ContinuousRolloutGroup
from lrm_safety.workers.group import HourlyBudget

SAMPLING = SamplingParameters(1.0, 1.0, 0, 4, (1,))


class Dead(Exception):
    """What Ray raises for an actor that is gone."""


class MadeEngines:
    """In the place of the actors. A call is a function that gives its result, made when it is asked for; one to an actor that has
    died before raises."""

    def __init__(self, number: int) -> None:
        self.open: list[list[GenerationRequest]] = [[] for _ in range(number)]
        self.given: list[list[int]] = [[] for _ in range(number)]
        self.versions = [0] * number
        self.lives = [0] * number
        self.pace = 2
        self.on_wait: Callable[[], object] = lambda: None
        self.published = 0

    def __len__(self) -> int:
        return len(self.open)

    def die(self, engine: int) -> None:
        """Until it is replaced."""
        self.lives[engine] = -1 - abs(self.lives[engine])

    def submit(self, engine: int, method: str, *arguments: Any) -> Any:
        life = self.lives[engine]
        result = getattr(self, method)(engine, *arguments) if life >= 0 else None

        def get() -> Any:
            if life < 0 or self.lives[engine] != life:
                raise Dead
            return result() if callable(result) else result

        return get

    def answered(self, engine: int, requests: Sequence[GenerationRequest], sampling: Any, seconds: float) -> Any:
        if requests:
            assert self.versions[engine] == self.published, "an engine samples with weights that the others do not have"
        self.given[engine] += [one.request_id for one in requests]
        self.open[engine] += requests

        def end() -> list[Rollout]:
            ended, self.open[engine] = self.open[engine][: self.pace], self.open[engine][self.pace :]
            none = np.zeros(1, dtype=np.float32)
            return [Rollout(r.request_id, 0, r.prompt_ids, r.prompt_ids, none, "stop", 0) for r in ended]

        return end

    def cancel(self, engine: int) -> dict[int, int]:
        """Every one of the made responses had got three tokens."""
        sampled, self.open[engine] = {one.request_id: 3 for one in self.open[engine]}, []
        return sampled

    def start(self, engine: int) -> None:
        self.versions[engine] = 0

    def weights_version(self, engine: int) -> int:
        return self.versions[engine]

    def start_weight_update(self, engine: int) -> None:
        pass

    def finish_weight_update(self, engine: int, version: int) -> None:
        self.versions[engine] = version

    def answer(self, engine: int, method: str, call: Any, seconds: float = 60.0) -> Any:
        self.on_wait()
        return call()

    def gather(self, calls: Sequence[Any], *_: Any) -> list[Any]:
        return [call() for call in calls]

    def fate(self, engine: int, error: Exception) -> tuple[str, str]:
        return "died", "made"

    def replace(self, engine: int) -> None:
        self.lives[engine] = abs(self.lives[engine]) + 1
        self.open[engine] = []


@contextmanager
def no_buckets() -> Iterator[Iterator[Any]]:
    yield iter(())


def publish(group: Any, version: int) -> None:
    group._group.published = version
    group.load_weights(version, no_buckets)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(number: int, timeout_seconds: float = 60.0, places: int | None = None) -> Any:
        group: Any = object.__new__(ContinuousRolloutGroup)
        engines = MadeEngines(number)
        rollout = RolloutSettings(max_num_seqs=places or 256, dispatch="as_slots_free" if places else "fixed")
        rollout.timeout_seconds = timeout_seconds
        spec = SimpleNamespace(rollout=rollout, cluster=SimpleNamespace(start_timeout_seconds=1.0))
        given = {"_group": engines, "_published": None, "_spec": spec}
        monkeypatch.setattr(rollout_group.RolloutGroup, "__init__", lambda self: self.__dict__.update(given))
        group.__init__()
        group._on_wait, group._on_replacement, group._limit = lambda: None, lambda line: None, 1.0
        group.connected, group.replacements = False, HourlyBudget(1000)
        publish(group, 1)
        return group

    def wait(calls: Sequence[Any], num_returns: int = 1, timeout: float | None = None) -> tuple[list[Any], list[Any]]:
        return list(calls), []

    for module in (continuous_group, rollout_group):
        monkeypatch.setattr(module, "ray", SimpleNamespace(wait=wait, get=lambda call: call()))
        monkeypatch.setattr(module, "DEATHS", (Dead,))
    return make


def requests(count: int, first: int = 0) -> list[GenerationRequest]:
    return [GenerationRequest(first + i, 0, np.zeros(1, dtype=np.int32), i) for i in range(count)]


def numbers(rollouts: Sequence[Rollout]) -> list[int]:
    return [one.request_id for one in rollouts]


def test_each_request_goes_to_the_engine_with_the_fewest_open(made: Any) -> None:
    group = made(2)
    group.begin(requests(4), SAMPLING)
    assert [len(given) for given in group._group.given] == [2, 2]
    group._group.open[1].clear()  # engine 1 never answers its own, but counts them
    assert sorted(numbers(group.answered())) == [0, 2]
    group.begin(requests(4, first=4), SAMPLING)
    assert [len(given) for given in group._group.given] == [5, 3], "3 to the idle one, 1 to the one that has 2 open"


def test_a_death_is_noticed_without_a_wait_and_mended_when_it_may_be(made: Any) -> None:
    group = made(2)
    group.begin(requests(8), SAMPLING)
    group._group.die(0)
    seen = numbers(group.answered()) + numbers(group.answered())
    assert set(seen) == {1, 3, 5, 7} and group._group.lives[0] < 0, "the other engine goes on"
    group.replace_lost()
    assert group._group.versions == [1, 1]
    while rollouts := group.answered():
        seen += numbers(rollouts)
    assert sorted(seen) == list(range(8))


def test_a_dead_engine_gets_its_requests_after_the_weights(made: Any) -> None:
    """The made engines refuse requests while their weights are not those of the others."""
    group = made(2)
    group.begin(requests(8), SAMPLING)
    group._group.die(1)
    publish(group, 2)
    assert group._group.versions == [2, 2] and len(group._group.open[1]) == 4


@pytest.mark.parametrize("places", [None, 3])
@pytest.mark.parametrize("seed", range(40))
def test_every_request_is_answered_exactly_once_whatever_dies(made: Any, seed: int, places: int | None) -> None:
    draw = random.Random(seed)
    group = made(draw.randint(1, 3), places=places)
    engines, asked, seen, version = group._group, 0, [], 1

    def ask() -> None:
        nonlocal asked
        count = draw.randint(1, 6)
        group.begin(requests(count, first=asked), SAMPLING)
        asked += count

    def sync() -> None:
        nonlocal version
        version += 1
        publish(group, version)

    def look() -> None:
        engines.pace = draw.randint(0, 3)
        seen.extend(numbers(group.answered(draw.choice([0.0, 0.5]))))

    moves = [ask, look, look, sync, group.replace_lost, lambda: engines.die(draw.randrange(len(engines)))]
    for _ in range(60):
        draw.choice(moves)()
    engines.pace = 3
    for _ in range(asked):
        group.replace_lost()
        seen += numbers(group.answered())
    assert sorted(seen) == list(range(asked))


def test_requests_wait_for_a_place_and_the_first_that_falls_free_takes_the_next(made: Any) -> None:
    """8 places and one more for the way: 9 of 24 requests each, and engine 1 never ends any."""
    group = made(2, places=8)
    group.begin(requests(24), SAMPLING)
    engines = group._group
    assert [len(given) for given in engines.given] == [9, 9]
    engines.open[1].clear()
    seen = numbers(group.answered())
    assert seen == [0, 2] and engines.given[0][-2:] == [18, 19] and len(engines.given[1]) == 9
    while rollouts := group.answered():
        seen += numbers(rollouts)
    assert sorted(seen) == sorted({*range(24)} - {*range(1, 18, 2)})


@pytest.mark.parametrize("places", [None, 2])
def test_what_is_cancelled_is_never_answered(made: Any, places: int | None) -> None:
    """With 2 places and one for the way each, the two engines are given 6 of 12 requests, and 4 more when as many have ended."""
    group = made(2, places=places)
    group.begin(requests(12), SAMPLING)
    answered = numbers(group.answered())
    sampled = group.cancel()
    given = {name for each in group._group.given for name in each}
    assert set(sampled) == given - set(answered) and len(given) == (12 if places is None else 10)
    assert group.answered() == [] and group._group.open == [[], []]
    group.begin(requests(3), SAMPLING)  # numbers may come again
    seen: list[int] = []
    while rollouts := group.answered():
        seen += numbers(rollouts)
    assert sorted(seen) == [0, 1, 2]


def test_who_looks_for_answers_while_it_is_cancelled_finds_none_and_gives_nothing_out(made: Any) -> None:
    """The controller reads answers in every wait, so also in those for what is cancelled."""
    group = made(2, places=2)
    group.begin(requests(12), SAMPLING)
    seen: list[Rollout] = []
    group._group.on_wait = lambda: seen.extend(group.answered())
    before = [list(each) for each in group._group.given]
    sampled = group.cancel()
    assert not seen and group._group.given == before and set(sampled) == {name for each in before for name in each}
    group._group.on_wait = lambda: None
    group.begin(requests(12), SAMPLING)  # the same numbers once more
    answered: list[int] = []
    while rollouts := group.answered():
        answered += numbers(rollouts)
    assert sorted(answered) == list(range(12))


def test_cancelling_goes_on_where_an_engine_is_dead(made: Any) -> None:
    group = made(2)
    group.begin(requests(4), SAMPLING)
    group._group.die(0)
    assert set(group.cancel()) <= {1, 3}
    group.replace_lost()
    group.begin(requests(2, first=9), SAMPLING)
    assert sorted(numbers(group.answered()) + numbers(group.answered())) == [9, 10]


def test_a_batch_of_its_own_needs_idle_engines(made: Any) -> None:
    group = made(1)
    group.begin(requests(1), SAMPLING)
    with pytest.raises(InvariantError, match="1 responses are under way"):
        next(group.generate(requests(1, first=1), SAMPLING))


def test_silence_has_a_limit(made: Any) -> None:
    group = made(1, timeout_seconds=-1.0)
    group._group.pace = 0
    group.begin(requests(3), SAMPLING)
    with pytest.raises(WorkerError, match=r"rollout.timeout_seconds=-1: 3 responses were not finished"):
        group.answered()
