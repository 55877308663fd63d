"""The simulation's stand-ins against times worked out by hand; the loop on them is the project's own."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks.simulated_engines import Clock, EngineCosts, Lengths, SimulatedEngine
from benchmarks.simulated_groups import SimulatedRollout
from benchmarks.simulation import Case, Iteration, Result, assumed_costs, cases, row, simulate
from lrm_safety.lab.planning.assumptions import Assumptions
from lrm_safety.rollouts import GenerationRequest
from lrm_safety.settings import RolloutSettings, Settings


def request(number: int, prompt: int | None = None, prompt_tokens: int = 3) -> GenerationRequest:
    ids = np.zeros(prompt_tokens, dtype=np.int32)
    return GenerationRequest(number, number if prompt is None else prompt, ids, seed=number)


def engine(places: int, lengths: dict[int, int], step: float = 1.0, sequence: float = 0.0, read: float = 0.0) -> Any:
    return SimulatedEngine(places, EngineCosts(step, sequence, read), lambda one: lengths[one.request_id])


def test_a_place_falls_free_for_the_next_response() -> None:
    """Two places, a quarter of a second a step: 0 ends at 1, 2 has its 2 tokens half a second later, 1 has its 8 at 2."""
    one = engine(2, {0: 4, 1: 8, 2: 2}, step=0.25)
    one.add([request(0), request(1), request(2)])
    assert [one.next_end, one.advance(0.99), one.next_end] == [1.0, [], 1.0]
    assert [(ended.request.request_id, ended.length) for ended in one.advance(1.0)] == [(0, 4)]
    assert [ended.request.request_id for ended in one.advance(10.0)] == [2, 1]
    assert one.next_end == math.inf and one.take_work() == 2.0 and one.take_work() == 0.0


def test_each_running_response_makes_a_step_longer() -> None:
    """1/4 s and 1/4 s a response: 4 steps of two take 3 s, 4 more of one take 2; a prompt of 3 tokens takes 3/2 s to read."""
    one = engine(2, {0: 4, 1: 8}, step=0.25, sequence=0.25)
    one.add([request(0), request(1)])
    assert one.next_end == 3.0
    one.advance(3.0)
    assert one.next_end == 5.0
    late = engine(2, {0: 4, 1: 8}, step=0.25, sequence=0.25, read=0.5)
    late.add([request(0), request(1)])
    assert late.next_end == 3.0 + 2 * 1.5


def test_idle_time_is_no_work_and_a_late_request_begins_late() -> None:
    one = engine(1, {0: 2, 1: 3})
    one.advance(5.0)
    one.add([request(0)])
    assert one.next_end == 7.0
    one.advance(9.0)
    one.add([request(1)])
    assert one.next_end == 12.0 and [ended.length for ended in one.advance(12.0)] == [3] and one.take_work() == 5.0


def test_a_sync_stops_the_engine_and_tokens_tell_their_version() -> None:
    """3 of 10 tokens are of version 0; held until 8, then 3 + 3 tokens are read again at half a second each, then 7 steps."""
    one = engine(2, {0: 10, 1: 2}, read=0.5)
    one.add([request(0)])
    one.advance(4.5)  # the prompt took until 1.5
    one.publish(1, until=8.0)
    assert one.next_end == 8.0 + 6 * 0.5 + 7
    assert one.advance(18.0)[0].spans == ((0, 0), (3, 1))
    one.add([request(1)])
    one.publish(2, until=18.0)
    assert one.advance(40.0)[0].spans == ((0, 2),), "no token was of version 1"


def test_what_is_cancelled_had_so_many_tokens() -> None:
    one = engine(1, {0: 10, 1: 2})
    one.add([request(0), request(1)])
    one.advance(4.0)
    assert one.cancel() == {0: 4, 1: 0} and one.next_end == math.inf


def test_only_the_controller_takes_processor_time() -> None:
    seconds = iter([1.0, 2.0, 5.0, 6.0, 6.5])
    clock = Clock(lambda: next(seconds))
    assert clock.now() == 1.0
    with clock.apart():  # from 2 to 5
        clock.skip_to(10.0)
        assert clock.now() == 10.0
    assert clock.computed() == 6.0 - 3.0
    assert clock.now() == 10.0 + (6.5 - 3.0 - 2.0)


def test_lengths_have_the_median_and_the_tail_that_they_were_asked_for() -> None:
    lengths = Lengths(400, 0.9, 4096)
    drawn = [lengths(request(number)) for number in range(4000)]
    assert np.median(drawn) == pytest.approx(400, rel=0.05)
    assert np.percentile(drawn, 84.13) == pytest.approx(400 * math.exp(0.9), rel=0.07)
    assert max(drawn) <= 4096 and drawn == [lengths(request(number)) for number in range(4000)]
    # Two samples of a prompt share half of the logarithm's variance.
    pairs = np.log([[lengths(request(2 * p, p)), lengths(request(2 * p + 1, p))] for p in range(4000)])
    assert np.corrcoef(pairs.T)[0, 1] == pytest.approx(0.5, abs=0.06)


def group(dispatch: Any, places: int, num_engines: int, lengths: dict[int, int]) -> tuple[Clock, SimulatedRollout]:
    settings = Settings(rollout=RolloutSettings(dispatch=dispatch, max_num_seqs=places, stream_chunk_size=2))
    clock = Clock(lambda: 0.0)
    words: Any = SimpleNamespace(response=lambda length, finished: np.zeros(length, dtype=np.int32))
    return clock, SimulatedRollout(settings, clock, [engine(places, lengths) for _ in range(num_engines)], words)


def seconds_of(dispatch: str, places: int, num_engines: int, lengths: dict[int, int]) -> float:
    """Until every request is answered, each once."""
    clock, rollout = group(dispatch, places, num_engines, lengths)
    requests, sampling = [request(number) for number in lengths], SimpleNamespace()
    answers = []
    if dispatch == "fixed":
        for chunk in rollout.generate(requests, sampling):  # type: ignore[arg-type]
            answers += chunk
    else:
        rollout.begin(requests, sampling)  # type: ignore[arg-type]
        while len(answers) < len(requests):
            answers += rollout.answered(0.5)
    assert sorted((one.request_id, len(one.response_ids)) for one in answers) == sorted(lengths.items())
    return clock.now()


def test_two_engines_by_hand() -> None:
    """One place each; the fixed deal gives engine 0 the four of 10 tokens and engine 1 the four of 30. As places fall free, with
    one waiting in each engine: 0, 2, 4 end at 10, 20, 30 on engine 0, which then has 5 and 6 until 70; 1, 3, 7 end at 90."""
    lengths = {number: 30 if number % 2 else 10 for number in range(8)}
    assert seconds_of("fixed", 1, 2, lengths) == 120.0
    assert seconds_of("as_slots_free", 1, 2, lengths) == 90.0


def test_as_slots_free_is_faster_in_the_mean_and_never_far_from_the_best() -> None:
    """On log-normal lengths, the same on both sides. A single fixed deal may be the luckier one; what waits in the queue waits
    while all places are taken, and then in its engine for one response at most."""
    total = {"as_slots_free": 0.0, "fixed": 0.0}
    for seed in range(6):
        drawn = np.exp(np.random.default_rng(seed).normal(3, 1, 96)).astype(int) + 1
        lengths = {number: int(length) for number, length in enumerate(drawn)}
        for dispatch in total:
            total[dispatch] += (seconds := seconds_of(dispatch, 4, 4, lengths))
            least = sum(lengths.values()) / 16
            assert seconds >= max(least, max(drawn))
            assert dispatch == "fixed" or seconds <= least + 2 * max(drawn)
    assert total["as_slots_free"] < total["fixed"]


SYNC = 5.0
FAST, MIDDLING, SLOW = 1e30, 4e12, 4e11
"""Operations a second of a trainer rank: an update takes no time, less than generation, or minutes."""


def simulated(mode: str, training: float, length_of: Any, *overrides: str, iterations: int = 4) -> list[Iteration]:
    """64 responses on two engines with 32 places each, where a step takes a second whatever runs; scores take no time."""
    assumed = assumed_costs(Assumptions())
    taken = replace(assumed, engine=EngineCosts(1.0, 0.0), training=training, scoring=1e30, sync=SYNC)
    small = Case(mode, 8, 8, max_num_seqs=32, max_response_tokens=64, iterations=iterations, overrides=overrides)
    return simulate(small, taken, length_of, Clock(lambda: 0.0)).iterations


def training_seconds(one: Iteration) -> float:
    return one.metrics["time/update_seconds"] + one.metrics["time/logprobs_seconds"]


def uneven(one: GenerationRequest) -> int:
    """The fixed deal gives 10 tokens each to one engine and 30 to the other."""
    return 30 if one.request_id % 2 else 10


def even(one: GenerationRequest) -> int:
    return 20


def test_the_loop_takes_as_long_as_its_longest_response_and_a_sync() -> None:
    found = simulated("fixed", FAST, uneven, iterations=3)
    for one in found:
        assert one.seconds == pytest.approx(30 + SYNC)
        assert one.tokens == 32 * 10 + 32 * 30, "every token is counted"
        assert one.busy["rollout"] == pytest.approx((10 + 30) / 2 / 35)
        assert one.busy["policy"] == pytest.approx(0.0)
    result = Result(Case("fixed", 8), found, 1.0)
    assert result.share(lambda one: one.sync) == pytest.approx(5 / 35)
    assert result.tokens_per_second_and_gpu == pytest.approx(1280 / 35 / 8)
    assert row(result)[:8] == ("8", "2", "fixed", "64", "35.0", "5", "0%", "57%")


@pytest.mark.parametrize("training", [MIDDLING, SLOW])
def test_a_batch_ahead_an_iteration_is_the_longer_of_sampling_and_training(training: float) -> None:
    """In turn it is both. What a sync cuts off of a step is made again: less than one second."""
    for one in simulated("fixed", training, even, iterations=3):
        assert one.seconds == pytest.approx(20 + training_seconds(one) + SYNC)
    for one in simulated("staleness", training, even, "rollout.dispatch=fixed")[1:]:
        longer = max(20.0, training_seconds(one))
        assert longer + SYNC - 1e-6 <= one.seconds < longer + SYNC + 1
        assert one.busy["policy"] == pytest.approx(training_seconds(one) / one.seconds)
        assert one.metrics["rollout/version_lag"] == 1 and one.tokens == 64 * 20


def test_what_is_cut_off_is_learned_from_later() -> None:
    found = simulated("all", MIDDLING, uneven, iterations=5)
    for one in found:
        assert 64 * 10 <= one.tokens <= 64 * 30 and all(0 <= share <= 1 for share in one.busy.values())
    assert max(one.metrics["rollout/late_fraction"] for one in found) > 0


def test_every_mode_is_simulated_where_it_is_small() -> None:
    found = cases([512, 8], ["fixed", "all"], [64, 32], 3)
    assert [(one.gpus, one.mode, one.max_num_seqs) for one in found] == [
        *((8, mode, places) for places in (64, 32) for mode in ("fixed", "all")),
        *((512, mode, 64) for mode in ("fixed", "all")),
    ]
