"""`lrm-safety plan`: memory, tokens and hours of a run before anything is started, by arithmetic or by what another run took."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import psutil
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..errors import ConfigError, nearest
from ..files import amount
from ..lab.planning import reality
from ..lab.planning.asked import asked_for
from ..lab.planning.assumptions import INSTEAD, Assumptions, changed, overlaid, split
from ..lab.planning.calibration import Calibration, calibrate, carried
from ..lab.planning.memory import GIB
from ..lab.planning.observed import Observed, observe
from ..lab.planning.plan import Plan, make_plan, refuse_what_cannot_fit
from ..lab.planning.sampling import generate_speed
from ..modeling.shapes import num_parameters
from ..settings import Settings
from ..settings.compose import TRAIN
from .launch import parse
from .words import unknown_word

RUNS = ("--from", "--against")
"""Flags that name a run."""
BESIDE = {"evaluation": "evaluate", "checkpoints": "checkpoint", "start": "startup"}
"""What is counted where its seconds are known, in words."""


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    overrides: list[str]
    given: Assumptions
    rates_of: Path | None = None
    """--from: the run whose rates count."""
    against: Path | None = None
    """--against: the run that the plan is compared with."""


def plan(arguments: list[str]) -> int:
    """Print the plan of `[--from RUN] [--against RUN] [group=OPTION ...] [key=value ...] [plan.NAME=VALUE ...]`; raises
    ConfigError for what cannot fit, and for a RUN that tells nothing."""
    request = _request(arguments)
    parsed = parse(request.overrides, TRAIN)
    console = Console()
    source = observe(request.rates_of) if request.rates_of else None
    if request.against is not None:
        if parsed.overrides:
            raise ConfigError(
                f"{parsed.overrides[0]}: with --against the plan is that of the run it is compared with; leave overrides out"
            )
        seen = observe(request.against, "--against")
        _tell(seen, console)
        _compare(seen, source, request.given, console)
        return 0
    if source is None:
        settings = TRAIN.compose(parsed.overrides, parsed.folders)[0]
        planned = make_plan(settings, request.given)
        rates: Calibration | None = None
    else:
        settings = asked_for(asdict(source.settings), parsed.overrides, parsed.folders)
        own = _own(request.given, same_model=settings.model.path == source.settings.model.path)
        rates = carried(calibrate(source, own), source, settings, request.given)
        _tell(source, console)
        _compare(source, None, own, console)
        for note in rates.notes:
            console.print(f"note: {note}", highlight=False)
        planned = make_plan(settings, overlaid(rates.measured, request.given))
    measured = set(rates.measured) - changed(request.given).keys() if rates else set()
    show(planned, settings, console, measured, source)
    refuse_what_cannot_fit(planned, settings, psutil.virtual_memory().total)
    console.print("It fits, by this arithmetic.")
    return 0


def _request(arguments: Sequence[str]) -> Request:
    rest: list[str] = []
    folders: dict[str, Path] = {}
    words = iter(arguments)
    for word in words:
        flag, separator, value = word.partition("=")
        if flag not in RUNS:
            if flag.startswith("--") and nearest(flag, RUNS, 0.8):  # others are Hydra's
                raise unknown_word("plan", word, RUNS, "")
            rest.append(word)
            continue
        folder = value if separator else next(words, "")
        if not folder or (not separator and (folder.startswith("-") or ("=" in folder and not Path(folder).is_dir()))):
            raise ConfigError(f"{flag}: wants the folder of a run, such as {flag} outputs/miniature")
        if flag in folders:
            raise ConfigError(f"{flag}: is given twice; give one run")
        folders[flag] = Path(folder)
    overrides, given = split(rest)
    return Request(overrides, given, folders.get("--from"), folders.get("--against"))


def _own(given: Assumptions, *, same_model: bool) -> Assumptions:
    """Of what the user gave, that which is true of the run that is read as well: its machine, and its models' sizes."""
    kept = {"cores", "gpu_memory_gib", "reward_config"} | ({"model_config"} if same_model else set())
    return replace(Assumptions(), **{name: value for name, value in changed(given).items() if name in kept})


def _tell(run: Observed, console: Console) -> None:
    """Which run it is, and how much of it is used."""
    planned = run.settings.schedule.max_updates
    how_far = f"{run.updates} of {planned} updates" if run.updates < planned else f"all {planned} updates"
    used = f"{len(run.records)} of its {run.num_records} iterations"
    first = " (the first is left out)" if len(run.records) < run.num_records else ""
    console.print(
        f"{run.folder}: {how_far}, {used} used{first}; {run.settings.cluster.name}, {run.settings.cluster.device}",
        highlight=False,
    )


def _compare(run: Observed, source: Observed | None, given: Assumptions, console: Console) -> None:
    """A run beside its plan by arithmetic, and beside that by the rates of another run."""
    plans = {"planned": make_plan(run.settings, given)}
    if source is not None:
        own = _own(given, same_model=run.settings.model.path == source.settings.model.path)
        rates = carried(calibrate(source, own), source, run.settings, given)
        for note in rates.notes:
            console.print(f"note: {note}", highlight=False)
        plans[f"by {source.folder.name}"] = make_plan(run.settings, overlaid(rates.measured, given))
    for title, lines in (
        ("seconds of an iteration: planned, and seen", reality.seconds),
        ("memory of the largest worker, GiB: planned, and seen", reality.memory),
    ):
        table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("")
        for name in plans:
            table.add_column(name, justify="right")
            table.add_column("error", justify="right")
        table.add_column("seen", justify="right")
        for row in zip(*(lines(one, run) for one in plans.values()), strict=True):
            cells = [cell for one in row for cell in (f"{one.planned:,.3f}", _percent(one.error))]
            table.add_row(row[0].name, *cells, f"{row[0].seen:,.3f}")
        if table.row_count:
            console.print(table)


def _percent(error: float | None) -> str:
    return "" if error is None else f"{100 * error:+.0f} %"


def show(
    planned: Plan,
    settings: Settings,
    console: Console,
    measured: Collection[str] = (),
    source: Observed | None = None,
) -> None:
    """Models, memory, disk, tokens and time, assumptions, of which those `measured` are of `source`."""
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
    console.print(_disk_table(planned))
    console.print(_time_table(planned, settings))
    console.print(_assumptions_table(planned, settings, measured, source))


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


def _disk_table(planned: Plan) -> Table:
    table = Table(title="disk of the run's folder", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("")
    table.add_column("", justify="right")
    for part, size in planned.disk.parts.items():
        if size:
            table.add_row(part, amount(size))
    table.add_row("in all, when it is fullest", amount(planned.disk.total))
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
    if time.sampled_tokens_per_iteration > time.generated_tokens_per_iteration:
        thrown = time.sampled_tokens_per_iteration - time.generated_tokens_per_iteration
        table.add_row("tokens thrown away an iteration (algorithm.oversampling)", f"{thrown:,.0f}")
    ahead = settings.algorithm.max_staleness > 0
    for name, seconds in time.seconds.items():
        overlap = (
            ", overlaps generate" if name == "score" else ", overlaps the rest" if name == "generate" and ahead else ""
        )
        table.add_row(f"{name}, seconds an iteration{overlap}", f"{seconds:,.2f}")
    table.add_row("an iteration, seconds", f"{time.iteration_seconds:,.2f}")
    for name, total in time.beside.items():
        table.add_row(f"{name}, seconds in all ({time.counts[name]} times)", f"{total:,.1f}")
    missing = [word for word, name in BESIDE.items() if name not in time.beside and time.counts.get(name)]
    without = f" (without {', '.join(missing)})" if missing else ""
    table.add_row(f"hours in all{without}", f"{time.hours:,.2f}")
    if settings.cluster.device == "cuda":
        table.add_row(f"GPU-hours on {planned.num_gpus:g} GPUs", f"{planned.gpu_hours:,.1f}")
    return table


def _assumptions_table(planned: Plan, settings: Settings, measured: Collection[str], source: Observed | None) -> Table:
    table = Table(title="assumptions (plan.NAME=VALUE changes one)", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("name", "value", "source"):
        table.add_column(heading, overflow="fold")
    active = planned.policy.active_parameters or num_parameters(planned.policy)
    assumed, on_cpu = planned.assumed, settings.cluster.device == "cpu"
    worked_out = {
        "response_tokens": planned.duration.generated_tokens_per_iteration / planned.duration.responses_per_iteration
    }
    if assumed.step_ms is None or assumed.token_ms is None:
        worked_out["generate_tokens_per_second"] = generate_speed(settings, active, assumed)
    of_cuda = {
        *("gpu_memory_gib", "gpus", "peak_tflops", "utilisation", "cuda_context_gib", "scorer_context_gib"),
        *("engine_overhead_gib", "memory_tb_per_second", "decode_overhead_ms", "host_copy_gib_per_second"),
    }
    of_cpu = {"cpu_gflops", *(item.name for item in fields(assumed) if item.name.endswith("_process_gib"))}
    for item in fields(assumed):
        value = getattr(assumed, item.name)
        origin = item.metadata["source"]
        if value != item.default:
            origin = f"measured in {source.folder.name}" if source and item.name in measured else "given"
        elif on_cpu and item.name == "generate_tokens_per_second":
            origin = "per engine; measured on two cores: SmolLM2-135M 100, inversely by size, at most 3,000"
        if item.name in (of_cuda if on_cpu else of_cpu) or (value is None and item.name not in worked_out):
            continue
        instead = INSTEAD.get(item.name)
        if (value == 0 and item.default == 0) or (
            instead and all(getattr(assumed, one) is not None for one in instead)
        ):
            continue
        value = worked_out.get(item.name, value)
        table.add_row(item.name, f"{value:,.4g}" if isinstance(value, float) else str(value), origin)
    return table
