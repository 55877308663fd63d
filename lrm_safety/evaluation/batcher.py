"""Turn many single asynchronous calls into few batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..errors import InvariantError

Item = TypeVar("Item")
Result = TypeVar("Result")

QUIET_SECONDS = 0.2


class Batcher(Generic[Item, Result]):
    """Collects the calls that are open at the same time and works them off together, in a thread.

    A batch starts once no further call has come for `QUIET_SECONDS`; what comes meanwhile is the next batch.
    """

    def __init__(self, work: Callable[[list[Item], Callable[[int, Result], None]], None]) -> None:
        """`work(items, resolve)` calls `resolve(position, result)` once for every item, as soon as it is known."""
        self._work = work
        self._open: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Result:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._open.append((item, future))
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run(loop))
        return await future

    async def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        while self._open:
            known = 0
            while known != len(self._open):
                known = len(self._open)
                await asyncio.sleep(QUIET_SECONDS)
            batch, self._open = self._open, []
            futures = [future for _, future in batch]

            def resolve(position: int, result: Result, futures: list[asyncio.Future[Result]] = futures) -> None:
                loop.call_soon_threadsafe(_set_result, futures[position], result)

            try:
                await asyncio.to_thread(self._work, [item for item, _ in batch], resolve)
            except Exception as error:  # its callers see it; this task must live for the next batch
                _fail(futures, error)
            else:
                _fail(futures, InvariantError("a batch was worked off without a result for every item"))


def _fail(futures: list[asyncio.Future[Any]], error: Exception) -> None:
    """Tell every caller that has no result: one that is never told would wait for ever."""
    for future in futures:
        if not future.done():
            future.set_exception(error)


def _set_result(future: asyncio.Future[Result], result: Result) -> None:
    if not future.done():  # its caller may have been cancelled
        future.set_result(result)
