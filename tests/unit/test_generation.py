"""Batches that are begun ahead or cut off, with an engine made by hand: what is in flight, and what a resume asks again."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lrm_safety.datasets.prompts import PromptSource
from lrm_safety.generation import Ahead, CutOff, InTurn, generation_of
from lrm_safety.rollouts import GenerationRequest, Rollout
from lrm_safety.schedule import Schedule
from lrm_safety.settings import AlgorithmSettings, RolloutSettings, ScheduleSettings, Settings

NUM_PROMPTS, SEED = 6, 0


class Engine:
    """Answers what is asked, `pace` requests a look, the last asked first where `backwards`."""

    def __init__(self, pace: int = 100, backwards: bool = False) -> None:
        self.pace, self.backwards = pace, backwards
        self.asked: list[GenerationRequest] = []
        self.open: list[GenerationRequest] = []
        self.looks: list[float] = []
        self.replaced = 0
        self.lengths: dict[int, int] = {}
        """By prompt; of others 1."""
        self.slow: set[int] = set()
        """Prompts that end when nothing else is open."""

    def begin(self, requests: list[GenerationRequest], sampling: Any) -> None:
        self.asked += requests
        self.open += requests

    def answered(self, seconds: float = 0.0) -> list[Rollout]:
        self.looks.append(seconds)
        order = self.open[::-1] if self.backwards else self.open
        order = sorted(order, key=lambda one: one.prompt_index in self.slow)
        ended = order[: self.pace]
        self.open = [one for one in self.open if one not in ended]
        return [self.answer(one) for one in ended]

    def answer(self, one: GenerationRequest) -> Rollout:
        ids = np.full(self.lengths.get(one.prompt_index, 1), one.seed % 1000, dtype=np.int32)
        return Rollout(one.request_id, one.prompt_index, one.prompt_ids, ids, np.zeros(len(ids), np.float32), "stop", 1)

    def cancel(self) -> dict[int, int]:
        """What is open had 2 tokens, but for the last asked, which had not begun."""
        sampled = {one.request_id: 2 for one in self.open[:-1]} | {one.request_id: 0 for one in self.open[-1:]}
        self.open = []
        return sampled

    def replace_lost(self) -> None:
        self.replaced += 1

    def generate(self, requests: list[GenerationRequest], sampling: Any) -> list[list[Rollout]]:
        self.asked += requests
        return [[self.answer(one) for one in requests]]


class Scorer:
    """A pending chunk is its rollouts."""

    def __init__(self) -> None:
        self.told: list[int] = []

    def send(self, rollouts: list[Rollout]) -> list[Rollout]:
        return rollouts

    def submit(self, chunks: list[list[Rollout]], number: int) -> list[list[Rollout]]:
        return list(chunks)

    def owed(self, number: int) -> None:
        self.told.append(number)


class Groups:
    def __init__(self, engine: Engine) -> None:
        self.rollout, self.look = engine, None

    def while_waiting(self, call: Any) -> None:
        self.look = call


def made(
    max_staleness: int,
    engine: Engine,
    max_updates: int = 100,
    source: PromptSource | None = None,
    oversampling: float = 1.0,
    dispatch: Any = "fixed",
) -> Any:
    """Batches of 2 prompts with 2 samples each, in 2 updates; chunks of 3."""
    settings = Settings(
        seed=SEED,
        algorithm=AlgorithmSettings(
            rollout_batch_size=2,
            samples_per_prompt=2,
            mini_batch_size=2,
            max_staleness=max_staleness,
            oversampling=oversampling,
        ),
        rollout=RolloutSettings(stream_chunk_size=3, dispatch=dispatch),
        schedule=ScheduleSettings(max_updates=max_updates),
    )
    rendered = [np.asarray([index], dtype=np.int32) for index in range(NUM_PROMPTS)]
    run = SimpleNamespace(
        settings=settings, rendered=rendered, sampling=None, schedule=Schedule.of(settings, NUM_PROMPTS)
    )
    groups = Groups(engine)
    generation = generation_of(run, groups, source or PromptSource(NUM_PROMPTS, 2, SEED), Scorer())  # type: ignore
    return generation, groups


def flat(chunks: list[list[Rollout]]) -> list[tuple[int, int, int]]:
    """(request, prompt, token) of a batch, in the order of its requests."""
    return sorted((one.request_id, one.prompt_index, int(one.response_ids[0])) for chunk in chunks for one in chunk)


@pytest.mark.parametrize("max_staleness", [1, 2, 5])
@pytest.mark.parametrize("backwards", [False, True])
def test_the_batches_are_those_of_a_run_in_turn(max_staleness: int, backwards: bool) -> None:
    """Prompts, positions and seeds (which the made responses spell) are the same; only when they are asked for differs."""
    in_turn, _ = made(0, Engine())
    ahead, _ = made(max_staleness, Engine(pace=3, backwards=backwards))
    assert isinstance(in_turn, InTurn) and isinstance(ahead, Ahead)
    for iteration in range(6):
        batch = flat(ahead.take(2 * iteration, iteration))
        assert batch == flat(in_turn.take(2 * iteration, iteration))
        assert [request for request, _, _ in batch] == [0, 1, 2, 3]


def test_no_more_than_so_many_batches_are_begun() -> None:
    engine = Engine()
    generation, _ = made(2, engine)
    for iteration in range(4):
        generation.take(2 * iteration, iteration)
        # What iteration i learns from, and the two batches after it, of 4 requests each, with numbers of their own.
        assert sorted(one.request_id for one in engine.asked) == list(range(4 * (iteration + 3)))


def test_nothing_is_begun_that_the_schedule_does_not_reach() -> None:
    """5 updates would be 2.5 batches: the run ends after the third, at 6."""
    engine = Engine()
    generation, _ = made(3, engine, max_updates=5)
    for iteration in range(3):
        generation.take(2 * iteration, iteration)
    assert len(engine.asked) == 3 * 4


def test_a_resume_asks_again_what_was_in_flight() -> None:
    """Killed after the second batch was taken: the third and fourth, of which half is answered, are asked again."""
    engine = Engine(pace=3)
    generation, groups = made(2, engine)
    for iteration in range(2):
        generation.take(2 * iteration, iteration)
    state = generation.state()
    groups.look()
    assert generation.state() == state, "answers that nobody learned from change nothing"

    source = PromptSource(NUM_PROMPTS, 2, SEED)
    source.load_state_dict(state)
    resumed, _ = made(2, Engine(), source=source)
    in_turn, _ = made(0, Engine())
    expected = [flat(in_turn.take(2 * iteration, iteration)) for iteration in range(5)]
    assert [flat(resumed.take(2 * iteration, iteration)) for iteration in (2, 3, 4)] == expected[2:]


def test_with_nothing_in_flight_a_resume_draws_on() -> None:
    generation, _ = made(1, Engine(), max_updates=2)
    generation.take(0, 0)
    drawn = PromptSource(NUM_PROMPTS, 2, SEED)
    drawn.next_batch()
    assert generation.state() == drawn.state_dict()


def test_answers_are_sent_on_in_the_waits_of_the_loop() -> None:
    """6 of the 8 answers come while the first batch is waited for; the look during an update takes the rest without waiting."""
    engine = Engine(pace=2)
    generation, groups = made(1, engine)
    first = generation.take(0, 0)
    assert [len(chunk) for chunk in first] == [3, 1] and engine.looks == [0.5, 0.5] and engine.replaced == 2
    groups.look()
    groups.look()
    assert not engine.open and engine.looks[2:] == [0.0, 0.0] and engine.replaced == 2, "the trainer may be at work"
    engine.looks.clear()
    generation.take(2, 1)  # the second batch is there already: only the third is asked
    assert engine.looks == [] and len(engine.open) == 4


def test_settled_engines_are_idle_and_the_batch_is_kept() -> None:
    engine = Engine(pace=1)
    generation, _ = made(1, engine)
    generation.take(0, 0)
    assert len(engine.open) == 4
    generation.settle()
    assert engine.open == []
    engine.pace = 100
    in_turn, _ = made(0, Engine())
    in_turn.take(0, 0)
    assert flat(generation.take(2, 1)) == flat(in_turn.take(2, 1))


@pytest.mark.parametrize("max_staleness", [0, 1])
def test_whichever_engine_is_free_answers_the_same_requests(max_staleness: int) -> None:
    in_turn, _ = made(0, Engine())
    freed, _ = made(max_staleness, Engine(pace=3, backwards=True), dispatch="as_slots_free")
    assert isinstance(freed, Ahead)
    for iteration in range(6):
        assert flat(freed.take(2 * iteration, iteration)) == flat(in_turn.take(2 * iteration, iteration))


def test_prompts_that_had_long_responses_begin_first() -> None:
    """Three batches are a pass over the 6 prompts; in the next pass each batch begins with its longer one. Dealt as they are
    asked, they stay in the order in which they were drawn."""
    for dispatch, sorts in (("as_slots_free", True), ("fixed", False)):
        engine = Engine()
        engine.lengths = {prompt: 10 * prompt + 1 for prompt in range(NUM_PROMPTS)}
        generation, _ = made(0, engine, dispatch=dispatch) if sorts else made(1, engine, dispatch=dispatch)
        source, asked = PromptSource(NUM_PROMPTS, 2, SEED), []
        drawn = [source.next_batch() for _ in range(6)]
        for iteration in range(6):
            generation.take(2 * iteration, iteration)
        asked = [[one.prompt_index for one in engine.asked[first : first + 4 : 2]] for first in range(0, 24, 4)]
        assert asked[:3] == drawn[:3], "of unknown ones none is first"
        assert asked[3:] == [sorted(pair, reverse=True) if sorts else pair for pair in drawn[3:]]
        assert not sorts or asked != drawn


def seeds(iteration: int, prompt: int) -> list[int]:
    """Of the samples of a prompt that was drawn for an iteration."""
    names = [np.random.SeedSequence([SEED, iteration, prompt, sample]) for sample in range(2)]
    return [int(one.generate_state(1)[0]) for one in names]


def test_a_batch_is_cut_off_and_its_rest_is_sampled_again_with_the_same_seeds() -> None:
    """3 prompts in flight, the slowest is left over, and its 2 answers are in the batch after."""
    source = PromptSource(NUM_PROMPTS, 2, SEED)
    first, second = source.next_batch(3), source.next_batch(2)
    engine = Engine(pace=1)
    engine.slow = {first[0]}
    generation, _ = made(0, engine, oversampling=1.5, dispatch="as_slots_free")
    assert isinstance(generation, CutOff)
    batch = flat(generation.take(0, 0))
    assert batch == [
        (2 * place + sample, prompt, seeds(0, prompt)[sample] % 1000)
        for place, prompt in enumerate(first[1:])
        for sample in range(2)
    ]
    assert engine.open == [], "nothing is under way while the trainer trains"
    assert generation.metrics() == {
        "rollout/num_cut": 1,
        "rollout/late_fraction": 0,
        "rollout/in_time_length_mean": 1,
        "rollout/dropped_tokens": 2,
        "rollout/dropped_length_mean": 2,
    }
    engine.lengths = {first[0]: 7}
    batch = flat(generation.take(2, 1))
    late = [(prompt, token) for _, prompt, token in batch if prompt == first[0]]
    assert sorted(late) == sorted((first[0], seed % 1000) for seed in seeds(0, first[0])), "seeds of when it was drawn"
    assert {prompt for _, prompt, _ in batch} < {first[0], *second} and [one for one, _, _ in batch] == [0, 1, 2, 3]
    told = generation.metrics()
    assert told["rollout/late_fraction"] == 0.5
    assert told["rollout/late_length_mean"] == 7 and told["rollout/in_time_length_mean"] == 1


def test_what_is_cut_off_goes_on_where_older_weights_may_sample() -> None:
    """It is asked once, and its answers are taken while the trainer trains."""
    engine = Engine(pace=1)
    first = PromptSource(NUM_PROMPTS, 2, SEED).next_batch(3)
    engine.slow = {first[0]}
    generation, groups = made(1, engine, oversampling=1.5, dispatch="as_slots_free")
    generation.take(0, 0)
    assert [one.prompt_index for one in engine.open] == [first[0]] * 2
    assert "rollout/dropped_tokens" not in generation.metrics()
    groups.look()
    groups.look()
    assert engine.open == []
    assert first[0] in {prompt for _, prompt, _ in flat(generation.take(2, 1))}
    assert len(engine.asked) == 2 * 5, "3 prompts, and 2 more"


@pytest.mark.parametrize("max_staleness", [0, 1, 3])
def test_a_resume_asks_again_what_was_cut_off(max_staleness: int) -> None:
    engine = Engine(pace=1, backwards=True)
    generation, _ = made(max_staleness, engine, oversampling=2.0, dispatch="as_slots_free")
    learned = [flat(generation.take(2 * iteration, iteration)) for iteration in range(3)]
    state = generation.state()
    assert len(state["carried"]) == 2

    source, again = PromptSource(NUM_PROMPTS, 2, SEED), Engine(backwards=True)
    source.load_state_dict(state)
    resumed, _ = made(max_staleness, again, source=source, oversampling=2.0, dispatch="as_slots_free")
    resumed.restore(state)
    assert resumed.state() == state
    learned += [flat(resumed.take(2 * iteration, iteration)) for iteration in range(3, 9)]
    drawn = PromptSource(NUM_PROMPTS, 2, SEED)
    expected = sorted(prompt for _ in range(10) for prompt in drawn.next_batch())
    left = [prompt for prompt, _ in resumed.state()["carried"]]
    assert sorted([prompt for batch in learned for _, prompt, _ in batch[::2]] + left) == expected
    first = again.asked[: 2 * len(state["carried"])]
    assert {one.seed for one in first} == {seed for prompt, begun in state["carried"] for seed in seeds(begun, prompt)}


def test_engines_are_idle_when_what_was_cut_off_is_settled() -> None:
    engine = Engine(pace=1)
    generation, _ = made(2, engine, oversampling=2.0, dispatch="as_slots_free")
    generation.take(0, 0)
    assert engine.open
    generation.settle()
    assert engine.open == []
    asked = len(engine.asked)
    generation.take(2, 1)
    assert len(engine.asked) == asked + 4, "what is settled is kept"
