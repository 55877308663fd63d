"""Many calls, few batches, and nobody left waiting."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from lrm_safety.errors import InvariantError, JudgeError
from lrm_safety.evaluation import batcher as module
from lrm_safety.evaluation.batcher import Batcher

Resolve = Callable[[int, int], None]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET_SECONDS", 0.03)


class Work:
    """Squares, last item first, and keeps the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()

    def __call__(self, items: list[int], resolve: Resolve) -> None:
        self.batches.append(items)
        self.threads.add(threading.get_ident())
        for position in reversed(range(len(items))):
            resolve(position, items[position] ** 2)


def run(awaitable: Awaitable[Any]) -> Any:
    async def limited() -> Any:
        return await asyncio.wait_for(awaitable, 10)

    return asyncio.run(limited())


def test_open_calls_are_one_batch_and_each_gets_its_own() -> None:
    work = Work()

    async def go() -> list[int]:
        batcher: Batcher[int, int] = Batcher(work)
        return list(await asyncio.gather(*(batcher(n) for n in range(50))))

    assert run(go()) == [n * n for n in range(50)]
    assert work.batches == [list(range(50))]
    assert threading.get_ident() not in work.threads, "the event loop must stay free"


def test_calls_that_trickle_in_are_waited_for() -> None:
    work = Work()

    async def go() -> list[int]:
        batcher: Batcher[int, int] = Batcher(work)

        async def late(n: int) -> int:
            await asyncio.sleep(0.01 * n)
            return await batcher(n)

        return list(await asyncio.gather(*(late(n) for n in range(5))))

    assert run(go()) == [0, 1, 4, 9, 16] and work.batches == [[0, 1, 2, 3, 4]]


def test_what_comes_meanwhile_is_the_next_batch() -> None:
    begun, batches = threading.Event(), []

    def work(items: list[int], resolve: Resolve) -> None:
        batches.append(items)
        begun.set()
        time.sleep(0.15)
        for position, item in enumerate(items):
            resolve(position, -item)

    async def go() -> list[int]:
        batcher: Batcher[int, int] = Batcher(work)
        first = asyncio.create_task(batcher(1))
        await asyncio.to_thread(begun.wait, 5)
        return [await batcher(2), await first, await batcher(3)]

    assert run(go()) == [-2, -1, -3] and batches == [[1], [2], [3]]


def test_a_result_is_given_as_soon_as_it_is_known() -> None:
    release = threading.Event()

    def work(items: list[int], resolve: Resolve) -> None:
        resolve(1, 11)
        assert release.wait(5)
        resolve(0, 10)

    async def go() -> tuple[int, bool, int]:
        batcher: Batcher[int, int] = Batcher(work)
        slow, quick = asyncio.create_task(batcher(0)), asyncio.create_task(batcher(1))
        known, was_open = await quick, not slow.done()
        release.set()
        return known, was_open, await slow

    assert run(go()) == (11, True, 10)


def test_an_error_reaches_every_caller_without_a_result_and_the_next_batch_works() -> None:
    work = Work()

    def failing(items: list[int], resolve: Resolve) -> None:
        if items == [0, 1]:
            resolve(0, 99)
            raise JudgeError("endpoint is down")
        work(items, resolve)

    async def go() -> tuple[list[Any], int]:
        batcher: Batcher[int, int] = Batcher(failing)
        both = await asyncio.gather(batcher(0), batcher(1), return_exceptions=True)
        return both, await batcher(5)

    (first, second), later = run(go())
    assert first == 99 and isinstance(second, JudgeError) and later == 25


def test_a_forgotten_item_is_an_error_and_no_endless_wait() -> None:
    async def go() -> list[Any]:
        batcher: Batcher[int, int] = Batcher(lambda items, resolve: resolve(0, 1))
        return list(await asyncio.gather(batcher(0), batcher(1), return_exceptions=True))

    first, second = run(go())
    assert first == 1 and isinstance(second, InvariantError)


def test_a_cancelled_caller_disturbs_nobody() -> None:
    begun, release = threading.Event(), threading.Event()

    def work(items: list[int], resolve: Resolve) -> None:
        begun.set()
        assert release.wait(5)
        for position, item in enumerate(items):
            resolve(position, item)

    async def go() -> tuple[int, bool]:
        batcher: Batcher[int, int] = Batcher(work)
        one, other = asyncio.create_task(batcher(1)), asyncio.create_task(batcher(2))
        await asyncio.to_thread(begun.wait, 5)
        one.cancel()
        await asyncio.sleep(0)
        release.set()
        return await other, one.cancelled()

    assert run(go()) == (2, True)


def test_one_batcher_serves_one_event_loop_after_another() -> None:
    work = Work()
    batcher: Batcher[int, int] = Batcher(work)
    assert run(batcher(3)) == 9 and run(batcher(4)) == 16 and work.batches == [[3], [4]]
