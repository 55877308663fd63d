from __future__ import annotations

import errno
import json
import logging
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrm_safety import files
from lrm_safety.checkpoints import NOT_IDENTITY, CheckpointStore, best_update, kept_updates
from lrm_safety.errors import ClusterError, ConfigError, ModelError
from lrm_safety.files import differences

CONFIG: dict[str, Any] = {"algorithm": {"gamma": 1.0}, "run": {"name": "a"}}


def save(store: CheckpointStore, update: int, metric: float | None = None, content: bytes = b"weights") -> Path:
    folder = store.begin(update)
    (folder / "policy").mkdir()
    (folder / "policy" / "rank_0.bin").write_bytes(content)
    return store.commit(folder, update, state={"update": update}, config=CONFIG, data_fingerprint="f00d", metric=metric)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", best_metric="evaluation/safety")
    assert store.latest() is None and store.best() is None
    state = {"rng": 2**200 + 1, "running_mean": 0.1 + 0.2, "order": [3, 1], "name": "ü"}
    folder = store.begin(7)
    (folder / "rank_0.bin").write_bytes(b"123")
    path = store.commit(folder, 7, state=state, config=CONFIG, data_fingerprint="f00d", metric=0.5)
    assert path == tmp_path / "checkpoints" / "update-000007"
    for found in (store.latest(), store.open(path)):
        assert found is not None
        assert (found.path, found.update, found.state, found.config) == (path, 7, state, CONFIG)
        assert (found.data_fingerprint, found.metric, found.metric_name) == ("f00d", 0.5, "evaluation/safety")
    assert (path / "rank_0.bin").read_bytes() == b"123"
    described = json.loads((path / "manifest.json").read_text())["files"]["rank_0.bin"]
    # `printf 123 | sha256sum`
    assert described == {"bytes": 3, "sha256": "a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3"}


def test_keeps_the_last_ones_and_the_best_through_a_resume(tmp_path: Path) -> None:
    values = [0.1, 0.9, 0.2, math.nan, None, 0.3]
    for update, value in enumerate(values, start=1):
        save(CheckpointStore(tmp_path, keep_last=2, best_metric="evaluation/safety"), update, value)
    assert names(tmp_path) == ["update-000002", "update-000005", "update-000006"]
    store = CheckpointStore(tmp_path, keep_last=2, best_metric="evaluation/safety")
    best, latest = store.best(), store.latest()
    assert best is not None and (best.update, best.metric) == (2, 0.9)
    assert latest is not None and (latest.update, latest.metric) == (6, 0.3)


def test_values_of_another_metric_are_not_compared(tmp_path: Path) -> None:
    save(CheckpointStore(tmp_path, keep_last=1, best_mode="max", best_metric="response/length_mean"), 1, 900.0)
    store = CheckpointStore(tmp_path, keep_last=1, best_mode="max", best_metric="evaluation/safety")
    for update, value in ((2, 0.5), (3, 0.1)):
        save(store, update, value)
    assert names(tmp_path) == ["update-000002", "update-000003"]


def test_order_is_by_number_not_by_name(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2)
    for update in (999_998, 999_999, 1_000_000):
        save(store, update)
    latest = store.latest()
    assert latest is not None and latest.update == 1_000_000
    assert names(tmp_path) == ["update-1000000", "update-999999"]


def _shorten(path: Path) -> None:
    (path / "policy" / "rank_0.bin").write_bytes(b"weight")


def _remove(path: Path) -> None:
    (path / "policy" / "rank_0.bin").unlink()


def _tear_manifest(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text[: len(text) // 2])


def _remove_state(path: Path) -> None:
    (path / "state.json").unlink()


def _change(path: Path) -> None:
    (path / "policy" / "rank_0.bin").write_bytes(b"weightz")


def _zeros(path: Path) -> None:
    (path / "policy" / "rank_0.bin").write_bytes(bytes(7))


def _state_of_another_update(path: Path) -> None:
    text = (path / "state.json").read_text()
    (path / "state.json").write_text(text.replace("2", "1"))


def _edit_manifest(path: Path, **changes: Any) -> None:
    manifest = json.loads((path / "manifest.json").read_text()) | changes
    (path / "manifest.json").write_text(json.dumps(manifest))


def _no_files(path: Path) -> None:
    _edit_manifest(path, files={})


def _other_metric(path: Path) -> None:
    _edit_manifest(path, metric={"name": None, "value": 1.0})


def _other_folder(path: Path) -> None:
    shutil.copytree(path.with_name("update-000001"), path, dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_change, r"the content of policy/rank_0.bin is not what was written"),
        (_zeros, r"the content of policy/rank_0.bin is not what was written"),
        (_state_of_another_update, r"state.json speak of updates \[1, 2\]"),
        (_no_files, r"manifest.json is not what was written"),
        (_other_metric, r"manifest.json is not what was written"),
        (_other_folder, r"speak of updates \[1, 2\]"),
        (_shorten, r"policy/rank_0.bin has 6 bytes instead of 7"),
        (_remove, r"policy/rank_0.bin is missing"),
        (_tear_manifest, r"manifest.json: cannot be read: is not JSON .*resume from another one"),
        (_remove_state, r"state.json is missing"),
    ],
)
def test_a_torn_checkpoint_is_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], message: str
) -> None:
    store = CheckpointStore(tmp_path, keep_last=5)
    save(store, 1)
    torn = save(store, 2)
    damage(torn)
    with pytest.raises(ModelError, match=message):
        store.verify(store.open(torn))
    with caplog.at_level(logging.WARNING):
        latest = store.latest()
    assert latest is not None and latest.update == 1
    assert "update-000002" in caplog.text


def test_a_file_that_the_disk_does_not_give_is_a_torn_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector, or a checkpoint that a run removes while `export` reads beside it."""
    store = CheckpointStore(tmp_path, keep_last=5)
    save(store, 1)
    bad = save(store, 2) / "policy" / "rank_0.bin"
    whole = files.digest

    def digest(path: Path) -> str:
        if path == bad:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return whole(path)

    monkeypatch.setattr(files, "digest", digest)
    with pytest.raises(ModelError, match=r"torn: rank_0.bin cannot be read \(Input/output error\)"):
        store.verify(store.open(bad.parents[1]))
    latest = store.latest()
    assert latest is not None and latest.update == 1


def test_where_none_is_whole_nothing_is_begun_anew(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    _change(save(store, 1))
    _zeros(save(store, 2))
    with pytest.raises(ModelError, match=r"none of its checkpoints is whole; choose another run\.name"):
        store.latest()


def test_the_best_one_is_read_before_it_is_believed(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=5, best_metric="m")
    for update, value in ((1, 0.5), (2, 0.9), (3, 0.7)):
        save(store, update, value)
    _change(tmp_path / "update-000002")
    best = store.best()
    assert best is not None and best.update == 3


def test_what_a_worker_wrote_elsewhere_is_not_committed(tmp_path: Path) -> None:
    """Another node's disk under the same name: the worker saw its file there, the controller does not."""
    store = CheckpointStore(tmp_path)
    save(store, 1)
    for wrote, message in (({"bytes": 7, "sha256": ""}, "has 3"), (None, "is absent")):
        folder = store.begin(2)
        (folder / "rank_0.bin").write_bytes(b"123")
        files = {"rank_0.bin": wrote} if wrote else {"rank_1.bin": {"bytes": 5, "sha256": ""}}
        with pytest.raises(ClusterError, match=rf"{message}; run\.directory must be on storage that every node sees"):
            store.commit(folder, 2, state={}, config=CONFIG, data_fingerprint="", files=files)
        latest = store.latest()
        assert latest is not None and latest.update == 1


def test_a_torn_checkpoint_does_not_count_as_one_of_the_last(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2)
    save(store, 1)
    _remove(save(store, 2))
    save(store, 3)
    assert (tmp_path / "update-000001").exists()


def test_a_folder_that_is_no_checkpoint(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(ConfigError, match=r"checkpoint\.resume"):
        store.open(tmp_path / "absent")
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(ConfigError, match="not the manifest"):
        store.open(tmp_path)


def test_an_older_line_replaces_the_newer_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=3, best_metric="m")
    for update, value in ((10, 0.1), (20, 0.9), (30, 0.8)):
        save(store, update, value)
    save(store, 15, 0.2)
    assert names(tmp_path) == ["update-000010", "update-000015"]


def test_saving_an_update_again_replaces_it(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 4, content=b"old")
    path = save(store, 4, content=b"newer")
    assert (path / "policy" / "rank_0.bin").read_bytes() == b"newer"
    assert names(tmp_path) == ["update-000004"]


def test_state_that_json_cannot_keep_is_refused_and_leaves_the_old_one(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    with pytest.raises(ValueError):
        store.commit(store.begin(2), 2, state={"mean": math.nan}, config=CONFIG, data_fingerprint="")
    latest = store.latest()
    assert latest is not None and latest.update == 1


class Crash(BaseException):
    """The process ends here."""


def _crash_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Let the `step`-th rename, fsync, or removed file of the process be its last act: it does not happen."""
    done = 0

    def wrap(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal done
            done += 1
            if done >= step:
                raise Crash
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)

    for name in ("rename", "fsync", "unlink", "rmdir"):
        wrap(os, name)
    wrap(shutil, "rmtree")


@pytest.mark.parametrize("replace", [False, True], ids=["next", "same"])
def test_a_crash_at_any_step_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    update = 2 if replace else 3
    outcomes = set()
    for step in range(1, 100):
        root = tmp_path / str(step)
        store = CheckpointStore(root, keep_last=1)
        save(store, 1, content=b"first")
        save(store, 2, content=b"old")
        with monkeypatch.context() as patch:
            _crash_at(patch, step)
            try:
                save(store, update, content=b"the new one")
                crashed = False
            except Crash:
                crashed = True
        again = CheckpointStore(root, keep_last=1)
        again.recover()
        latest = again.latest()
        assert latest is not None, f"nothing left after a crash at step {step}"
        content = (latest.path / "policy" / "rank_0.bin").read_bytes()
        assert (latest.update, content) in {(2, b"old"), (update, b"the new one")}
        assert all(name.startswith("update-") for name in names(root))
        outcomes.add(content)
        save(again, 4)
        assert names(root) == ["update-000004"]
        if not crashed:
            assert content == b"the new one" and step > 5
            break
    else:
        pytest.fail("the save never ran to its end")
    assert outcomes == {b"old", b"the new one"}


def test_reading_beside_a_writer_changes_nothing(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    folder = store.begin(2)
    (folder / "half").write_bytes(b"x")
    reader = CheckpointStore(tmp_path)
    latest = reader.latest()
    assert latest is not None and latest.update == 1
    assert reader.best() is None
    assert (folder / "half").exists()


_VALUES = st.dictionaries(
    st.integers(0, 60), st.none() | st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=12
)


@given(values=_VALUES, keep_last=st.integers(1, 4), mode=st.sampled_from(["max", "min"]))
def test_prune_rules(values: dict[int, float | None], keep_last: int, mode: str) -> None:
    kept = kept_updates(values, keep_last, mode)
    assert kept <= set(values)
    assert max(values) in kept
    assert min(keep_last, len(values)) <= len(kept) <= keep_last + 1
    newer_than = {update: sum(other > update for other in values) for update in values}
    best = best_update(values, mode)
    for update in values:
        assert (update in kept) == (newer_than[update] < keep_last or update == best)
    known = {update: value for update, value in values.items() if value is not None}
    if not known:
        assert best is None
    else:
        assert best is not None
        extreme = max(known.values()) if mode == "max" else min(known.values())
        assert best == max(update for update, value in known.items() if value == extreme)


@given(
    values=st.lists(st.none() | st.floats(-10, 10), min_size=1, max_size=12),
    keep_last=st.integers(1, 3),
    mode=st.sampled_from(["max", "min"]),
)
def test_pruning_after_every_save_keeps_the_best_of_all(values: list[float | None], keep_last: int, mode: str) -> None:
    kept: dict[int, float | None] = {}
    for update, value in enumerate(values):
        kept[update] = value
        kept = {u: kept[u] for u in kept_updates(kept, keep_last, mode)}
    assert set(kept) == kept_updates(dict(enumerate(values)), keep_last, mode)


def test_what_engines_log_is_not_what_is_learned() -> None:
    old, new = ({"rollout": {"log_level": level, "top_p": 1.0}} for level in ("ERROR", "INFO"))
    assert differences(old, new, NOT_IDENTITY) == []


def test_differences_include_the_data(tmp_path: Path) -> None:
    checkpoint = CheckpointStore(tmp_path).open(save(CheckpointStore(tmp_path), 1))
    assert checkpoint.differences({**CONFIG, "run": {"name": "b"}}, "f00d") == []
    assert checkpoint.differences({**CONFIG, "algorithm": {"gamma": 0.9}}, "beef") == [
        "algorithm.gamma: 1 -> 0.9",
        'data_fingerprint: "f00d" -> "beef"',
    ]


def test_what_may_change_exists_in_the_settings() -> None:
    from lrm_safety.settings import Settings

    for key in NOT_IDENTITY:
        kind: Any = Settings
        for part in key.split("."):
            fields = {field.name: field.type for field in kind.__dataclass_fields__.values()}
            assert part in fields, f"{key} is no setting"
            kind = fields[part]


def test_every_byte_is_on_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[int | str] = []
    fsync, rename = os.fsync, os.rename

    def watched_fsync(descriptor: int) -> None:
        events.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def watched_rename(source: Path, target: Path) -> None:
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    path = save(CheckpointStore(tmp_path), 1)
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert {entry.stat().st_ino for entry in (path, *path.rglob("*"))} == set(before)
    assert after == [tmp_path.stat().st_ino], "the new name itself must be on disk too"
