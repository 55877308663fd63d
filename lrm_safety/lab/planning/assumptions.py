"""What a plan takes for granted, each with its source; every one can be set as plan.NAME=VALUE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...errors import ConfigError, nearest
from ...modeling.cards import PEAK_TFLOPS


def _assumed(default: float | None, source: str) -> Any:
    return field(default=default, metadata={"source": source})


_PROCESS = "measured on two cores: a process beside models and what they compute, on the CPU"


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
    step_ms: float | None = _assumed(
        None,
        "of an engine's step; worked out: decode_overhead_ms and reading the weights. With token_ms: beside its tokens",
    )
    token_ms: float | None = _assumed(
        None, "of each token that an engine makes, beside its step; with step_ms, instead of generate_tokens_per_second"
    )
    longest_response_tokens: float | None = _assumed(
        None, "of a rollout batch; assumed: rollout.max_response_tokens on CUDA"
    )
    response_spread: float = _assumed(
        0.5,
        "assumed: standard deviation of a response's length over its mean; fixed shares of several engines differ by it",
    )
    dropped_tokens: float | None = _assumed(
        None, "of a cut response, with algorithm.oversampling and max_staleness=0; assumed: response_tokens"
    )
    update_tflops: float | None = _assumed(None, "that a GPU, or core, reaches; worked out: peak_tflops x utilisation")
    logprobs_tflops: float | None = _assumed(None, "as update_tflops")
    reference_tflops: float | None = _assumed(None, "as update_tflops")
    reward_tflops: float | None = _assumed(None, "as update_tflops; of classifiers")
    reward_seconds: float = _assumed(
        0.0, "of a response in a worker, where rewards are no classifiers; assumed: they take no time"
    )
    update_overhead_seconds: float = _assumed(0.0, "of an update beside its operations; not counted unless set")
    score_tail_chunks: float = _assumed(
        1.0, "assumed: chunks (rollout.stream_chunk_size) that are scored when the last response has ended"
    )
    iteration_overhead_seconds: float = _assumed(0.0, "of the controller, an iteration; not counted unless set")
    startup_seconds: float = _assumed(0.0, "once; not counted unless set")
    evaluate_seconds: float = _assumed(0.0, "of one evaluation during training; not counted unless set")
    checkpoint_seconds: float = _assumed(0.0, "of one checkpoint; not counted unless set")
    cores: float | None = _assumed(None, "for all workers together, on the CPU; assumed: this machine's")
    memory_tb_per_second: float = _assumed(3.35, "H100 SXM (data sheet): a decoding step reads all weights once")
    decode_overhead_ms: float = _assumed(4.0, "assumed: of a decoding step, beside reading the weights")
    host_copy_gib_per_second: float = _assumed(20.0, "assumed: colocated, to pinned host memory and back")
    sync_gib_per_second: float = _assumed(3.0, "assumed; verl reports 5.5 s for 8 B across nodes")
    cuda_context_gib: float = _assumed(2.5, "assumed: CUDA context, NCCL buffers, fragmentation")
    scorer_context_gib: float = _assumed(1.0, "assumed: CUDA context of a process without NCCL")
    engine_overhead_gib: float = _assumed(3.0, "assumed: vLLM's context, activations and CUDA graphs; stays in sleep")
    cpu_gflops: float = _assumed(50.0, "measured on two cores: the miniature's supervised training")
    policy_process_gib: float = _assumed(0.5, f"{_PROCESS}; the policy's")
    rollout_process_gib: float = _assumed(0.85, f"{_PROCESS}; an engine's")
    reference_process_gib: float = _assumed(0.5, f"{_PROCESS}; the reference's")
    reward_process_gib: float = _assumed(0.55, f"{_PROCESS}; a reward worker's")
    disk_gib: float | None = _assumed(None, "free for run.directory; not checked unless set")
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
            near = nearest(name, known)
            meant = f"did you mean plan.{near}?" if near else f"known: {', '.join(known)}"
            raise ConfigError(f"unknown key plan.{name}; {meant}")
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


def changed(assumed: Assumptions) -> dict[str, Any]:
    """What is not as it is by default."""
    return {item.name: value for item in fields(assumed) if (value := getattr(assumed, item.name)) != item.default}


def with_rates(assumed: Assumptions, rates: Mapping[str, float]) -> Assumptions:
    """Assumptions in which these numbers are set."""
    return replace(assumed, **rates)  # type: ignore[arg-type]


SPEEDS = ("update_tflops", "logprobs_tflops", "reference_tflops", "reward_tflops")
INSTEAD = {
    "utilisation": SPEEDS,
    "peak_tflops": SPEEDS,
    "cpu_gflops": SPEEDS,
    "decode_overhead_ms": ("step_ms",),
    "memory_tb_per_second": ("step_ms",),
}
"""Assumptions that nothing reads once others are known."""


def overlaid(measured: Mapping[str, float], given: Assumptions) -> Assumptions:
    """What was measured, and above it what the user gave; raises ConfigError for what would then change nothing."""
    own = changed(given)
    for name, instead in INSTEAD.items():
        if name in own and all(one in measured for one in instead):
            raise ConfigError(
                f"plan.{name}: changes nothing with --from, which measured what it stands for; set "
                f"{' or '.join(f'plan.{one}' for one in instead)} instead, or leave it out"
            )
    kept = dict(measured)
    if "generate_tokens_per_second" in own:
        kept = {name: value for name, value in kept.items() if name not in ("step_ms", "token_ms")}
    return replace(Assumptions(), **kept | own)
