"""The engines of an evaluation: one in this process, or several as actors of Ray."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import ClusterError, ModelError, first_line
from ..rollouts import GenerationRequest, Rollout, SamplingParameters
from ..settings import ClusterSettings, GroupSettings, ModelSettings, RolloutSettings
from ..settings.types import AutoDevice, Device
from ..workers.environment import engine_environment
from ..workers.specs import EngineSpec

if TYPE_CHECKING:
    from ..workers.groups import RolloutOnly
    from ..workers.rollout import RolloutWorker
    from ..workers.rollout_group import RolloutGroup

CPU_KV_CACHE_BYTES = 2**30
CPU_MAX_NUM_SEQS = 64


def resolve_device(device: AutoDevice) -> Device:
    """`auto` is cuda where torch sees a GPU, otherwise cpu."""
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def engine_spec(
    model: ModelSettings,
    rollout: RolloutSettings,
    *,
    device: Device,
    seed: int,
    max_prompt_tokens: int,
    max_response_tokens: int,
    num_engines: int = 1,
) -> EngineSpec:
    """The engines of an evaluation; their context is the longest prompt and response of the evaluation."""
    rollout = replace(rollout, max_prompt_tokens=max_prompt_tokens, max_response_tokens=max_response_tokens)
    if device == "cpu":
        rollout = replace(
            rollout,
            enforce_eager=True,
            kv_cache_bytes=rollout.kv_cache_bytes or CPU_KV_CACHE_BYTES,
            max_num_seqs=min(rollout.max_num_seqs, CPU_MAX_NUM_SEQS),
        )
    cores = len(os.sched_getaffinity(0))
    engines = GroupSettings(
        num_workers=num_engines,
        gpus_per_worker=1.0 if device == "cuda" else 0.0,
        threads_per_worker=max(1, cores // num_engines),
    )
    cluster = ClusterSettings(name="evaluation", device=device, local_num_cpus=max(cores, num_engines), rollout=engines)
    return EngineSpec(model, rollout, cluster, seed)


class Engine:
    """Starts at the first batch, so that an evaluation with nothing left to generate loads no model."""

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._worker: RolloutWorker | None = None

    def generate(self, requests: list[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """Rollouts as they end, now and then none. Raises ConfigError when vLLM refuses the settings."""
        worker = self._started()
        try:
            yield worker.answer(requests, sampling)
            while worker.busy:
                yield worker.answer((), sampling)
        finally:
            worker.abandon()

    def generate_batches(
        self, batches: Sequence[Sequence[GenerationRequest]], sampling: SamplingParameters
    ) -> Iterator[list[Rollout]]:
        """Chunks of one batch after the other."""
        for batch in batches:
            yield from self._started().generate(list(batch), sampling)

    def _started(self) -> RolloutWorker:
        from ..workers.rollout import RolloutWorker

        if self._worker is None:
            os.environ |= engine_environment(self._spec)
            worker = RolloutWorker(self._spec, 0)
            worker.start()
            self._worker = worker
        return self._worker

    def close(self) -> None:
        """Give the memory back, so that a judge's model finds room."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
        free_memory()


class EngineGroup:
    """Several engines, each a Ray actor; started at the first batch, like the one."""

    def __init__(self, spec: EngineSpec, on_replacement: Callable[[str], None] = lambda line: None) -> None:
        self._spec, self._on_replacement = spec, on_replacement
        self._groups: RolloutOnly | None = None

    def generate(self, requests: list[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """Rollouts as they end, now and then none; the engines share one queue."""
        yield from self._rollout().generate_from_queue(requests, sampling)

    def generate_batches(
        self, batches: Sequence[Sequence[GenerationRequest]], sampling: SamplingParameters
    ) -> Iterator[list[Rollout]]:
        """Chunks of all batches, each of which one engine answers alone."""
        yield from self._rollout().generate_batches(batches, sampling)

    def close(self) -> None:
        """End the engines, and Ray."""
        groups, self._groups = self._groups, None
        if groups is not None:
            groups.end()

    def _rollout(self) -> RolloutGroup:
        from ..workers.groups import RolloutOnly, join_ray

        if self._groups is None:
            before = signal.getsignal(signal.SIGTERM)
            join_ray(self._spec.cluster)
            signal.signal(
                signal.SIGTERM, before
            )  # Ray sets one of its own, which would end this in the middle of a file
            groups = RolloutOnly(self._spec, on_replacement=self._on_replacement)
            try:
                groups.start()
            except ClusterError as error:
                number = self._spec.cluster.rollout.num_workers
                error.add_note(f"run.num_engines={number} asked for these engines")
                raise
            self._groups = groups
        return self._groups.rollout


def free_memory() -> None:
    """Give back what nobody refers to any more."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def context_tokens(path: str, revision: str | None, trust_remote_code: bool) -> int | None:
    """Tokens of the model's context; None when its configuration does not say. Raises ModelError when there is none."""
    from transformers import AutoConfig

    from ..modeling.folder import ahead

    try:
        config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.path={path}: has no configuration that can be read ({first_line(error)}){ahead(path)}"
        ) from error
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None
