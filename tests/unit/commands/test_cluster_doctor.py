"""What doctor says of a cluster out of what was found on its nodes."""

from __future__ import annotations

import os
import socket
import threading
from itertools import combinations

import pytest

from lrm_safety.commands import cluster_doctor as subject
from lrm_safety.commands.cluster_doctor import NodesRow
from lrm_safety.commands.doctor import Row
from lrm_safety.workers.cluster_survey import Survey, look_at_host
from lrm_safety.workers.links import Link, measure, rounds

GIB = 1024**3
FAST, SLOW = Link(1e-4, 1.25e9), Link(2e-3, 1.25e8)  # 10 and 1 Gbit/s


def survey(**changed: object) -> Survey:
    found: dict[str, object] = {
        "address": "head:6379",
        "resources": {"CPU": 12.0, "GPU": 0.0},
        "wants_token": True,
        "nodes": ["a", "b", "c"],
        "lost": [],
        "own": {},
        "silent": {},
        "differences": [],
        "links": {},
        "closed": {},
        "addresses": {},
        "declared_cpus": {},
        "cores": {},
        "agents": {},
        "shared_rewards": {},
    }
    return Survey(**(found | changed))  # type: ignore[arg-type]


def test_nodes_that_say_the_same_share_a_row() -> None:
    own = {f"node{i}": [Row("g++", "/usr/bin/g++"), Row("memory", f"{i} GiB free")] for i in range(64)}
    own["node7"] = [Row("g++", "absent", "fail", "install it"), Row("memory", "7 GiB free")]
    rows = list(subject.together(own))
    assert [(row.name, row.level, len(row.nodes)) for row in rows] == [
        ("g++", "ok", 63),
        ("g++", "fail", 1),
        ("memory", "ok", 64),
    ]
    assert rows[1].nodes == ("node7",) and rows[1].mend == "install it"
    assert rows[2].found == "0 GiB free (node0); 1 GiB free (node1); 2 GiB free (node2); 61 others"
    places = subject.places([NodesRow("cluster", "", nodes=tuple(own)), *rows, NodesRow("links", "")])
    assert places == ["all 64", "all but node7", "node7", "all 64", ""]


def test_a_node_that_left_is_named() -> None:
    row = subject.overview_row(survey(lost=["d"]))
    assert row.found == "3 nodes, 12 CPUs, 0 GPUs at head:6379; left: d" and row.level == "warn"
    assert subject.overview_row(survey()).level == "ok"


def test_one_of_a_kind_is_no_plural() -> None:
    alone = survey(nodes=["a"], resources={"CPU": 1.0, "GPU": 1.0})
    assert subject.overview_row(alone).found == "1 node, 1 CPU, 1 GPU at head:6379"
    row = NodesRow("g++", "", nodes=("a",))
    assert subject.places([subject.overview_row(alone), row]) == ["a", "a"]
    (links,) = subject.link_rows({("a", "b"): FAST}, 2)
    assert "medians of 1 pair of 1" in links.found


def test_a_cluster_without_a_token_is_warned_of() -> None:
    assert (subject.token_row(True).level, subject.token_row(False).level) == ("ok", "warn")
    assert "RAY_AUTH_MODE=token" in subject.token_row(False).mend


def test_an_object_store_larger_than_shared_memory_is_warned_of() -> None:
    assert subject.store_row(2 * GIB, 2 * GIB) == Row("object store", "2.0 GiB")
    small = subject.store_row(2 * GIB, GIB // 2)
    assert small.level == "warn" and small.found == "2.0 GiB, and /dev/shm has 0.5" and "--shm-size" in small.mend


def test_a_shared_reward_group_that_hangs_can_be_ended_by_what_is_said() -> None:
    living, hung = subject.shared_reward_rows({"one": "miniature, 3 runs, for 7 min", "two": None})
    assert (living.name, living.found, living.level) == ("reward.shared=one", "miniature, 3 runs, for 7 min", "ok")
    assert hung.level == "warn" and 'ray.get_actor("reward-two", "lrm_safety")' in hung.mend


def test_nodes_on_one_host_and_cpus_that_it_does_not_have_are_warned_of() -> None:
    addresses = {"a": "10.0.0.1", "b": "10.0.0.1", "c": "10.0.0.2"}
    declared, cores = {"a": 4.0, "b": 4.0, "c": 2.0}, {"a": 2, "b": 2, "c": 2}
    several, cpus = subject.host_rows(addresses, declared, cores)
    assert (several.level, several.nodes) == (
        "warn",
        ("a", "b"),
    ) and several.found == "2 nodes on one address, 10.0.0.1"
    assert (cpus.level, cpus.nodes) == (
        "warn",
        ("a", "b"),
    ) and cpus.found == "8 declared on 10.0.0.1, which has 2 cores"
    assert "ray stop" in several.mend and "--num-cpus" in cpus.mend
    # docs/first_sweep.md asks for more CPUs than a machine of two cores has.
    assert "right for a trial (docs/first_sweep.md)" in cpus.mend
    assert not list(subject.host_rows({"a": "x", "b": "y"}, {"a": 2.0, "b": 1.0}, {"a": 2, "b": 2}))


def test_an_agent_without_http_is_warned_of() -> None:
    (row,) = subject.agent_rows({"b": "its HTTP server did not start"})
    assert (row.level, row.nodes) == ("warn", ("b",)) and "--dashboard-agent-listen-port" in row.mend
    assert [row.level for row in subject.agent_rows({})] == ["ok"]


def test_an_agent_is_asked_where_it_says_that_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_answer_once, args=(listener,))
        thread.start()
        cores, why = look_at_host(("127.0.0.1", listener.getsockname()[1]))
        thread.join()
    assert (cores, why) == (os.cpu_count(), "")
    assert "no answer on port 1 (" in look_at_host(("127.0.0.1", 1))[1]
    assert look_at_host(("127.0.0.1", -1))[1] == "its HTTP server did not start"
    assert look_at_host(None)[1] == "it has not come up"


def _answer_once(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    connection.close()


def test_closed_ports_fail() -> None:
    (row,) = subject.port_rows({"a": ["b:6379 (Connection refused)"]})
    assert (row.level, row.nodes, row.found) == ("fail", ("a",), "cannot open b:6379 (Connection refused)")
    assert [row.level for row in subject.port_rows({})] == ["ok"]


def test_links_tell_the_usual_and_what_stands_out() -> None:
    links = {pair: SLOW if "d" in pair else FAST for pair in combinations("abcdefg", 2)}  # 6 of 21 are slow
    usual, slow = subject.link_rows(links, 7)
    assert (
        usual.found == "10.0 Gbit/s in one TCP stream, 0.10 ms there and back (longest 2.00); medians of 21 pairs of 21"
    )
    assert usual.level == "ok"
    assert slow.level == "warn" and slow.mend.endswith("switch port of d")
    assert slow.found == (
        "a - d 1.0 Gbit/s, b - d 1.0 Gbit/s, c - d 1.0 Gbit/s and 3 more pairs, less than half of the usual"
    )


def test_a_slow_network_and_a_broken_link() -> None:
    (usual,) = subject.link_rows({("a", "b"): Link(1e-3, 1.2e7)}, 2)
    assert usual.level == "warn" and usual.found.startswith("96.0 Mbit/s") and "--node-ip-address" in usual.mend
    broken, rest = subject.link_rows({("a", "b"): "b:41: timed out", ("a", "c"): FAST}, 3)
    assert (broken.level, broken.nodes, broken.found) == ("fail", ("a", "b"), "no connection: b:41: timed out")
    assert rest.level == "ok"
    assert [row.found for row in subject.link_rows({}, 1)] == ["one node, nothing to measure"]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_each_two_nodes_meet_once_and_nobody_is_in_two_pairs_at_a_time(count: int) -> None:
    names = [f"node{i}" for i in range(count)]
    schedule = list(rounds(names))
    met = [frozenset(pair) for pairs in schedule for pair in pairs]
    assert sorted(map(sorted, met)) == sorted(map(sorted, combinations(names, 2)))
    assert all(len({node for pair in pairs for node in pair}) == 2 * len(pairs) for pairs in schedule)
    assert len(schedule) == count - 1 + count % 2


def test_nobody_at_the_other_end_is_a_reason() -> None:
    assert measure("127.0.0.1", 1) == "127.0.0.1:1: Connection refused"


def test_a_node_that_says_nothing_may_be_busy_and_one_that_fails_lacks_something() -> None:
    reasons = {"busy": "no answer came within 300 s", "bare": "there is no Python module lrm_safety"}
    busy, bare = subject.silent_rows(reasons)
    assert (busy.nodes, busy.level) == (("busy",), "fail") and "`top` there" in busy.mend
    assert bare.mend == "install the same packages on every node"
