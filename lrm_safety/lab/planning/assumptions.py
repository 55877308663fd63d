"""What a plan takes for granted, each with its source; every one can be set as plan.NAME=VALUE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...errors import ConfigError
from ...modeling.cards import PEAK_TFLOPS


def _assumed(default: float | None, source: str) -> Any:
    return field(default=default, metadata={"source": source})


@dataclass(frozen=True)
class Assumptions:
    """Figures that no configuration holds. None: worked out from the configuration, see `source` in the metadata."""

    gpu_memory_gib: float = _assumed(79.2, "H100 SXM of 80 GB: what a process can use")
    host_memory_gib: float | None = _assumed(
        None, "per node; not checked on CUDA unless set, this machine's on the CPU"
    )
    gpus: float | None = _assumed(None, "of the cluster; not checked unless set")
    prompt_tokens: float = _assumed(100.0, "assumed: STAR-1's questions are short")
    response_tokens: float | None = _assumed(None, "assumed: half of rollout.max_response_tokens")
    peak_tflops: float = _assumed(PEAK_TFLOPS["H100"], "H100 SXM, bfloat16 without sparsity (data sheet)")
    utilisation: float = _assumed(0.3, "assumed; prime-rl reports 0.147 to 0.361 for a 4 B model on 8 H200")
    generate_tokens_per_second: float | None = _assumed(
        None,
        "per GPU; assumed: 5,000 for 8 B parameters, inversely by size: the mean of a batch that thins out",
    )
    memory_tb_per_second: float = _assumed(3.35, "H100 SXM (data sheet): a decoding step reads all weights once")
    decode_overhead_ms: float = _assumed(4.0, "assumed: of a decoding step, beside reading the weights")
    host_copy_gib_per_second: float = _assumed(20.0, "assumed: colocated, to pinned host memory and back")
    sync_gib_per_second: float = _assumed(3.0, "assumed; verl reports 5.5 s for 8 B across nodes")
    cuda_context_gib: float = _assumed(2.5, "assumed: CUDA context, NCCL buffers, fragmentation")
    scorer_context_gib: float = _assumed(1.0, "assumed: CUDA context of a process without NCCL")
    engine_overhead_gib: float = _assumed(3.0, "assumed: vLLM's context, activations and CUDA graphs; stays in sleep")
    cpu_gflops: float = _assumed(50.0, "measured on two cores: the miniature's supervised training")
    model_config: str | None = field(default=None, metadata={"source": "config.json of the policy"})
    reward_config: str | None = field(default=None, metadata={"source": "config.json of the reward models"})


def split(arguments: Sequence[str]) -> tuple[list[str], Assumptions]:
    """(overrides for the configuration, assumptions) of the command line; raises ConfigError for an unknown plan.NAME."""
    overrides = [item for item in arguments if not item.startswith("plan.")]
    known = {item.name: item for item in fields(Assumptions)}
    given: dict[str, float | str] = {}
    for item in arguments:
        if not item.startswith("plan."):
            continue
        name, _, value = item.removeprefix("plan.").partition("=")
        if name not in known:
            raise ConfigError(f"plan.{name}: unknown; known: {', '.join(known)}")
        if name.endswith("_config"):
            given[name] = value
            continue
        try:
            given[name] = float(value)
        except ValueError as error:
            raise ConfigError(f"plan.{name}={value}: must be a number") from error
        if not 0 < float(value) < float("inf"):
            raise ConfigError(f"plan.{name}={value}: must be above 0")
    return overrides, replace(Assumptions(), **given)  # type: ignore[arg-type]
