"""A plain object in a fresh process: vLLM, DeepSpeed and memory measurements each need one of their own."""

from __future__ import annotations

import faulthandler
import inspect
import multiprocessing
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any


class Isolated:
    """Makes `factory(*arguments)` in a spawned process; `call(method, ...)` runs one of its methods there.

    `environment` is set before that process imports anything. Raises RuntimeError with the child's traceback, and where no
    answer comes within `limit_seconds`: the child writes the stacks of its threads to stderr shortly before, and is then killed.
    """

    limit_seconds = 600.0

    def __init__(self, factory: Callable[..., Any], *arguments: Any, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, self.limit_seconds, factory, arguments), daemon=True
        )
        with _variables(environment):
            self._process.start()
        theirs.close()
        self._ready = False

    def __enter__(self) -> Isolated:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._process.join(10)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def wait(self) -> None:
        """Until the object is made."""
        if not self._ready:
            self._answer()
            self._ready = True

    def call(self, method: str, *arguments: Any) -> Any:
        """The result of one method; of a generator, all that it yields."""
        self.wait()
        self._connection.send((method, arguments, self.limit_seconds))
        return self._answer()

    def _answer(self) -> Any:
        if not self._connection.poll(self.limit_seconds):
            self._process.kill()
            raise RuntimeError(f"no answer from an isolated process within {self.limit_seconds:g} seconds")
        try:
            result, failure = self._connection.recv()
        except EOFError:
            self._process.join(10)
            raise RuntimeError(f"an isolated process died with exit code {self._process.exitcode}") from None
        if failure is not None:
            raise RuntimeError(failure)
        return result


def _serve(
    connection: Connection, limit_seconds: float, factory: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    faulthandler.dump_traceback_later(0.95 * limit_seconds)
    try:
        subject = factory(*arguments)
        connection.send((None, None))
    except Exception:
        connection.send((None, traceback.format_exc()))
        return
    while True:
        faulthandler.cancel_dump_traceback_later()
        try:
            method, arguments, limit_seconds = connection.recv()
        except (EOFError, OSError):  # the other side is done with us, in order or not
            return
        faulthandler.dump_traceback_later(0.95 * limit_seconds)
        try:
            result = getattr(subject, method)(*arguments)
            answer = (list(result) if inspect.isgenerator(result) else result, None)
        except Exception:
            answer = (None, traceback.format_exc())
        connection.send(answer)


@contextmanager
def _variables(variables: Mapping[str, str]) -> Iterator[None]:
    saved = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)
