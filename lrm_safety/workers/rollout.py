"""One vLLM engine: samples responses, takes new weights, scores sequences for the weight-sync probe."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import credentials
from ..errors import InvariantError
from ..modeling.distributed import memory_usage
from ..progress import PROGRESS, tells_phases
from ..quick_imports import release
from ..rollouts import GenerationRequest, Rollout, SamplingParameters, TokenIds, TokenValues
from ..weight_sync.backends import HOST_TENSORS, engine_backend
from .engine_start import engine_arguments, start_failure
from .specs import EngineSpec

if TYPE_CHECKING:
    from ..weight_sync.adapters import EngineAdapters
    from ..weight_sync.object_store import PackedBucket

TURN_SECONDS, FREE_TURN_SECONDS = 5.0, 0.05
"""The longest turn of a queue in which nothing ends: who waits for it may have something to save. And where a place is free, to
which requests may be on their way."""


@tells_phases
class RolloutWorker:
    """A vLLM engine in this process, driven step by step so that finished responses leave while others still generate.

    A rollout batch is a function of the weights and the requests alone: every request has its own seed, the prefix
    cache is emptied before each batch, and the engine is left idle after it. On the CPU another process repeats it bit
    for bit.

    The process needs the variables of `engine_environment` before it imports anything.
    """

    def __init__(self, spec: EngineSpec, index: int) -> None:
        self._spec = spec
        self._index = index
        self._on_gpu = spec.cluster.device == "cuda"
        self._llm: Any = None
        self._adapters: EngineAdapters | None = None
        self._emptied = False
        """Whether a sleep has dropped the weights, and no sync has brought others."""
        self._under_way: dict[str, tuple[str, GenerationRequest]] = {}
        """The engine's own id and the request, by the name that the engine's output has."""
        self._ended_beside: list[Rollout] = []
        """What ended in steps that were made for something else."""

    def start(self) -> str | None:
        """Load the model from `model.path`; its weights count as version 0.

        Returns why vLLM cannot apply the adapters of the spec, after which this worker has to be replaced by one without; None
        where it can, and where there are none.

        Raises:
            ConfigError: when vLLM refuses the arguments, for instance lengths above the model's limit.
            WorkerError: for what may pass: less of the GPU is free than asked for, since an earlier engine is still ending.
        """
        credentials.load()
        from vllm import LLM
        from vllm.exceptions import VLLMClientError

        if engine_backend(self._spec) == HOST_TENSORS:
            from ..weight_sync.engine import register

            register()
        if self._spec.lora is not None:
            from ..weight_sync.adapters import EngineAdapters

            self._adapters = EngineAdapters(self._spec.model, self._spec.lora)
        release()  # vLLM collects everything five times while it starts, seconds where the imports count
        try:
            arguments = engine_arguments(self._spec)
            if self._adapters and (obstacle := self._adapters.obstacle(arguments)):
                return obstacle
            self._llm = LLM(**arguments)
        except (ValueError, RuntimeError, VLLMClientError) as error:
            if self._adapters and (obstacle := self._adapters.refusal(error)):
                return obstacle
            raise start_failure(error, self._spec.rollout) from error
        self._llm.update_weight_version("0")
        return self._adapters.unserved(self._llm) if self._adapters else None

    def generate(self, requests: list[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Rollout]]:
        """Sample a response to every request.

        Yields chunks of `rollout.stream_chunk_size` rollouts (the last may be smaller) in the order in which they
        finish, which the weights, requests and seeds determine. A generator that is closed early or fails takes its
        requests out of the engine. `request_id`s must differ.
        """
        self._idle_engine()
        self._reset_prefix_cache()
        chunk_size = self._spec.rollout.stream_chunk_size
        chunk: list[Rollout] = []
        try:
            self._add(requests, sampling)
            while self._under_way:
                chunk += self._step()
                while len(chunk) >= chunk_size:
                    yield chunk[:chunk_size]
                    del chunk[:chunk_size]
            if chunk:
                yield chunk
        finally:
            self.abandon()

    def answer(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> list[Rollout]:
        """One turn of a queue: take `requests` in beside those that are under way, and go on until some are answered.

        Empty where nothing is under way, and where nothing ends for a while. Who begins a turn before it has read the last
        keeps the engine busy. What runs beside a response depends on time here, and with it the response's last bits.
        """
        if requests and not self._under_way:
            self._idle_engine()
            self._reset_prefix_cache()
        self._add(requests, sampling)
        rollouts: list[Rollout] = []
        full = len(self._under_way) >= self._spec.rollout.max_num_seqs
        end = time.monotonic() + (TURN_SECONDS if full else FREE_TURN_SECONDS)
        while self._under_way and not rollouts and time.monotonic() < end:
            rollouts = self._step()
        if rollouts and not self._under_way:
            self.abandon()
        return rollouts

    def abandon(self) -> None:
        """Take out what is under way, and leave the engine idle."""
        open_ids = [internal for internal, _ in self._under_way.values()]
        self._under_way.clear()
        self._clear(open_ids)

    @property
    def busy(self) -> bool:
        """Whether requests are under way."""
        return bool(self._under_way)

    def probe(self, sequences: list[TokenIds]) -> list[TokenValues]:
        """Score sequences with the weights the engine holds.

        Args:
            sequences: token ids [L], 2 <= L <= rollout.max_prompt_tokens + rollout.max_response_tokens.

        Returns:
            Per sequence float32 [L - 1]: the log-prob of tokens 1..L-1 given those before, at temperature 1.
        """
        from vllm import SamplingParams

        engine = self._idle_engine()
        parameters = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False, flat_logprobs=True)
        open_ids: dict[str, str] = {}
        results: dict[str, TokenValues] = {}
        names = [f"probe {position}" for position in range(len(sequences))]
        try:
            for name, sequence in zip(names, sequences, strict=True):
                open_ids[name] = engine.add_request(
                    name, _prompt(sequence), parameters, lora_request=self._lora_request
                )
            while open_ids:
                outputs = engine.step()
                for output in outputs:
                    if output.request_id in open_ids and output.finished:
                        del open_ids[output.request_id]
                        results[output.request_id] = np.asarray(output.prompt_logprobs.logprobs, dtype=np.float32)
                self._ended_beside += self._ended(outputs)
        finally:
            self._clear(list(open_ids.values()))
        return [results[name] for name in names]

    def init_weight_transfer(self, info: dict[str, Any]) -> None:
        """`nccl` and `ipc`: agree on the transfer with the trainer's sender; the dictionary is the backend's own."""
        self._llm.init_weight_transfer_engine({"init_info": info})

    def start_weight_update(self) -> None:
        """Open an update session; no rollout batch may be under way."""
        self._idle_engine()
        if self._adapters:
            self._adapters.begin()
        else:
            self._llm.start_weight_update()

    def update_weights(self, info: dict[str, Any]) -> None:
        """Take one piece of an update; the dictionary is the backend's own."""
        self._llm.update_weights({"update_info": info})

    def load_bucket(self, bucket: str | PackedBucket) -> None:
        """`shm` and `object_store`, and adapters alone: take one bucket, as trainer rank 0 publishes it.

        After a failure the engine is half-written: it must be replaced, not used.
        """
        from ..weight_sync import object_store, shm

        tensors = shm.read_bucket(bucket) if isinstance(bucket, str) else object_store.unpack(bucket)
        if self._adapters:
            self._adapters.take(tensors)
        else:
            self.update_weights({"tensors": tensors})

    def finish_weight_update(self, version: int) -> None:
        """Close the session: from here on rollouts carry `version`, and nothing cached under older weights is read."""
        if self._adapters:
            self._adapters.load(self._llm)
            self._llm.update_weight_version(str(version))
        else:
            self._llm.finish_weight_update(str(version))
        self._emptied = False
        self._reset_prefix_cache()

    def describe(self) -> str:
        """What vLLM made of the settings: KV cache, attention kernel, compilation, and on CUDA the GPU's memory."""
        config = self._llm.llm_engine.vllm_config
        cache, rollout = config.cache_config, self._spec.rollout
        tokens = cache.kv_cache_size_tokens or cache.num_gpu_blocks * cache.block_size
        length = rollout.max_prompt_tokens + rollout.max_response_tokens
        facts = [f"KV cache {tokens:,} tokens, {tokens / length:.1f} responses of full length"]
        if kernels := _attention_kernels(self._llm.llm_engine):
            facts.append(f"attention {', '.join(kernels)}")
        if self._adapters:
            facts.append("weights from model.path, of a sync LoRA adapters alone")
        facts.append("eager" if rollout.enforce_eager else "compiled, with CUDA graphs" if self._on_gpu else "compiled")
        if self._on_gpu and rollout.tensor_parallel_size == 1:
            import torch

            free, total = torch.cuda.mem_get_info()
            facts.append(f"{(total - free) / 2**30:.1f} of {total / 2**30:.1f} GiB of its GPU in use")
        return "; ".join(facts)

    def weights_version(self) -> int:
        """Version of the weights the engine holds."""
        return int(self._llm.get_weight_version())

    def close(self) -> None:
        """End the engine core, whose memory dropping the object alone may leave behind. An actor is killed instead."""
        if self._llm is not None:
            self._llm.llm_engine.engine_core.shutdown()
            self._llm = None

    def sleep(self) -> None:
        """CUDA: drop weights and KV cache. A sync, which sends every weight, comes before the next request; where it sends
        adapters alone, the weights go to host memory."""
        if self._on_gpu:
            self._emptied = self._spec.lora is None
            self._llm.sleep(level=2 if self._emptied else 1)

    def wake(self, tags: list[str]) -> None:
        """CUDA: take back memory of `weights`, and of the `kv_cache` once a sync has filled it."""
        if self._on_gpu:
            if self._emptied and "kv_cache" in tags:
                raise InvariantError(
                    f"rollout engine {self._index} was to generate with weights that its sleep dropped"
                )
            self._llm.wake_up(tags=tags)

    def memory(self) -> dict[str, float]:
        """`rss_gib`, `rss_peak_gib` and on CUDA `cuda_peak_gib` of this process, reserved blocks included."""
        figures = memory_usage()
        if self._on_gpu:
            import torch

            figures["cuda_peak_gib"] = torch.cuda.max_memory_reserved() / 2**30
        return figures

    def _add(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> None:
        for request in requests:
            name = str(request.request_id)
            if name in self._under_way:
                raise InvariantError("rollout: two requests of one batch have the same request_id")
            parameters = _sampling_parameters(sampling, request.seed)
            internal = self._llm.llm_engine.add_request(
                name, _prompt(request.prompt_ids), parameters, lora_request=self._lora_request
            )
            self._under_way[name] = internal, request

    @property
    def _lora_request(self) -> Any:
        """What tells vLLM to apply the adapters; None before the first sync and without adapters."""
        return self._adapters.request if self._adapters else None

    def _step(self) -> list[Rollout]:
        """One step of the engine: what ended with it."""
        with PROGRESS.piece("responses", len(self._under_way)):
            outputs = self._llm.llm_engine.step()
        return self._ended(outputs)

    def _ended(self, outputs: Sequence[Any]) -> list[Rollout]:
        """What of these outputs answers requests that were under way."""
        return [
            _rollout(self._under_way.pop(output.request_id)[1], output)
            for output in outputs
            if output.request_id in self._under_way
        ]

    def _idle_engine(self) -> Any:
        engine = self._llm.llm_engine
        if engine.has_unfinished_requests():
            raise InvariantError(f"rollout engine {self._index} was called while it still generates another batch")
        return engine

    def _reset_prefix_cache(self) -> None:
        if not self._llm.reset_prefix_cache():
            raise InvariantError(f"rollout engine {self._index} kept its prefix cache: blocks were still in use")

    def _clear(self, open_ids: list[str]) -> None:
        """Take out what is left, and step once more: the model runner forgets finished requests at the next step only.

        Rows left over from an earlier batch would change the order of the next one's rows, and with it the last bits.
        """
        engine = self._llm.llm_engine
        if open_ids:
            engine.abort_request(open_ids, internal=True)
        if self._spec.rollout.tensor_parallel_size == 1:  # an engine in other processes sends nothing while idle
            self._ended_beside += self._ended(engine.step())


def _attention_kernels(engine: Any) -> list[str]:
    """Names of the attention backends of an engine in this process; an engine in others does not tell."""
    try:
        groups = [
            one for several in engine.model_executor.driver_worker.worker.model_runner.attn_groups for one in several
        ]
    except AttributeError:  # vLLM has more than one executor and model runner, and none of them promises this
        return []
    return sorted({group.backend.get_name() for group in groups})


def _sampling_parameters(sampling: SamplingParameters, seed: int) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_response_tokens,
        stop_token_ids=list(sampling.stop_token_ids),
        seed=seed,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def _prompt(ids: TokenIds) -> Any:
    from vllm.inputs import tokens_input

    return tokens_input(ids.tolist())


def _rollout(request: GenerationRequest, output: Any) -> Rollout:
    completion = output.outputs[0]
    if completion.finish_reason not in ("stop", "length"):
        raise InvariantError(f"rollout: request {request.request_id} ended with {completion.finish_reason}")
    first, *others = completion.weight_versions
    return Rollout(
        request_id=request.request_id,
        prompt_index=request.prompt_index,
        prompt_ids=request.prompt_ids,
        response_ids=np.asarray(completion.token_ids, dtype=np.int32),
        logprobs=np.asarray(completion.logprobs.logprobs, dtype=np.float32),
        finish_reason=completion.finish_reason,
        weights_version=int(first.version),
        taken_over=tuple((span.start, int(span.version)) for span in others),
    )
