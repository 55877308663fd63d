"""One queue for several engines, with engines made by hand that count steps: who takes what, and what a death costs."""

from __future__ import annotations

import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrm_safety.errors import WorkerError
from lrm_safety.rollouts import GenerationRequest, Rollout, SamplingParameters
from lrm_safety.settings import ClusterSettings, ModelSettings, RolloutSettings
from lrm_safety.workers import rollout, rollout_group
from lrm_safety.workers.rollout import RolloutWorker
from lrm_safety.workers.rollout_group import RolloutGroup
from lrm_safety.workers.specs import EngineSpec

SAMPLING = SamplingParameters(1.0, 1.0, 0, 4, (1,))
SLOTS, STEP_SECONDS = 4, 0.02
SPEC = EngineSpec(ModelSettings(), RolloutSettings(max_num_seqs=SLOTS), ClusterSettings(), 0)


class Dead(Exception):
    """What Ray raises for an actor that is gone."""


class MadeVllm:
    """Gives each of at most `SLOTS` requests one token a step, which takes `STEP_SECONDS`; a request's length is its seed."""

    def __init__(self) -> None:
        self.seconds, self.open = 0.0, {}  # type: ignore[var-annotated]

    def has_unfinished_requests(self) -> bool:
        return bool(self.open)

    def add_request(self, name: str, prompt: None, length: int, lora_request: None) -> str:
        self.open[name] = length
        return f"{name}-internal"

    def abort_request(self, names: list[str], internal: bool) -> None:
        for name in names:
            del self.open[name.removesuffix("-internal")]

    def step(self) -> list[Any]:
        if self.open:
            self.seconds += STEP_SECONDS
        for name in list(self.open)[:SLOTS]:
            self.open[name] -= 1
        ended = [name for name, left in self.open.items() if not left]
        for name in ended:
            del self.open[name]
        return [output(name) for name in ended]


def output(name: str) -> Any:
    """What vLLM says of a request that has ended."""
    one = SimpleNamespace(
        finish_reason="length",
        weight_versions=[SimpleNamespace(version="0")],
        token_ids=[1],
        logprobs=SimpleNamespace(logprobs=[0.0]),
    )
    return SimpleNamespace(request_id=name, outputs=[one])


class Turn:
    """What one turn of an engine gives, and when."""

    def __init__(self, end: float, rollouts: list[Rollout] | None) -> None:
        self.end, self.rollouts = end, rollouts


class MadeEngines:
    """In the place of the actors: workers with a made vLLM. A turn begins when the one before has ended, and it is asked for."""

    def __init__(self, number: int, dies: dict[int, int]) -> None:
        """`dies`: the engine, and the turn of it that ends in a death."""
        self.workers: list[Any] = [self.worker(0.0) for _ in range(number)]
        self.given: list[list[int]] = [[] for _ in range(number)]
        self.now, self.dies, self.turns = 0.0, dies, [0] * number

    def __len__(self) -> int:
        return len(self.workers)

    def worker(self, seconds: float) -> Any:
        made: Any = RolloutWorker(SPEC, 0)
        made._llm = SimpleNamespace(llm_engine=MadeVllm(), reset_prefix_cache=lambda: True)
        made._llm.llm_engine.seconds = seconds
        return made

    @property
    def seconds(self) -> list[float]:
        return [one._llm.llm_engine.seconds for one in self.workers]

    def submit(self, engine: int, method: str, requests: Sequence[GenerationRequest], sampling: Any) -> Turn:
        self.given[engine] += [one.request_id for one in requests]
        self.turns[engine] += 1
        vllm = self.workers[engine]._llm.llm_engine
        vllm.seconds = max(vllm.seconds, self.now)
        clock.of = vllm
        rollouts = getattr(self.workers[engine], method)(requests, sampling)
        died = self.turns[engine] >= self.dies.get(engine, 10**9)
        return Turn(vllm.seconds, None if died else rollouts)

    def revive(self, engine: int) -> None:
        self.workers[engine] = self.worker(self.now)
        del self.dies[engine]


clock: Any = SimpleNamespace(of=MadeVllm(), monotonic=lambda: clock.of.seconds)
"""The time of whichever engine is at work."""


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a group of such engines; the engine whose turn ends first answers first."""

    def make(number: int, dies: dict[int, int] | None = None, timeout_seconds: float = 60.0) -> Any:
        engines = MadeEngines(number, dict(dies or {}))
        group: Any = object.__new__(RolloutGroup)
        group._group, group._on_wait = engines, lambda: None
        group._spec = SimpleNamespace(rollout=SimpleNamespace(timeout_seconds=timeout_seconds, max_num_seqs=SLOTS))
        group._revive = lambda engine, error: engines.revive(engine)

        def wait(turns: Sequence[Turn], num_returns: int, timeout: float) -> tuple[list[Turn], list[Turn]]:
            first = min(turns, key=lambda turn: turn.end)
            engines.now = max(engines.now, first.end)
            return [first], []

        def get(turn: Turn) -> list[Rollout]:
            if turn.rollouts is None:
                raise Dead
            return turn.rollouts

        monkeypatch.setattr(rollout_group, "ray", SimpleNamespace(wait=wait, get=get))
        monkeypatch.setattr(rollout_group, "DEATHS", (Dead,))
        monkeypatch.setattr(rollout, "time", clock)
        monkeypatch.setattr(rollout, "_prompt", lambda ids: None)
        monkeypatch.setattr(rollout, "_sampling_parameters", lambda sampling, seed: seed)
        return group

    return make


def asked(lengths: Sequence[int]) -> list[GenerationRequest]:
    return [GenerationRequest(i, i, np.zeros(1, dtype=np.int32), length) for i, length in enumerate(lengths)]


def answered(group: Any, lengths: Sequence[int]) -> list[int]:
    return [one.request_id for chunk in group.generate_from_queue(asked(lengths), SAMPLING) for one in chunk]


def test_an_engine_with_short_responses_takes_more_of_the_queue(made: Any) -> None:
    """Dealt in turn, engine 0 would have 20 responses of 100 tokens, which four at a time take 500 steps, and engine 1 be through
    after 5; in all there are 2,020 tokens, of which eight a step take 253."""
    group = made(2)
    lengths = [100, 1] * 20
    assert sorted(answered(group, lengths)) == list(range(40))
    engines = group._group
    work = [sum(lengths[name] for name in given) for given in engines.given]
    assert sum(work) == 2020 and min(work) > 700, "both had about half of the tokens"
    assert max(engines.seconds) < 330 * STEP_SECONDS


def test_a_place_that_falls_free_is_soon_filled(made: Any) -> None:
    """Four places, 40 requests of 10 tokens, four of which end at once: at least 100 steps, and never are three places empty until
    the fourth ends."""
    group = made(1)
    assert sorted(answered(group, [10] * 40)) == list(range(40))
    assert group._group.seconds[0] < 125 * STEP_SECONDS


@pytest.mark.parametrize("seed", range(25))
def test_every_request_is_answered_exactly_once_whatever_dies(made: Any, seed: int) -> None:
    draw = random.Random(seed)
    number = draw.randint(1, 4)
    dies = {engine: draw.randint(1, 12) for engine in range(number) if draw.random() < 0.6}
    lengths = [draw.randint(1, 60) for _ in range(draw.randint(0, 120))]
    group = made(number, dies)
    assert sorted(answered(group, lengths)) == list(range(len(lengths)))


def test_a_dead_engine_costs_what_it_had_not_answered(made: Any) -> None:
    group = made(2, {0: 4})
    lengths = [5 + i for i in range(30)]
    assert sorted(answered(group, lengths)) == list(range(30))
    given = [name for each in group._group.given for name in each]
    twice = {name for name in given if given.count(name) > 1}
    assert 1 <= len(twice) <= SLOTS + 1 and len(given) == 30 + len(twice)


def test_silence_has_a_limit(made: Any) -> None:
    group = made(1, timeout_seconds=-1.0)
    with pytest.raises(WorkerError, match=r"rollout.timeout_seconds=-1: 3 responses were not finished"):
        answered(group, [5, 5, 5])
