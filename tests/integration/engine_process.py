"""A rollout worker in a process of its own, for tests: vLLM's CPU worker changes torch for the whole process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.isolated import Isolated
from lrm_safety.settings import ModelSettings, Settings
from lrm_safety.workers.environment import engine_environment
from lrm_safety.workers.specs import EngineSpec


class _Engine:
    def __init__(self, spec: EngineSpec, continuous: bool) -> None:
        from lrm_safety.workers.continuous import ContinuousWorker
        from lrm_safety.workers.rollout import RolloutWorker

        self._worker = (ContinuousWorker if continuous else RolloutWorker)(spec, 0)
        self._worker.start()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return function(self._worker, *arguments)


class EngineProcess(Isolated):
    """Starts a RolloutWorker, or a `continuous` one; `run(function, ...)` calls `function(worker, ...)` there and returns its
    result."""

    def __init__(self, settings: Settings, *, continuous: bool = False) -> None:
        spec = EngineSpec.of(settings)
        super().__init__(_Engine, spec, continuous, environment=engine_environment(spec))
        self.wait()

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return self.call("run", function, *arguments)


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
