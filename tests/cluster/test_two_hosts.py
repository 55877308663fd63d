"""The miniature over two hosts, as a job, is the run of one machine to float32 rounding; three_hosts.py is the longer one."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from hosts import Hosts, Node, why_not
from three_hosts import CHECKOUT, ROUNDING, RUN, differences, metric_lines, on_hosts, on_one_machine

pytestmark = [pytest.mark.skipif(bool(why_not()), reason=str(why_not())), pytest.mark.timeout(900)]

PLACES = (
    "cluster.policy.strategy=STRICT_SPREAD",
    "+cluster.rollout.node_labels.role=serve",
    "+cluster.reward.node_labels.role=serve",
    "+cluster.reference.node_labels.role=serve",
)
"""Gradients, weights and scores go from host to host."""


def test_rl_over_two_hosts_is_that_of_one_machine() -> None:
    run = [*RUN, "schedule.max_updates=4"]
    with Hosts(2, PYTHONPATH=str(CHECKOUT)) as hosts, ThreadPoolExecutor(1) as beside:
        alone = beside.submit(on_one_machine, hosts, run, "together")
        hosts.start_ray([Node(3, labels={"role": "head"}), Node(3, labels={"role": "serve"})])
        apart = on_hosts(hosts, [*run, *PLACES], "apart")
        together = alone.result()
        assert [row["update"] for row in metric_lines(apart)] == [2, 4]
        (start,) = json.loads((apart / "environment.json").read_text())["starts"]
        assert start["hosts"] == {name: ["node2"] for name in start["hosts"]} | {"policy": ["node1", "node2"]}
        largest = max(share for *_, share in differences(apart, together).values())
        assert largest <= ROUNDING
