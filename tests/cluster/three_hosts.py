"""The miniature trained over three hosts, through `ray job submit`, and the same layout on one machine: are they the same run?

    python tests/cluster/three_hosts.py [--updates 20]

The first host has the controller, the reward and the reference model; the two others a trainer rank each, and one of them the
engine (tests/hosts.py; as root, some minutes on two cores). Prints a row for every metric that differs most, and where the
workers were; exit status 1 where a metric differs by more than the rounding of float32.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
CHECKOUT = TESTS.parent
sys.path[:0] = [str(folder) for folder in (CHECKOUT, TESTS, TESTS / "end_to_end") if str(folder) not in sys.path]

from hosts import Hosts, Node, why_not  # noqa: E402
from running import metric_lines  # noqa: E402

ROUNDING = 1e-5
"""Largest difference of a metric, as a share of it (of 1 for small ones): float32 has 1e-7, which sums and updates add up."""
NODES = (
    Node(2, labels={"role": "head"}),
    Node(2, labels={"role": "train"}),
    Node(2, labels={"role": "train"}, resources={"engine": 1}),
)
PLACES = (
    "+cluster.policy.node_labels.role=train",
    "cluster.policy.strategy=STRICT_SPREAD",
    "+cluster.rollout.resources.engine=1",
    "+cluster.reward.node_labels.role=head",
    "+cluster.reference.node_labels.role=head",
)
RUN = (
    "train",
    "experiment=miniature",
    "algorithm.rollout_batch_size=16",
    "algorithm.mini_batch_size=8",
    "rollout.max_response_tokens=64",
    "rollout.stream_chunk_size=8",
    "evaluation.every_updates=0",
    "checkpoint.best_metric=null",
    "checkpoint.every_updates=0",
    "checkpoint.export=none",
    "tracking.console=plain",
    "tracking.wandb=disabled",
)
"""Two updates an iteration, in seconds."""


def on_hosts(hosts: Hosts, run: Sequence[str], name: str) -> Path:
    """The folder of a run that is submitted to the hosts as a job."""
    folder = hosts.shared / name
    done = hosts.submit(["lrm-safety", *run, f"run.directory={folder}"], CHECKOUT)
    if done.returncode:
        raise RuntimeError(f"the job ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return folder


def on_one_machine(hosts: Hosts, run: Sequence[str], name: str) -> Path:
    """The folder of a run with a Ray of its own."""
    folder = hosts.shared / name
    environment = {name: value for name, value in hosts.environment.items() if not name.startswith("RAY_AUTH")}
    command = [sys.executable, "-m", "lrm_safety", *run, f"run.directory={folder}"]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return folder


def differences(one: Path, other: Path) -> dict[str, tuple[float, float, float]]:
    """Of every metric the pair of values that differ most, and by how much: as a share of the larger, or of 1 for small ones."""
    found: dict[str, tuple[float, float, float]] = {}
    rows, others = metric_lines(one), metric_lines(other)
    assert len(rows) == len(others) > 0, f"{len(rows)} records and {len(others)}"
    for row, twin in zip(rows, others, strict=True):
        assert row.keys() == twin.keys(), row.keys() ^ twin.keys()
        for name, value in row.items():
            if isinstance(value, int | float):
                pair = (float(value), float(twin[name]))
                share = abs(pair[0] - pair[1]) / max(1.0, *map(abs, pair))
                share = 0.0 if math.isnan(pair[0]) and math.isnan(pair[1]) else share
                if name not in found or not share <= found[name][2]:
                    found[name] = (*pair, share)
    return found


def table(found: Mapping[str, tuple[float, float, float]], rows: int = 20) -> str:
    """The metrics that differ most, and how many there are."""
    worst = sorted(found.items(), key=lambda one: -one[1][2])[:rows]
    lines = [f"{name:<44}{one:>16.9g}{other:>16.9g}{share:>12.2e}" for name, (one, other, share) in worst]
    equal = sum(share == 0 for *_, share in found.values())
    header = f"{'metric (its worst update)':<44}{'hosts':>16}{'one machine':>16}{'difference':>12}"
    return "\n".join([header, *lines, f"{len(found)} metrics, {equal} of them equal to the bit"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=20)
    updates = f"schedule.max_updates={parser.parse_args().updates}"
    if reason := why_not():
        print(f"three_hosts: {reason}", file=sys.stderr)
        return 2
    with Hosts(len(NODES), PYTHONPATH=str(CHECKOUT)) as hosts:
        hosts.start_ray(NODES)
        apart = on_hosts(hosts, [*RUN, updates, *PLACES], "apart")
        together = on_one_machine(hosts, [*RUN, updates], "together")
        found = differences(apart, together)
        (start,) = json.loads((apart / "environment.json").read_text())["starts"]
        print(f"{len(metric_lines(apart))} records each; on hosts: {start['hosts']}")
    print(table(found))
    largest = max(share for *_, share in found.values())
    print(f"largest difference {largest:.2e}, of {ROUNDING:g} allowed")
    return int(not largest <= ROUNDING)


if __name__ == "__main__":
    sys.exit(main())
