from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lrm_safety.files import (
    amount,
    changed_file,
    describe_files,
    disk_says,
    give_usual_modes,
    storage_problem,
    write_atomically,
)


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_the_umask_decides_who_may_read(tmp_path: Path, mask: int) -> None:
    """safetensors writes through a temporary file, which is its owner's alone."""
    former = os.umask(mask)
    try:
        (tmp_path / "export" / "adapter").mkdir(parents=True, mode=0o700)
        for name in ("model.safetensors", "adapter/a"):
            (tmp_path / "export" / name).write_bytes(b"")
            (tmp_path / "export" / name).chmod(0o600)
        give_usual_modes(tmp_path / "export")
    finally:
        os.umask(former)

    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    assert (
        mode(tmp_path / "export" / "model.safetensors") == mode(tmp_path / "export" / "adapter" / "a") == 0o666 & ~mask
    )
    assert mode(tmp_path / "export") == mode(tmp_path / "export" / "adapter") == 0o777 & ~mask


def test_a_failed_write_leaves_the_old_file_and_nothing_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "a", b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError):
        write_atomically(tmp_path / "a", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_bytes() == b"old"


def test_what_changed_is_named(tmp_path: Path) -> None:
    for name in ("a", "b/c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"123")
    described = describe_files(tmp_path, [tmp_path / "a", tmp_path / "b" / "c"])
    assert changed_file(tmp_path, described) is None
    (tmp_path / "b" / "c").write_bytes(b"124")
    assert changed_file(tmp_path, described) == "the content of b/c is not what was written"
    (tmp_path / "a").unlink()
    assert changed_file(tmp_path, described) == "a is missing"


def test_a_full_disk_is_told_in_numbers(tmp_path: Path) -> None:
    assert storage_problem(tmp_path / "not" / "yet") is None
    problem = storage_problem(tmp_path / "run", 10**18)
    assert (
        problem is not None and problem.startswith(f"{tmp_path} is full: ") and "about 1000000.0 TB needed" in problem
    )
    assert list(tmp_path.iterdir()) == []
    assert [amount(n) for n in (12, 1500, 126e9, 2e12)] == ["12 bytes", "1.5 kB", "126.0 GB", "2.0 TB"]


def test_a_full_disk_is_known_in_every_librarys_words() -> None:
    safetensors = pytest.importorskip("safetensors")
    full = safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert disk_says(full) == disk_says(OSError(28, "No space")) == os.strerror(28)
    assert disk_says(safetensors.SafetensorError("InvalidHeader")) is None and disk_says(OSError(2, "absent")) is None
    with pytest.raises(OSError) as long:
        Path("a" * 300).exists()
    assert disk_says(long.value) == os.strerror(36)
