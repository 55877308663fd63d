"""What a vLLM engine is started with, and why it did not start."""

from __future__ import annotations

from typing import Any

from ..errors import ConfigError, LrmSafetyError, WorkerError
from ..settings import RolloutSettings
from ..weight_sync.backends import engine_backend, is_colocated
from .specs import EngineSpec


def engine_arguments(spec: EngineSpec) -> dict[str, Any]:
    """Arguments of `vllm.LLM`; `rollout.engine` is laid over ours.

    Ids in and ids out need no tokenizer; `generation_config="vllm"` keeps the checkpoint's sampling defaults out.
    """
    from vllm.config import WeightTransferConfig

    model, rollout = spec.model, spec.rollout
    arguments: dict[str, Any] = {
        "model": model.path,
        "revision": model.revision,
        "trust_remote_code": model.trust_remote_code,
        "dtype": model.dtype,
        "seed": spec.seed,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        # The files that the trainer reads, not Mistral's own that may lie beside them, nor pickles.
        "load_format": "safetensors",
        "config_format": "hf",
        # The distribution that is sampled from, temperature included: what the trainer computes as well.
        "logprobs_mode": "processed_logprobs",
        "max_model_len": rollout.max_prompt_tokens + rollout.max_response_tokens,
        "max_num_seqs": rollout.max_num_seqs,
        "tensor_parallel_size": rollout.tensor_parallel_size,
        "enforce_eager": rollout.enforce_eager,
        "enable_prefix_caching": rollout.enable_prefix_caching,
        "weight_transfer_config": WeightTransferConfig(backend=engine_backend(spec)),
    }
    if rollout.tensor_parallel_size > 1:
        # Inside a placement group vLLM would choose Ray, whose bundles must hold one GPU each.
        arguments["distributed_executor_backend"] = "mp"
    else:
        from .engine_executor import InMemoryRendezvous

        arguments["distributed_executor_backend"] = InMemoryRendezvous
    if rollout.max_num_batched_tokens is not None:
        arguments["max_num_batched_tokens"] = rollout.max_num_batched_tokens
    if rollout.kv_cache_bytes is not None:
        arguments["kv_cache_memory_bytes"] = rollout.kv_cache_bytes
    if spec.cluster.device == "cpu":
        # vLLM 0.32 cannot cut the prefill of a request with a seed in two on the CPU: the step that throws the early
        # sample away winds the generator back, which only CUDA's can do ("CPU Generator does not use offset").
        arguments["enable_chunked_prefill"] = False
        if rollout.enable_prefix_caching and _has_mamba_layers(arguments):
            # vLLM caches Mamba states at the ends of prefill chunks only.
            arguments["enable_prefix_caching"] = False
    else:
        arguments["gpu_memory_utilization"] = rollout.gpu_memory_utilization
        arguments["enable_sleep_mode"] = is_colocated(spec.cluster)
    if spec.lora is not None:
        from ..weight_sync.adapters import lora_arguments

        arguments |= lora_arguments(model, spec.lora)
    return arguments | rollout.engine


def start_failure(error: Exception, rollout: RolloutSettings) -> LrmSafetyError:
    """Whether a change of the settings is needed (ConfigError), or the engine may start another time (WorkerError)."""
    line = " ".join(str(error).split())
    if "Free memory on device" in line:
        share = rollout.gpu_memory_utilization
        return WorkerError(
            f"rollout.gpu_memory_utilization={share:g}: lower it, or end what else is on the GPU: {line}"
        )
    if "Engine core initialization failed" in line:
        return WorkerError(f"rollout: {line} tracking.worker_logs=true shows what the engine's own processes say")
    if isinstance(error, RuntimeError):
        return WorkerError(f"rollout: the engine does not start: {type(error).__name__}: {line}")
    return ConfigError(f"rollout, model: vLLM refuses these settings: {line}")


def _has_mamba_layers(arguments: dict[str, Any]) -> bool:
    from vllm.engine.arg_utils import EngineArgs

    return bool(EngineArgs(**arguments).create_model_config().is_hybrid)
