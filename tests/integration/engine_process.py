"""A rollout worker in a process of its own, for tests: vLLM's CPU worker changes torch for the whole process."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lrm_safety.settings import ModelSettings, Settings
from lrm_safety.workers.environment import engine_environment
from lrm_safety.workers.specs import EngineSpec

ANSWER_SECONDS = 120


class EngineProcess:
    """Starts a RolloutWorker; `run(function, ...)` calls `function(worker, ...)` there and returns its result."""

    def __init__(self, settings: Settings) -> None:
        spec = EngineSpec.of(settings)
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec), daemon=True)
        with _variables(engine_environment(spec)):
            self._process.start()
        theirs.close()
        self._answer()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._connection.send((function, arguments))
        return self._answer()

    def close(self) -> None:
        self._connection.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()

    def _answer(self) -> Any:
        assert self._connection.poll(ANSWER_SECONDS), "the engine process does not answer"
        result, error = self._connection.recv()
        if error is not None:
            raise error
        return result


def _serve(connection: Connection, spec: EngineSpec) -> None:
    from lrm_safety.workers.rollout import RolloutWorker

    worker = RolloutWorker(spec, 0)
    connection.send((worker.start(), None))
    while True:
        try:
            function, arguments = connection.recv()
        except EOFError:
            return
        try:
            answer = (function(worker, *arguments), None)
        except Exception as error:
            answer = (None, error)
        connection.send(answer)


@contextmanager
def _variables(variables: dict[str, str]) -> Iterator[None]:
    saved = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(saved)


def small_settings(model_folder: Path) -> Settings:
    """A CPU engine for a tiny float32 model: 32 + 32 tokens, chunks of 4."""
    settings = Settings(model=ModelSettings(name="tiny", path=str(model_folder), family="plain", dtype="float32"))
    settings.rollout.max_prompt_tokens = 32
    settings.rollout.max_response_tokens = 32
    settings.rollout.max_num_seqs = 8
    settings.rollout.stream_chunk_size = 4
    settings.rollout.kv_cache_bytes = 64 * 2**20
    settings.rollout.enforce_eager = True
    return settings
