"""Bucket files: whole, private, in shared memory or on disk, and gone when they should be."""

from __future__ import annotations

import shutil
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from lrm_safety.weight_sync import shm
from lrm_safety.weight_sync.source import ZeroThreeSource


class TwoLayers(torch.nn.Module):
    """Two layers of 40 float32 numbers each; transformers' conversion leaves such names alone."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Linear(4, 8), torch.nn.Linear(4, 8)])
        self._weight_conversions: list[object] = []
        self.config = None


@pytest.fixture
def source() -> ZeroThreeSource:
    return ZeroThreeSource(TwoLayers(), bucket_bytes=160, rank=0)


def test_one_readable_file_per_bucket(source: ZeroThreeSource, tmp_path: Path) -> None:
    paths = list(shm.write_buckets(source, tmp_path / "run" / "version", rank=0))
    assert len(paths) == 2
    assert sorted(paths) == paths
    loaded = [load_file(path) for path in paths]
    assert [sorted(file) for file in loaded] == [
        ["layers.0.bias", "layers.0.weight"],
        ["layers.1.bias", "layers.1.weight"],
    ]
    expected = dict(source)
    for file in loaded:
        for name, tensor in file.items():
            torch.testing.assert_close(tensor, expected[name], rtol=0, atol=0)


def test_only_whole_files_remain_and_only_for_this_user(source: ZeroThreeSource, tmp_path: Path) -> None:
    paths = list(shm.write_buckets(source, tmp_path / "run" / "version", rank=0))
    assert sorted(map(str, (tmp_path / "run" / "version").iterdir())) == paths
    for folder in (tmp_path / "run", tmp_path / "run" / "version"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_other_ranks_take_part_and_write_nothing(tmp_path: Path) -> None:
    passes = []

    class Counting(ZeroThreeSource):
        def buckets(self, **how):
            for bucket in super().buckets(**how):
                passes.append(len(bucket))
                yield bucket

    assert list(shm.write_buckets(Counting(TwoLayers(), 160, rank=1), tmp_path / "none", rank=1)) == []
    assert passes == [2, 2]
    assert not (tmp_path / "none").exists()


def test_falls_back_to_disk_without_room(source: ZeroThreeSource, tmp_path: Path, monkeypatch) -> None:
    disk = tmp_path / "disk"
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(disk))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=source.num_bytes))
    folder = tmp_path / "memory" / "run" / "version"
    paths = list(shm.write_buckets(source, folder, rank=0))
    assert all(Path(path).is_relative_to(disk) for path in paths)
    assert load_file(paths[0])
    assert not folder.exists()
    shm.remove_folder(folder)
    assert not list(disk.iterdir())


def test_versions_live_side_by_side_and_go_one_by_one(source: ZeroThreeSource, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shm, "SHARED_MEMORY", tmp_path)
    first, second = (shm.version_folder("a run/of mine", version) for version in (1, 2))
    assert first.parent == second.parent
    assert first.parent.parent == tmp_path
    assert first != second
    list(shm.write_buckets(source, first, rank=0))
    paths = list(shm.write_buckets(source, second, rank=0))
    shm.remove_folder(first)
    assert not first.exists()
    assert load_file(paths[0])
    shm.remove_folder(second)
    assert list(tmp_path.iterdir()) == []
    shm.remove_folder(second)  # a version that is gone already is no error


def test_only_what_a_dead_process_of_this_host_left_is_removed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(shm, "SHARED_MEMORY", tmp_path / "memory")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / "disk"))
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    own = shm.run_name()
    dead, foreign = f"{host}-{ended.pid}", f"not-{host}-{ended.pid}"
    for name in (own, dead, foreign):
        shm.version_folder(name, 1).mkdir(parents=True)
    (tmp_path / "disk" / f"lrm_safety-{dead}").mkdir(parents=True)
    shm.remove_abandoned()
    assert {folder.name for folder in (tmp_path / "memory").iterdir()} == {f"lrm_safety-{own}", f"lrm_safety-{foreign}"}
    assert not list((tmp_path / "disk").iterdir())
    shm.version_folder(own, 2).mkdir()
    shm.remove_run(own)
    assert [folder.name for folder in (tmp_path / "memory").iterdir()] == [f"lrm_safety-{foreign}"]
