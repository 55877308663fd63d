"""What is said of nodes that differ from the controller's."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from lrm_safety.modeling.folder import model_glance
from lrm_safety.workers.preflight import NodeReport, clock_ahead, differences, listed, report

FILES = {"config.json": "a", "model.safetensors": "b"}
HERE = NodeReport({"python": "3.11.9", "torch": "2.13.0"}, "code", {"model.path": FILES})
MODELS = {"model.path": ("/models/m", None)}
SHARED = replace(HERE, read="token", wrote="mine", shares=True)


def said(others: Mapping[str, NodeReport]) -> list[str]:
    return [str(line) for line in differences("head", HERE, others, MODELS, "run.directory=/runs/a")]


def test_equal_nodes_are_not_spoken_of() -> None:
    assert said({"a": HERE, "b": SHARED, "c": replace(HERE, models={})}) == []


def test_every_difference_is_a_line_with_its_nodes_and_mend() -> None:
    assert said(
        {
            "a": replace(SHARED, shares=False, read=None),
            "b": replace(SHARED, shares=False, refused="Read-only file system"),
            "c": replace(SHARED, models={"model.path": None}, clock=-1.5),
            "d": replace(SHARED, models={"model.path": FILES | {"model.safetensors": "c"}}, clock=0.9),
            "e": replace(SHARED, models={"model.path": {"config.json": "a"}}, clock=61.04),
            "f": replace(SHARED, models={"model.path": FILES | {"chat_template.jinja": "x"}}),
            "g": replace(SHARED, versions={"python": "3.11.9", "torch": "2.12.1", "vllm": "1"}, code="other"),
            "h": replace(SHARED, versions={"python": "3.12.0"}, code="other"),
        }
    ) == [
        "run.directory=/runs/a: on a it is not the folder that the controller on head writes to; put it on storage that every "
        "node sees",
        "run.directory=/runs/a: on b it cannot be written (Read-only file system); let the user of Ray's processes write there",
        "model.path=/models/m: on c it is absent; copy it there, or put it on storage that every node sees",
        "clock: on c it is 1.5 s behind that of head; let all nodes keep the time by NTP (chrony, systemd-timesyncd)",
        "model.path=/models/m: on d model.safetensors is another, compared with head; copy it anew, or put it on storage that "
        "every node sees",
        "model.path=/models/m: on e model.safetensors is missing, compared with head; copy it anew, or put it on storage that "
        "every node sees",
        "clock: on e it is 61.0 s ahead of that of head; let all nodes keep the time by NTP (chrony, systemd-timesyncd)",
        "model.path=/models/m: on f there is a chat_template.jinja more, compared with head; copy it anew, or put it on storage "
        "that every node sees",
        "packages: on g torch 2.12.1 instead of 2.13.0 (as on head); install the same packages on every node (`make setup`, or "
        "one image)",
        "lrm_safety: on g and h its code is not that of head; update it on every node, or start the run as a job, which brings "
        "its code along",
        "packages: on h python 3.12.0 instead of 3.11.9, torch absent instead of 2.13.0 (as on head); install the same packages "
        "on every node (`make setup`, or one image)",
    ]


def test_one_line_for_sixty_nodes_with_one_fault() -> None:
    (line,) = said({f"node{i}": replace(SHARED, models={"model.path": None}) for i in range(60)})
    assert line.startswith("model.path=/models/m: on node0, node1, node2 and 57 more nodes it is absent")


@pytest.mark.parametrize(
    ("names", "text"),
    [("a", "a"), ("ab", "a and b"), ("abcd", "a, b, c and d"), ("abcde", "a, b, c and 2 more nodes")],
)
def test_listed(names: str, text: str) -> None:
    assert listed(names) == text


@pytest.mark.parametrize(
    ("rounds", "ahead"),
    [
        ([], 0.0),
        ([(10.0, 13.5, 11.0)], 2.5),  # read between 10 and 11: at least 2.5 ahead
        ([(10.0, 7.5, 11.0)], -2.5),
        ([(10.0, 10.2, 11.0)], 0.0),
        ([(10.0, 10.9, 12.0), (20.0, 23.1, 20.2)], 2.9),  # the quickest counts
    ],
)
def test_a_clock_is_ahead_by_what_the_way_does_not_explain(
    rounds: list[tuple[float, float, float]], ahead: float
) -> None:
    assert clock_ahead(rounds) == pytest.approx(ahead)


def test_a_report_leaves_its_file_beside_the_controllers(tmp_path: Path) -> None:
    (tmp_path / "controller").write_text("token")
    told = report({}, str(tmp_path), "node")
    assert (told.read, told.refused) == ("token", None) and (tmp_path / "node").read_text() == told.wrote
    elsewhere = report({}, str(tmp_path / "absent"), "node")
    assert (elsewhere.read, elsewhere.wrote) == (None, None) and not (tmp_path / "absent").exists()
    assert {"python", "torch", "ray", "deepspeed", "vllm"} <= told.versions.keys()
    assert told.code == elsewhere.code and len(told.code) == 64


def test_a_reward_function_is_known_by_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes may have another file of the same name, or none."""
    key, function = "reward.models.mine.function", ("reward_of_mine:score", None)
    assert report({key: function}, None, "").models == {key: None}
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "reward_of_mine.py").write_text("def score(conversations): ...\n")
    here = report({key: function}, None, "")
    digest = hashlib.sha256((tmp_path / "reward_of_mine.py").read_bytes()).hexdigest()
    assert here.models == {key: {"its file": digest}}
    other = replace(here, models={key: {"its file": "x"}})
    (line,) = map(str, differences("head", here, {"a": other}, {key: function}, ""))
    assert line.startswith(f"{key}=reward_of_mine:score: on a its file is another, compared with head; copy it anew")


def test_a_glance_tells_copies_of_a_model_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large file both ends count, and its size; what nobody reads does not."""
    files = {"config.json": b"{}", "tokenizer.json": b"t", "model.safetensors": bytes(300_000), "README.md": b"r"}

    def copy(name: str, **changed: bytes) -> dict[str, str] | None:
        folder = tmp_path / name
        folder.mkdir()
        for file, content in (files | {key.replace("_", "."): value for key, value in changed.items()}).items():
            (folder / file).write_bytes(content)
        return model_glance(str(folder))

    first = copy("a")
    assert first is not None and first.keys() == {"config.json", "tokenizer.json", "model.safetensors"}
    assert copy("b", README_md=b"other") == first
    for name, weights in {
        "begin": b"x" + bytes(299_999),
        "end": bytes(299_999) + b"x",
        "size": bytes(300_001),
    }.items():
        other = copy(name, model_safetensors=weights)
        assert other is not None and {file for file in other if other[file] != first[file]} == {"model.safetensors"}
    assert model_glance(str(tmp_path / "absent")) is None
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert model_glance("owner/name") == {}  # each node asks the hub


def test_a_hub_id_is_looked_for_in_the_cache_where_the_hub_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert model_glance("owner/name") is None
    snapshot = tmp_path / "models--owner--name/snapshots/c0ffee"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    refs = tmp_path / "models--owner--name/refs"
    refs.mkdir()
    (refs / "main").write_text("c0ffee")
    assert model_glance("owner/name") == {"commit": "c0ffee"}
