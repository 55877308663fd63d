"""`lrm-safety plan`: memory per GPU, tokens and expected hours of a run, before anything is started."""

from __future__ import annotations

from dataclasses import fields

import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..lab.planning.assumptions import split
from ..lab.planning.duration import generate_speed
from ..lab.planning.memory import GIB
from ..lab.planning.plan import Plan, make_plan, refuse_what_cannot_fit
from ..modeling.shapes import num_parameters
from ..settings import Settings
from ..settings.compose import TRAIN
from .launch import parse


def plan(arguments: list[str]) -> int:
    """Print the plan of `[group=OPTION ...] [key=value ...] [plan.NAME=VALUE ...]`; raises ConfigError for what cannot fit."""
    overrides, assumed = split(arguments)
    given = parse(overrides, TRAIN)
    settings, _ = TRAIN.compose(given.overrides, given.folders)
    planned = make_plan(settings, assumed)
    console = Console()
    show(planned, settings, console)
    refuse_what_cannot_fit(planned, settings, psutil.virtual_memory().total)
    console.print("It fits, by this arithmetic.")
    return 0


def show(planned: Plan, settings: Settings, console: Console) -> None:
    """Models, memory, tokens and time, assumptions."""
    shape = planned.policy
    console.print(
        f"policy {shape.name}: {num_parameters(shape) / 1e9:.3f} B parameters ({shape.source})", highlight=False
    )
    for name, reward in planned.rewards.items():
        console.print(
            f"reward {name}: {reward.name}, {num_parameters(reward) / 1e9:.3f} B ({reward.source})", highlight=False
        )
    console.print(_memory_table(planned, settings))
    for share in planned.shares:
        both = f", {share.generating_bytes / GIB:.1f} GiB while generating" if len(share.groups) > 1 else ""
        console.print(
            f"GPU of {' + '.join(share.groups)}, {share.num_gpus} of them: {share.training_bytes / GIB:.1f} GiB"
            f"{' while training' if both else ''}{both}, of {planned.assumed.gpu_memory_gib:g}",
            highlight=False,
        )
    full = planned.kv_tokens / planned.sequence_tokens
    console.print(
        f"KV cache of an engine: {planned.kv_tokens:,} tokens, {full:.1f} responses of full length at a time",
        highlight=False,
    )
    console.print(_time_table(planned, settings))
    console.print(_assumptions_table(planned, settings))


def _memory_table(planned: Plan, settings: Settings) -> Table:
    where = "each GPU" if settings.cluster.device == "cuda" else "each worker, host memory"
    table = Table(title=f"memory of {where}, GiB", box=SIMPLE_HEAD, pad_edge=False)
    for heading, justify in (("group", "left"), ("workers", "right"), ("part", "left"), ("GiB", "right")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for name, group in planned.groups.items():
        for i, (part, size) in enumerate(group.parts.items()):
            table.add_row("" if i else name, "" if i else str(group.num_workers), part, f"{size / GIB:.2f}")
        table.add_row("", "", "total", f"{group.total / GIB:.2f}")
        if group.host_bytes:
            table.add_row("", "", "in host memory, offloaded", f"{group.host_bytes / GIB:.2f}")
        table.add_section()
    return table


def _time_table(planned: Plan, settings: Settings) -> Table:
    time = planned.duration
    table = Table(title="tokens and time", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("updates, iterations", f"{time.updates:,}, {time.iterations:,}")
    table.add_row("responses an iteration", f"{time.responses_per_iteration:,}")
    table.add_row("tokens of an update, prompts included", f"{time.trained_tokens_per_update:,.0f}")
    table.add_row("tokens generated in all", f"{time.generated_tokens:,.0f}")
    for name, seconds in time.seconds.items():
        overlap = ", overlaps generate" if name == "score" else ""
        table.add_row(f"{name}, seconds an iteration{overlap}", f"{seconds:,.2f}")
    table.add_row("hours in all (without evaluation, checkpoints, start)", f"{time.hours:,.2f}")
    if settings.cluster.device == "cuda":
        table.add_row(f"GPU-hours on {planned.num_gpus:g} GPUs", f"{planned.gpu_hours:,.1f}")
    return table


def _assumptions_table(planned: Plan, settings: Settings) -> Table:
    table = Table(title="assumptions (plan.NAME=VALUE changes one)", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "value", "source"):
        table.add_column(heading, overflow="fold")
    active = planned.policy.active_parameters or num_parameters(planned.policy)
    worked_out = {
        "response_tokens": planned.duration.generated_tokens_per_iteration / planned.duration.responses_per_iteration,
        "generate_tokens_per_second": generate_speed(settings, active, planned.assumed),
    }
    of_cuda = {"gpu_memory_gib", "gpus", "peak_tflops", "utilisation", "cuda_context_gib", "engine_overhead_gib"}
    on_cpu = settings.cluster.device == "cpu"
    for item in fields(planned.assumed):
        value = getattr(planned.assumed, item.name)
        source = item.metadata["source"]
        if value != item.default:
            source = "given"
        elif on_cpu and item.name == "generate_tokens_per_second":
            source = "per engine; measured on two cores: SmolLM2-135M 100, inversely by size, at most 3,000"
        if item.name in (of_cuda if on_cpu else {"cpu_gflops"}) or (value is None and item.name not in worked_out):
            continue
        value = worked_out.get(item.name, value)
        table.add_row(item.name, f"{value:,.4g}" if isinstance(value, float) else str(value), source)
    return table
