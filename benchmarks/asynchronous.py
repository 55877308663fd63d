"""`python -m benchmarks.asynchronous`: engines that sample ahead (`algorithm.max_staleness=1`) against the synchronous loop.

The miniature over several seeds, in turns, on two layouts: this machine as it is, where both groups want the same cores; and two
Ray nodes whose groups are slowed by sleeping, as if each had slower hardware of its own. Sleeps take no core, so that there what
overlaps is the groups' time and not the machine's.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

import ray
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from lrm_safety.settings.compose import compose_settings
from lrm_safety.statistics import over_runs

from .loop import Loop

STEP_SECONDS, UPDATE_SECONDS = 0.02, 0.6
"""What slowed groups sleep: an engine in each of its steps, a trainer rank in each update. A batch of the miniature takes about 70
steps and two updates, so that both sides are slowed alike."""
WARM_UP = 2
"""Iterations whose time is not counted."""
LAST = 5
"""Iterations whose rewards are averaged at the end."""


@dataclass(frozen=True)
class Case:
    """One run."""

    layout: str
    """`as it is` or `slowed`."""
    max_staleness: int
    seed: int


@dataclass(frozen=True)
class Outcome:
    """What it came to."""

    case: Case
    seconds_an_update: float
    """Median over iterations."""
    reward: float
    """Mean raw reward of the last LAST batches."""
    kl: float
    """Of the same, nats a token (k1)."""
    age: float
    """Mean weights versions between sampling and learning, of the tokens of all counted batches."""


def overrides(case: Case, iterations: int, address: str | None) -> list[str]:
    """The miniature as it is but for what belongs to no iteration. Two updates an iteration."""
    placed = [] if address is None else [f"cluster.address={address}", *NODES]
    return [
        *("experiment=miniature", f"seed={case.seed}", f"algorithm.max_staleness={case.max_staleness}"),
        *(f"schedule.max_updates={2 * iterations}", "evaluation=none", "checkpoint.every_updates=0"),
        *("checkpoint.best_metric=null", "tracking=disabled", "tracking.console=off", *placed),
    ]


NODES = (
    *("+cluster.policy.resources.trainers=0.01", "+cluster.reference.resources.trainers=0.01"),
    *("+cluster.reward.resources.engines=0.01", "+cluster.rollout.resources.engines=0.01"),
)
"""Trainer ranks and reference on one node, engine and reward on the other."""


@contextmanager
def two_nodes() -> Iterator[str]:
    """The address of a Ray of two raylets on this machine."""
    # Ray reads a token once in a process: another one later would not be believed.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    nodes = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 4, "include_dashboard": False, "resources": {"trainers": 1}},
    )
    try:
        nodes.add_node(num_cpus=4, resources={"engines": 1})
        yield nodes.address
    finally:
        nodes.shutdown()


def slow_down(worker: Any, method: str, seconds: float) -> None:
    """Runs in a worker: every call of one of its methods sleeps first."""
    usual = getattr(worker, method)

    def slowed(*arguments: Any) -> Any:
        time.sleep(seconds)
        return usual(*arguments)

    setattr(worker, method, slowed)


def run(case: Case, iterations: int, directory: Path) -> Outcome:
    """Train; `directory` gets the run's records."""
    slowed = case.layout == "slowed"
    with two_nodes() if slowed else nullcontext() as address:
        try:
            settings, _ = compose_settings(overrides(case, iterations, address))
            with Loop(settings, directory) as loop:
                if slowed:
                    groups: Any = loop.controller.groups
                    groups.rollout.ask(slow_down, "_step", STEP_SECONDS)
                    groups.policy.ask(slow_down, "_update", UPDATE_SECONDS)
                rounds = [loop.round() for _ in range(iterations)]
        finally:
            ray.shutdown()
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    records = [line for line in lines if "reward/raw_mean" in line]
    assert len(records) == iterations
    return Outcome(
        case,
        seconds_an_update=median(one.seconds / one.updates for one in rounds[WARM_UP:]),
        reward=mean(record["reward/raw_mean"] for record in records[-LAST:]),
        kl=mean(record["kl/k1"] for record in records[-LAST:]),
        age=mean(record.get("rollout/version_lag_mean", 0.0) for record in records[WARM_UP:]),
    )


def rows(outcomes: list[Outcome]) -> Iterator[tuple[str, ...]]:
    """Of each layout a line for each staleness, means and 95 % intervals over seeds, and one of differences paired by seed."""
    for layout in dict.fromkeys(one.case.layout for one in outcomes):
        by_staleness: dict[int, dict[int, Outcome]] = {}
        for one in outcomes:
            if one.case.layout == layout:
                by_staleness.setdefault(one.case.max_staleness, {})[one.case.seed] = one
        for staleness, by_seed in by_staleness.items():
            yield (
                *(layout, str(staleness), str(len(by_seed))),
                *(shown([getattr(one, name) for one in by_seed.values()]) for name in MEASURED),
            )
        synchronous, ahead = by_staleness[0], by_staleness[max(by_staleness)]
        paired = [
            [getattr(ahead[seed], name) - getattr(one, name) for seed, one in synchronous.items()] for name in MEASURED
        ]
        yield layout, "difference", str(len(synchronous)), *map(shown, paired)


MEASURED = ("seconds_an_update", "reward", "kl", "age")


def shown(values: list[float]) -> str:
    """Mean and Student's interval."""
    middle, low, high = over_runs(values)
    return f"{middle:.3f}" if low is None or high is None else f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def main(arguments: list[str] | None = None) -> int:
    """Run, show and write; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.asynchronous", description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--iterations", type=int, default=24, help="of two updates each")
    parser.add_argument("--layouts", nargs="+", default=["as it is", "slowed"], choices=["as it is", "slowed"])
    parser.add_argument("--output", type=Path, default=Path("outputs/bench/asynchronous"))
    options = parser.parse_args(arguments)
    if options.iterations < WARM_UP + LAST:
        parser.error(f"--iterations: must be at least {WARM_UP + LAST}")
    cases = [Case(layout, k, seed) for layout in options.layouts for seed in options.seeds for k in (0, 1)]
    outcomes, console = [], Console(stderr=True)
    for number, case in enumerate(cases):
        name = f"{case.layout.replace(' ', '_')}-{case.max_staleness}-{case.seed}"
        outcomes.append(run(case, options.iterations, options.output / name))
        console.print(f"{number + 1} of {len(cases)}: {outcomes[-1]}", soft_wrap=True)
        (options.output / "outcomes.json").write_text(
            json.dumps([asdict(one) for one in outcomes], indent=1) + "\n", encoding="utf-8"
        )
    table = Table(
        title=f"{options.iterations} iterations; slowed: {STEP_SECONDS} s a step, {UPDATE_SECONDS} s an update"
    )
    for column in ("layout", "max_staleness", "seeds", "seconds an update", "reward", "KL", "age of tokens"):
        table.add_column(column)
    for row in rows(outcomes):
        table.add_row(*row)
    Console(width=160).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
