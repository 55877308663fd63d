"""Which worker goes on which node, and what no node can hold: worked out by hand."""

from __future__ import annotations

import pytest

from lrm_safety.workers.layout import BundleSet, Node, fewer_workers, lay_out, never

EIGHT = {"CPU": 96.0, "GPU": 8.0}


def node(name: str, total: dict[str, float], free: dict[str, float] | None = None, **labels: str) -> Node:
    return Node(name, name, labels, total, total if free is None else free)


def gpus(
    name: str, count: int, strategy: str = "PACK", each: float = 1, least: int | None = None, **labels: str
) -> BundleSet:
    return BundleSet((name,), {"GPU": each}, count, strategy, labels, least or count)


def test_ranks_are_packed_by_node_and_engines_spread() -> None:
    """Four nodes of 8: 16 ranks fill two of them, 4 engines take the nodes that are left in turn."""
    nodes = [node(name, EIGHT) for name in ("n10", "n9", "n2", "n1")]
    places, short = lay_out([gpus("policy", 16), gpus("rollout", 4, "SPREAD")], nodes)
    assert places == [["n1"] * 8 + ["n2"] * 8, ["n9", "n9", "n10", "n10"]] and not short


def test_neighbouring_ranks_share_a_node_where_they_are_spread() -> None:
    places, _ = lay_out([gpus("policy", 5, "SPREAD")], [node("b", EIGHT), node("a", EIGHT)])
    assert places == [["a", "a", "a", "b", "b"]], "dealt out a b a b a"


def test_pack_leaves_no_node_half_used_and_stays_with_the_controller() -> None:
    nodes = [node("a", EIGHT), node("b", EIGHT, {"GPU": 3.0}), node("c", EIGHT, {"GPU": 4.0})]
    assert lay_out([gpus("policy", 3)], nodes)[0] == [["b", "b", "b"]], "the tightest of those that hold all"
    assert lay_out([gpus("policy", 3)], nodes, home="c")[0] == [["c", "c", "c"]]
    assert lay_out([gpus("policy", 10)], nodes)[0] == [["a"] * 8 + ["b"] * 2]


@pytest.mark.parametrize(
    ("strategy", "count", "places"),
    [
        ("STRICT_PACK", 3, ["b", "b", "b"]),
        ("STRICT_PACK", 4, None),
        ("PACK", 4, ["a", "b", "b", "b"]),
        ("STRICT_SPREAD", 2, ["a", "b"]),
        ("STRICT_SPREAD", 3, None),
        ("SPREAD", 4, ["a", "a", "b", "b"]),
        ("SPREAD", 5, ["a", "a", "b", "b", "b"]),
        ("SPREAD", 6, None),
    ],
)
def test_strategies(strategy: str, count: int, places: list[str] | None) -> None:
    nodes = [node("a", EIGHT, {"GPU": 2.0}), node("b", EIGHT, {"GPU": 3.0})]
    found = lay_out([gpus("policy", count, strategy)], nodes)
    assert found == (([places], []) if places else ([], [0]))


def test_groups_lie_on_nodes_with_their_labels_and_resources() -> None:
    nodes = [
        node("a", {"CPU": 8.0}),
        node("b", EIGHT, role="train"),
        node("c", {**EIGHT, "engine": 2.0}, role="generate"),
    ]
    sets = [
        gpus("policy", 2, role="train"),
        BundleSet(("rollout",), {"GPU": 1, "engine": 1}, 2),
        BundleSet(("reward",), {"CPU": 8}, 1),
    ]
    assert lay_out(sets, nodes, home="a")[0] == [["b", "b"], ["c", "c"], ["a"]]
    assert lay_out([gpus("policy", 2, role="both")], nodes) == ([], [0])


def test_a_set_that_could_go_anywhere_leaves_the_only_place_of_another() -> None:
    nodes = [node("a", {"GPU": 2.0}), node("b", {"GPU": 1.0})]
    assert lay_out([gpus("reward", 1), gpus("policy", 1, each=2)], nodes, home="a")[0] == [["b"], ["a"]]
    assert lay_out([gpus("reward", 2), gpus("policy", 1, each=2)], nodes) == ([], [1])


def test_what_is_busy_now_is_not_what_can_never_be() -> None:
    nodes = [node("a", EIGHT, {"GPU": 1.0})]
    assert lay_out([gpus("policy", 2)], nodes) == ([], [0])
    assert lay_out([gpus("policy", 2)], nodes, whole=True) == ([["a", "a"]], [])
    assert never([gpus("policy", 2)], nodes) is None


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (
            [gpus("policy", 20)],
            "policy 20 x {'GPU': 1} (PACK) is asked for, and there is room for 16 (a: 8 GPU; b: 8 GPU); this would fit: "
            "cluster.policy.num_workers=16",
        ),
        (
            [gpus("policy", 20), gpus("rollout", 1, each=4), gpus("reward", 1)],
            "policy 20 x {'GPU': 1} (PACK) is asked for, and there is room for 16 (a: 8 GPU; b: 8 GPU), of which the other groups "
            "take 5 GPU; this would fit: cluster.policy.num_workers=11",
        ),
        (
            [gpus("policy", 12), gpus("rollout", 6)],
            "policy 12 x {'GPU': 1} (PACK); rollout 6 x {'GPU': 1} (PACK): are 18 GPU, and the cluster has 16; this would fit: "
            "cluster.rollout.num_workers=4",
        ),
        (
            [gpus("policy", 9, "STRICT_PACK")],
            "policy 9 x {'GPU': 1} (STRICT_PACK) is asked for, and there is room for 8 (a: 8 GPU; b: 8 GPU); this would fit: "
            "cluster.policy.num_workers=8",
        ),
        (
            [gpus("rollout", 1, each=16)],
            "a worker of rollout reserves {'GPU': 16}, which no node has (a: 8 GPU; b: 8 GPU); no number of workers would fit: "
            "start such a node, or ask for what the nodes have",
        ),
        (
            [gpus("policy", 1, role="test")],
            "no node has policy's node_labels role=test (a: role=train; b: none); no number of workers would fit: start such "
            "a node, or ask for what the nodes have",
        ),
    ],
)
def test_what_can_never_fit_is_named_with_what_would(sets: list[BundleSet], line: str) -> None:
    assert never(sets, [node("a", EIGHT, role="train"), node("b", EIGHT)]) == line


def test_the_smallest_layout_decides_what_can_never_fit() -> None:
    assert never([gpus("policy", 20, least=16)], [node("a", EIGHT), node("b", EIGHT)]) is None


def test_the_next_smaller_layout() -> None:
    """Sets that lack resources shrink together; one that has its own makes room only where they cannot."""
    assert fewer_workers([8, 4, 1], [4, 1, 1], short=[0, 1]) == [7, 3, 1]
    assert fewer_workers([4, 4, 1], [4, 1, 1], short=[0, 1]) == [4, 3, 1]
    assert fewer_workers([8, 2, 1], [4, 2, 1], short=[1]) == [7, 2, 1], "two engines need a place that ranks hold"
    assert fewer_workers([4, 2, 1], [4, 2, 1], short=[2]) is None
    tried, sizes = [], [3, 2]
    while sizes is not None:
        tried.append(sizes)
        sizes = fewer_workers(sizes, [1, 1], short=[0])
    assert tried == [[3, 2], [2, 2], [1, 2], [1, 1]]


def test_a_part_of_a_gpu_lies_on_one_gpu() -> None:
    two = node("a", {"GPU": 2.0})
    assert lay_out([gpus("reward", 2, each=0.6)], [two])[0] and not lay_out([gpus("reward", 3, each=0.6)], [two])[0]
    assert lay_out([gpus("reward", 10, each=0.2)], [two])[0] and not lay_out([gpus("reward", 11, each=0.2)], [two])[0]


def test_a_smaller_layout_names_the_smallest_that_is_asked_for_too() -> None:
    line = never([gpus("policy", 40, least=20)], [node("a", EIGHT), node("b", EIGHT)])
    assert line and line.endswith("this would fit: cluster.policy.num_workers=16 cluster.policy.min_workers=16")


def test_groups_that_fit_one_by_one_and_not_together_are_refused() -> None:
    """Two ranks of 5 GPUs take both nodes, of which each has 3 left."""
    line = never([gpus("policy", 2, each=5), gpus("rollout", 1, each=5)], [node("a", EIGHT), node("b", EIGHT)])
    assert line == (
        "policy 2 x {'GPU': 5} (PACK); rollout 1 x {'GPU': 5} (PACK): no nodes hold them together (a: 8 GPU; b: 8 GPU); this "
        "would fit: cluster.policy.num_workers=1"
    )


def test_a_label_of_rays_own_is_named_where_it_is_asked_for() -> None:
    labels = {"ray.io/accelerator-type": "H100"}
    there = Node("a", "a", {"ray.io/accelerator-type": "A100", "ray.io/node-id": "1"}, EIGHT, EIGHT)
    line = never([BundleSet(("policy",), {"GPU": 1}, 1, "PACK", labels)], [there])
    assert line and line.startswith(
        "no node has policy's node_labels ray.io/accelerator-type=H100 (a: ray.io/accelerator-type=A100)"
    )
