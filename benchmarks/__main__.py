"""`python -m benchmarks [--only KEY ...] [--strict] [overrides]`: measure, write outputs/bench/bench.json, show."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from . import (
    controller,
    demo,
    evaluation,
    generation,
    logprob_memory,
    messages,
    observation,
    packing,
    peers,
    scaling,
    start,
    sweep,
    sync,
    update,
)
from .figures import Context, Figure, NotInstalled, NotMeasured
from .report import Outcome, exit_status, show, write
from .system import Systems

DIRECTORY = Path("outputs/bench")

FIGURES = (
    Figure(
        "generation_ratio_miniature",
        "tokens/s through the rollout group / bare vLLM, miniature",
        0.95,
        ">=",
        generation.measure("miniature"),
    ),
    Figure(
        "update_ratio_miniature",
        "tokens/s of an update at one rank / bare transformers and torch, miniature",
        1.0,
        ">=",
        update.measure("miniature"),
    ),
    Figure("sync_seconds_miniature", "one weight sync, miniature", 0.15, "<=", sync.measure("miniature")),
    Figure(
        "generation_ratio",
        "tokens/s through the rollout group / bare vLLM, SmolLM2-135M",
        0.95,
        ">=",
        generation.measure("smollm2"),
    ),
    Figure(
        "update_ratio",
        "tokens/s of an update at one rank / bare transformers and torch, SmolLM2-135M",
        1.0,
        ">=",
        update.measure("smollm2"),
    ),
    Figure(
        "adapter_sync_ratio_miniature",
        "seconds of a sync of merged weights / of LoRA adapters alone, miniature",
        None,
        ">=",
        sync.measure_adapters("miniature"),
    ),
    Figure(
        "adapter_sync_ratio_smollm2",
        "seconds of a sync of merged weights / of LoRA adapters alone, SmolLM2-135M",
        None,
        ">=",
        sync.measure_adapters("smollm2"),
    ),
    Figure("sync_seconds_smollm2", "one weight sync, SmolLM2-135M", 1.0, "<=", sync.measure("smollm2")),
    Figure(
        "sync_fraction_smollm2",
        "share of a two-rank run's iteration that syncs, its checks included, SmolLM2-135M",
        0.03,
        "<=",
        peers.sync_fraction("smollm2"),
    ),
    Figure(
        "sync_object_store_seconds",
        "one weight sync between two raylets, SmolLM2-135M",
        None,
        "<=",
        sync.object_store_seconds,
    ),
    Figure(
        "sync_object_store_ratio",
        "bytes/s of that sync / of one plain put and get between the same raylets",
        0.5,
        ">=",
        sync.object_store_ratio,
    ),
    Figure(
        "packing_speedup",
        "tokens/s packed / padded, STAR-1 lengths, 8,192 tokens a micro-batch",
        1.5,
        ">=",
        packing.measure,
    ),
    Figure(
        "logprob_memory_ratio",
        "peak memory of log-probs and entropy / full logits, 4,096 x 49,152",
        0.35,
        "<=",
        logprob_memory.measure,
    ),
    Figure(
        "controller_fraction",
        "share of an iteration outside generation, scoring, training and sync",
        0.01,
        "<=",
        controller.measure,
    ),
    Figure(
        "scaling_batch",
        "processor seconds a token, 640 responses / 64, miniature",
        1.1,
        "<=",
        scaling.batch,
    ),
    Figure(
        "scaling_length",
        "processor seconds a token, 800 tokens a response / 80, over the model's operations a token, miniature",
        1.1,
        "<=",
        scaling.length,
    ),
    Figure(
        "scaling_engines",
        "processor seconds a token, 4 engines and 256 responses / 1 and 64, miniature",
        1.1,
        "<=",
        scaling.engines,
    ),
    Figure(
        "message_seconds_ratio",
        "processor seconds of the controller's thread an answer, 1,024 SIMULATED engines / 8",
        1.5,
        "<=",
        messages.ratio,
    ),
    Figure(
        "heartbeat_overhead",
        "processor seconds a second that the heartbeats of all workers take, miniature",
        0.01,
        "<=",
        observation.heartbeat_overhead,
    ),
    Figure(
        "prometheus_overhead",
        "seconds of a record's gauges / seconds of an iteration, miniature",
        0.01,
        "<=",
        observation.prometheus_overhead,
    ),
    Figure(
        "evaluation_generation_ratio",
        "tokens/s of an evaluation, responses saved / bare vLLM, SmolLM2-135M",
        0.90,
        ">=",
        evaluation.generation_ratio,
    ),
    Figure(
        "evaluation_mixed_length_ratio_miniature",
        "tokens/s of an evaluation's queue / one call of bare vLLM, log-normal lengths, miniature",
        0.95,
        ">=",
        evaluation.mixed_length_ratio("miniature"),
    ),
    Figure(
        "evaluation_mixed_length_ratio",
        "tokens/s of an evaluation's queue / one call of bare vLLM, log-normal lengths, SmolLM2-135M",
        0.95,
        ">=",
        evaluation.mixed_length_ratio("smollm2"),
    ),
    Figure(
        "grading_seconds",
        "MATH500's 500 gold answers graded against themselves",
        10.0,
        "<=",
        evaluation.grading_seconds,
    ),
    Figure(
        "sweep_ratio",
        "seconds of four SFT runs on one rank, miniature, two at a time / one at a time",
        0.65,
        "<=",
        sweep.ratio,
    ),
    Figure(
        "trl_ratio_miniature",
        "tokens/s from prompts to updated weights / TRL's, miniature",
        1.5,
        ">=",
        peers.trl_ratio("miniature"),
    ),
    Figure(
        "limit_ratio_miniature",
        "the same / bare vLLM and torch one after the other, miniature",
        0.9,
        ">=",
        peers.limit_ratio("miniature"),
    ),
    Figure(
        "trl_ratio_smollm2",
        "tokens/s from prompts to updated weights / TRL's, SmolLM2-135M on STAR-1",
        1.3,
        ">=",
        peers.trl_ratio("smollm2"),
    ),
    Figure(
        "limit_ratio_smollm2",
        "the same / bare vLLM and torch one after the other, SmolLM2-135M on STAR-1",
        0.9,
        ">=",
        peers.limit_ratio("smollm2"),
    ),
    Figure("first_update_seconds", "from the command to the first updates, miniature", 20.0, "<=", start.first_update),
    Figure("demo_seconds", "the demo, start to end", None, "<=", demo.measure("seconds")),
    Figure("demo_peak_rss_gib", "its peak memory, all processes, GiB", None, "<=", demo.measure("peak_rss_gib")),
)


def main(arguments: list[str] | None = None) -> int:
    """Measure; returns the exit status: 1 when a figure could not be measured (with --strict: or missed its target)."""
    options = parse(arguments)
    chosen = [figure for figure in FIGURES if not options.only or figure.key in options.only]
    console = Console(stderr=True)
    systems = Systems(options.threads, options.overrides)
    context = Context(systems, options.rounds, options.threads, options.output.parent.absolute(), options.peers)
    outcomes = []
    try:
        for figure in chosen:
            console.print(f"measuring {figure.key}")
            outcomes.append(measured(figure, context))
            write(options.output, outcomes[-1:], options.threads)
    finally:
        systems.end()
    show(outcomes)
    return exit_status(outcomes, strict=options.strict)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    keys = [figure.key for figure in FIGURES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", metavar="KEY", choices=keys, help=f"one of: {', '.join(keys)}")
    parser.add_argument("--strict", action="store_true", help="exit 1 when a target is missed")
    parser.add_argument("--rounds", type=int, default=3, help="recorded rounds of each comparison (3)")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="OpenMP threads of each side")
    parser.add_argument("--output", type=Path, default=DIRECTORY / "bench.json", help="the file to write")
    parser.add_argument("--peers", type=Path, default=Path(sys.prefix, "peers"), help="what `make peers` made")
    parser.add_argument("overrides", nargs="*", help="configuration overrides, such as cluster=node_8gpu_split")
    return parser.parse_args(arguments)


def measured(figure: Figure, context: Context) -> Outcome:
    """One figure. Whatever goes wrong ends that figure alone."""
    begin = time.monotonic()
    measurement, reason, excused = None, "", False
    try:
        measurement = figure.measure(context)
    except NotMeasured as error:
        reason, excused = str(error), isinstance(error, NotInstalled)
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[-1] if str(error).strip() else ''}"[:300]
        context.systems.end()
    return Outcome(figure, measurement, reason, time.monotonic() - begin, os.getloadavg()[0], excused)


if __name__ == "__main__":
    sys.exit(main())
