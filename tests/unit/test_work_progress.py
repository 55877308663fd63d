"""The counter of a process: only the work moves it, and it knows how long pieces of each kind took."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lrm_safety import progress
from lrm_safety.progress import Progress, tells_phases


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_pieces_are_counted_timed_and_sized_by_kind(clock: Clock) -> None:
    counter = Progress(clock)
    with counter.call("update"):
        for _ in counter.pieces([30.0, 10.0], "tokens", lambda size: size):
            clock.now += 4 if counter.read().size == 30 else 1
        with counter.piece("steps"):
            clock.now += 2
            now = counter.read()
            assert (now.phase, now.calls, now.done, now.unit, now.seconds, now.longest) == (
                "update",
                1,
                2,
                "steps",
                2,
                None,
            )
    clock.now += 7
    idle = counter.read()
    assert (idle.phase, idle.unit, idle.seconds) == ("", "", 7)
    with counter.call("update"):
        clock.now += 3
        between = counter.read()
        assert (between.unit, between.done, between.seconds, between.longest) == ("", 0, 3, 0)
        with counter.piece("tokens", 90, allowed=50):
            clock.now += 5
            now = counter.read()
    assert not idle.has_pieces and between.has_pieces
    assert (now.calls, now.size, now.seconds, now.longest, now.largest, now.allowed) == (2, 90, 5, 4, 30, 50)


def test_a_piece_that_fails_says_nothing_about_how_long_pieces_take(clock: Clock) -> None:
    counter = Progress(clock)
    with pytest.raises(ValueError), counter.call("update"), counter.piece("tokens"):
        clock.now += 1000
        raise ValueError
    with counter.call("update"), counter.piece("tokens"):
        assert counter.read().longest is None


class Worker:
    def outer(self) -> list[str]:
        return [progress.PROGRESS.read().phase, *self.inner()]

    def inner(self) -> list[str]:
        return [progress.PROGRESS.read().phase]

    def stream(self) -> Iterator[tuple[str, int]]:
        for _ in range(2):
            with progress.PROGRESS.piece("buckets"):
                now = progress.PROGRESS.read()
            yield now.phase, now.done


def test_public_methods_are_phases_and_a_generator_is_idle_while_nobody_asks(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "PROGRESS", Progress(clock))
    worker = tells_phases(type("Told", (Worker,), dict(vars(Worker))))()
    assert worker.outer() == ["outer", "outer"]
    assert worker.inner() == ["inner"]
    stream = worker.stream()
    assert next(stream) == ("stream", 0)
    assert progress.PROGRESS.read().phase == ""
    assert next(stream) == ("stream", 1)
    assert list(stream) == []
    assert progress.PROGRESS.read().phase == ""
    # A rank that yields is not ahead of those that do not: a call counts once, however often it goes on.
    assert progress.PROGRESS.read().calls == 3
