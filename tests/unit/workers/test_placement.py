"""What is asked of Ray, without Ray: bundles of every layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from lrm_safety.errors import ClusterError, WorkerError
from lrm_safety.settings import ClusterSettings, GroupSettings
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers import placement
from lrm_safety.workers.layout import BundleSet, Node
from lrm_safety.workers.placement import Placement, bundle_sets, elsewhere, reserve, worker_resources

ALL = ["policy", "rollout", "reference", "reward"]


def layout(colocate: list[list[str]] | None = None, **groups: Any) -> ClusterSettings:
    """Groups as (workers, CPUs, GPUs)."""
    made = {
        name: GroupSettings(num_workers=workers, cpus_per_worker=cpus, gpus_per_worker=gpus)
        for name, (workers, cpus, gpus) in groups.items()
    }
    return ClusterSettings(colocate=colocate or [], **made)


def bundles_of(*arguments: Any) -> list[tuple[list[str], list[dict[str, float]]]]:
    """Every set's groups and bundles."""
    return [(list(one.names), [dict(one.bundle)] * one.count) for one in bundle_sets(*arguments)]


SPLIT = {"policy": (4, 2, 1), "rollout": (2, 3, 1), "reference": (1, 1, 0.5), "reward": (1, 1, 0.5)}


def test_split_groups_have_bundles_of_their_own() -> None:
    assert bundles_of(ALL, layout(**SPLIT)) == [
        (["policy"], [{"CPU": 2, "GPU": 1}] * 4),
        (["rollout"], [{"CPU": 3, "GPU": 1}] * 2),
        (["reference"], [{"CPU": 1, "GPU": 0.5}]),
        (["reward"], [{"CPU": 1, "GPU": 0.5}]),
    ]


def test_colocated_groups_add_up() -> None:
    groups = {"policy": (2, 2, 0.5), "rollout": (2, 1, 0.25), "reference": (2, 0.5, 0.25), "reward": (3, 1, 1)}
    assert bundles_of(ALL, layout(colocate=[["policy", "rollout", "reference"]], **groups)) == [
        (["policy", "rollout", "reference"], [{"CPU": 3.5, "GPU": 1.0}] * 2),
        (["reward"], [{"CPU": 1, "GPU": 1}] * 3),
    ]


def test_two_sets() -> None:
    groups = {"policy": (2, 1, 0.5), "rollout": (2, 1, 0.5), "reference": (1, 1, 0.5), "reward": (1, 1, 0.25)}
    found = bundles_of(ALL, layout(colocate=[["rollout", "policy"], ["reward", "reference"]], **groups))
    assert found == [
        (["rollout", "policy"], [{"CPU": 2, "GPU": 1.0}] * 2),
        (["reward", "reference"], [{"CPU": 2, "GPU": 0.75}]),
    ]


def test_a_group_that_is_not_started_takes_nothing() -> None:
    groups = {"policy": (2, 2, 0.5), "rollout": (2, 1, 0.25), "reference": (2, 1, 0.25), "reward": (1, 1, 0.0)}
    names = ["policy", "rollout", "reward"]
    assert bundles_of(names, layout(colocate=[["policy", "reference"], ["rollout"]], **groups)) == [
        (["policy"], [{"CPU": 2, "GPU": 0.5}] * 2),
        (["rollout"], [{"CPU": 1, "GPU": 0.25}] * 2),
        (["reward"], [{"CPU": 1}]),  # a resource of 0 is not asked for: Ray refuses it
    ]
    assert [n for n, _ in bundles_of(["reward"], layout(colocate=[["policy", "reference"]], **groups))] == [["reward"]]


def test_a_tensor_parallel_engine_takes_all_its_gpus_in_one_bundle() -> None:
    cluster = layout(**SPLIT)
    assert worker_resources("rollout", cluster, 4) == (3, 4)
    assert worker_resources("policy", cluster, 4) == (2, 1), "only the engines are tensor parallel"
    assert bundles_of(["rollout"], cluster, 4) == [(["rollout"], [{"CPU": 3, "GPU": 4}] * 2)]


@pytest.mark.parametrize(
    ("cluster", "rollout", "gpus", "cpus"),
    [
        ("laptop_cpu", "vllm_cpu", 0, 2.0),
        ("node_8gpu_split", "vllm", 8, 28),
        ("node_8gpu_colocated", "vllm_colocated", 8, 64),
        ("multinode_4x8gpu", "vllm", 28, 112),
        ("multinode_4x8gpu", "vllm rollout.tensor_parallel_size=2", 32, 112),
    ],
)
def test_layouts_of_the_configuration_fit_their_machines(cluster: str, rollout: str, gpus: float, cpus: float) -> None:
    parts = ["model=miniature", "reward=miniature", "data=miniature"]
    settings, _ = compose_settings([*parts, f"cluster={cluster}", *f"rollout={rollout}".split()])
    sets = bundles_of(ALL, settings.cluster, settings.rollout.tensor_parallel_size)
    bundles = [bundle for _, bundles in sets for bundle in bundles]
    assert sum(bundle.get("GPU", 0) for bundle in bundles) == pytest.approx(gpus)
    assert sum(bundle["CPU"] for bundle in bundles) == pytest.approx(cpus)
    assert all(bundle.get("GPU", 0) <= 8 for bundle in bundles), "a bundle lies on one node"


def test_six_sixths_are_as_much_as_ray_takes_them_for() -> None:
    """Ray takes 0.166667 for 0.1666: six fit one GPU."""
    assert bundles_of(["policy"], layout(policy=(6, 0, 0.166667))) == [(["policy"], [{"GPU": 0.1666}] * 6)]


def test_a_node_that_grants_nothing_is_left_out_of_the_next_try(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is draining: it is there and free, and Ray places nothing on it."""
    nodes = [Node(name, name, {}, {"CPU": 4.0}, {"CPU": 4.0}) for name in ("home", "other")]
    tried = []

    def grant(sets: Any, places: list[list[str]], on_wait: Any) -> object | None:
        tried.append(places)
        return None if "home" in places[0] else object()

    monkeypatch.setattr(placement, "_nodes", lambda: nodes)
    monkeypatch.setattr(placement, "_granted", grant)
    monkeypatch.setattr(placement, "this_node_id", lambda: "home")
    monkeypatch.setattr(placement.ray, "nodes", lambda: nodes)
    place = reserve(["policy"], layout(policy=(2, 1, 0)))
    assert tried == [[["home"] * 2], [["other"] * 2]] and place["policy"].nodes == ("other", "other")


def test_a_layout_that_was_refused_until_the_limit_shrinks_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three ranks Ray grants two, for which c alone has room; that c was left out of a try has no part in that."""
    nodes = [Node(name, name, {}, {"CPU": cpus}, {"CPU": cpus}) for name, cpus in (("a", 1.0), ("c", 2.0))]
    monkeypatch.setattr(placement, "_nodes", lambda: nodes)
    monkeypatch.setattr(placement, "_granted", lambda sets, places, on_wait: object() if len(places[0]) < 3 else None)
    monkeypatch.setattr(placement, "this_node_id", lambda: "a")
    monkeypatch.setattr(placement.ray, "nodes", lambda: nodes)
    policy = GroupSettings(num_workers=3, min_workers=1, cpus_per_worker=1.0)
    place = reserve(["policy"], ClusterSettings(policy=policy, placement_timeout_seconds=0.0))
    assert place["policy"].nodes == ("c", "c")


def no_place(node: str) -> None:
    if node == "bare":
        raise ClusterError("model.path=/m: on bare it is absent")


def test_a_lost_nodes_worker_goes_where_nothing_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Node(name, name, {}, {"CPU": 4.0}, {"CPU": cpus}) for name, cpus in (("bare", 4.0), ("fit", 2.0))]
    tried: list[str] = []
    monkeypatch.setattr(placement, "_nodes", lambda: nodes)
    monkeypatch.setattr(placement, "_granted", lambda sets, places, on_wait: tried.append(places[0][0]) or object())
    monkeypatch.setattr(placement, "this_node_id", lambda: "home")
    lost = Placement(Any, 1.0, 0.0, ("fit", "lost"), 3, check=no_place)
    found = elsewhere(lost, "rollout", lambda: None, {"fit"})
    assert (tried, found.nodes, found.first_bundle) == (["fit"], ("fit",), 0), "bare has more room, and no model"


def test_none_of_a_strict_spread_gets_a_second_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [Node(name, name, {}, {"CPU": 4.0}, {"CPU": 4.0}) for name in ("bare", "fit")]
    monkeypatch.setattr(placement, "_nodes", lambda: nodes)
    monkeypatch.setattr(placement, "_granted", lambda *_: object())
    monkeypatch.setattr(placement, "this_node_id", lambda: "home")
    monkeypatch.setattr(placement, "ELSEWHERE_SECONDS", 1.5)
    lost = Placement(Any, 1.0, 0.0, ("fit", "lost"), strategy="STRICT_SPREAD", check=no_place)
    with pytest.raises(WorkerError, match=r"^rollout: no other node has room .* on bare it is absent$"):
        elsewhere(lost, "rollout", lambda: None, {"fit"})
    assert elsewhere(replace(lost, check=lambda node: None), "rollout", lambda: None, {"fit"}).nodes == ("bare",)


@pytest.mark.parametrize(
    ("bundle", "free", "told"),
    [
        ({"CPU": 1.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}, "num_workers or gpus_per_worker"),
        ({"CPU": 1.0, "GPU": 1.0}, {"CPU": 1.0, "GPU": 8.0}, "num_workers or cpus_per_worker"),
        (
            {"CPU": 1.0, "GPU": 1.0},
            {"CPU": 8.0, "GPU": 8.0},
            "num_workers or cpus_per_worker or gpus_per_worker",
        ),  # in pieces
        ({"CPU": 1.0}, {"CPU": 8.0}, "num_workers or cpus_per_worker"),
        ({"CPU": 1.0, "big": 1.0}, {"CPU": 8.0}, "num_workers or resources.big"),
    ],
)
def test_of_a_layout_that_had_no_place_the_keys_of_what_was_lacking_are_named(
    bundle: dict[str, float], free: dict[str, float], told: str
) -> None:
    assert placement._lower([BundleSet(("policy",), bundle, 2)], [Node("a", "a", {}, free, free)]) == told
