"""A vLLM engine that samples on while nobody calls it: one thread owns it, and does between two steps what it is asked."""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from ..errors import InvariantError
from ..progress import PROGRESS
from ..rollouts import GenerationRequest, Rollout, SamplingParameters
from .rollout import RolloutWorker
from .specs import EngineSpec

Class = TypeVar("Class", bound=type)


def _between_steps(worker_class: Class) -> Class:
    """A class whose public methods, inherited ones too, run in the engine's thread; generators see to it themselves."""
    for name, method in inspect.getmembers(worker_class, inspect.isfunction):
        if not name.startswith("_") and not inspect.isgeneratorfunction(method) and name != "answered":
            setattr(worker_class, name, _handed_over(method))
    return worker_class


def _handed_over(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def called(worker: ContinuousWorker, *arguments: Any) -> Any:
        return worker._do(method, worker, *arguments)

    return called


@_between_steps
class ContinuousWorker(RolloutWorker):
    """Requests stay in the engine when the weights change: those that run are preempted, and their KV cache is computed again
    under the new weights before they go on, so that every token is sampled by one version alone and its log-prob is that
    version's. The engine's thread is the only one that works, as `PROGRESS` wants it; the actor's own hands calls over.
    """

    def __init__(self, spec: EngineSpec, index: int) -> None:
        super().__init__(spec, index)
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._held = False
        """No step is made: weights are half new, or what runs is not for `answered`."""
        self._news = threading.Condition()
        self._answers: list[Rollout] = []
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._drive, name="engine", daemon=True)
        self._thread.start()

    def answered(
        self, requests: Sequence[GenerationRequest], sampling: SamplingParameters, seconds: float
    ) -> list[Rollout]:
        """Take `requests` in behind those that are under way; what has ended since the last call.

        Waits up to `seconds` where nothing has, unless nothing is under way or no step is made. Raises what made a step fail.
        """
        if requests:
            self._do(self._add, requests, sampling)
        with self._news:
            self._news.wait_for(
                lambda: self._answers or self._failure or self._held or not self._under_way, timeout=seconds
            )
            answers, self._answers = self._answers, []
        if self._failure is not None and not answers:
            raise self._failure
        return answers

    def cancel(self) -> dict[int, int]:
        """Take out what is under way, and what nobody has asked for; by `request_id`, the tokens that had been sampled."""
        states = self._llm.llm_engine.output_processor.request_states
        sampled = {
            request.request_id: states[internal].detokenizer.num_output_tokens()
            for internal, request in self._under_way.values()
        }
        self.abandon()
        with self._news:
            sampled |= {one.request_id: len(one.response_ids) for one in (*self._answers, *self._ended_beside)}
            self._answers, self._ended_beside = [], []
        return sampled

    def generate(self, requests: list[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """See `RolloutWorker.generate`; nothing else may be under way."""
        if self._under_way:
            raise InvariantError(f"rollout engine {self._index} was given a batch of its own while it answers others")
        self._do(self._hold, True)
        stream = super().generate(requests, sampling)
        try:
            while chunk := self._do(next, stream, None):
                yield chunk
        finally:
            self._do(stream.close)  # type: ignore[attr-defined]
            self._do(self._hold, False)

    def start_weight_update(self) -> None:
        """Open an update session between two steps; until its end none is made."""
        self._hold(True)
        super().start_weight_update()

    def finish_weight_update(self, version: int) -> None:
        """Close the session: tokens that are sampled from here on are of `version`."""
        super().finish_weight_update(version)
        self._hold(False)

    def _hold(self, held: bool) -> None:
        self._held = held

    def _idle_engine(self) -> Any:
        return self._llm.llm_engine  # what is under way stays there

    def _reset_prefix_cache(self) -> None:
        self._llm.reset_prefix_cache(reset_running_requests=True)

    def _do(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What the function returns or raises in the engine's thread, between two steps."""
        if threading.current_thread() is self._thread:
            return function(*arguments)
        result: Future[Any] = Future()

        def call() -> None:
            try:
                result.set_result(function(*arguments))
            except BaseException as error:  # it is the caller's
                result.set_exception(error)

        self._calls.put(call)
        return result.result()

    def _drive(self) -> None:
        while True:
            samples = bool(self._under_way) and not self._held
            try:
                self._calls.get(block=not samples)()
            except Empty:
                self._sample()
            with self._news:
                self._answers += self._ended_beside
                self._ended_beside = []
                self._news.notify_all()

    def _sample(self) -> None:
        try:
            with PROGRESS.call("sample"):
                self._ended_beside += self._step()
        except BaseException as error:  # `answered` raises it
            self._failure, self._held = error, True
