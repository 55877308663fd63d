from __future__ import annotations

import pytest

from lrm_safety.monitoring.progress import Phases


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Listener:
    def __init__(self) -> None:
        self.heard: list[str | None] = []

    def phase(self, name: str | None) -> None:
        self.heard.append(name)


def test_nested_phases_are_exclusive_and_the_rest_is_the_controllers() -> None:
    clock, listener = Clock(), Listener()
    phases = Phases(listener, clock)
    clock.now += 1
    with phases.phase("generate"):
        clock.now += 2
        with phases.phase("logprobs"):
            clock.now += 4
        clock.now += 8
    clock.now += 16
    with phases.phase("generate"):
        clock.now += 32
    assert phases.take() == {
        "time/generate_seconds": 42.0,
        "time/logprobs_seconds": 4.0,
        "time/iteration_seconds": 63.0,
        "time/controller_seconds": 17.0,
    }
    assert listener.heard == ["generate", "logprobs", "generate", None, "generate", None]
    clock.now += 5
    assert phases.take() == {"time/iteration_seconds": 5.0, "time/controller_seconds": 5.0}


def test_a_phase_that_is_still_running_is_split_by_take() -> None:
    clock = Clock()
    phases = Phases(Listener(), clock)
    with phases.phase("checkpoint"):
        clock.now += 3
        assert phases.take()["time/checkpoint_seconds"] == 3.0
        clock.now += 4
    assert phases.take()["time/checkpoint_seconds"] == 4.0


def test_startup_phases_have_free_names_and_one_metric() -> None:
    clock, listener = Clock(), Listener()
    phases = Phases(listener, clock)
    for name in ("load prompts", "start groups"):
        with phases.startup(name):
            clock.now += 2
    assert phases.take()["time/startup_seconds"] == 4.0
    assert listener.heard == ["load prompts", None, "start groups", None]


def test_an_exception_ends_its_phase() -> None:
    clock, listener = Clock(), Listener()
    phases = Phases(listener, clock)
    with pytest.raises(ValueError), phases.phase("sync"):
        clock.now += 2
        raise ValueError
    clock.now += 1
    assert phases.take()["time/sync_seconds"] == 2.0
    assert listener.heard == ["sync", None]


def test_an_unknown_phase_is_our_mistake() -> None:
    with pytest.raises(AssertionError, match="unknown phase"), Phases(Listener()).phase("start groups"):
        pass


def test_a_phase_can_say_what_it_has_come_to() -> None:
    clock, listener = Clock(), Listener()
    phases = Phases(listener, clock)
    with phases.startup("start groups"):
        clock.now += 2
        phases.now("start policy, rollout")
        clock.now += 3
        phases.now("start rollout")
        clock.now += 4
    assert listener.heard == ["start groups", "start policy, rollout", "start rollout", None]
    assert phases.take()["time/startup_seconds"] == 9.0
