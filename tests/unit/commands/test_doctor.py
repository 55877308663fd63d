from __future__ import annotations

import json
from pathlib import Path

import pytest

from lrm_safety.commands import doctor as subject
from lrm_safety.commands.doctor import Row
from lrm_safety.errors import ClusterError, ConfigError
from lrm_safety.settings.paths import RAY_SOCKET

GIB = 1024**3


@pytest.mark.parametrize(("found", "level"), [((3, 10), "fail"), ((3, 11), "ok"), ((3, 12), "ok"), ((3, 13), "fail")])
def test_python(found: tuple[int, int], level: str) -> None:
    assert subject.python_row(found).level == level


def test_memory_below_the_miniature_fails_with_a_mend() -> None:
    assert subject.memory_row(20 * GIB).level == "ok"
    short = subject.memory_row(2 * GIB)
    assert short.level == "fail" and "2.0 GiB" in short.found and short.mend


def test_small_shared_memory_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "MINIMUM_SHM_BYTES", 2**62)
    short = subject.shm_row(tmp_path)
    assert short.level == "fail" and "--shm-size" in short.mend
    monkeypatch.setattr(subject, "MINIMUM_SHM_BYTES", 1)
    assert subject.shm_row(tmp_path).level == "ok"
    assert subject.shm_row(tmp_path / "absent").level == "fail"


def test_ray_authentication(tmp_path: Path) -> None:
    assert subject.ray_row({}, tmp_path).level == "ok"
    assert "disabled" in subject.ray_row({"RAY_AUTH_MODE": "disabled"}, tmp_path).found
    token = {"RAY_AUTH_MODE": "token"}
    assert subject.ray_row(token, tmp_path).level == "fail"
    held = subject.ray_row(token | {"RAY_AUTH_TOKEN": "t-456"}, tmp_path)
    assert held.level == "ok" and "t-456" not in repr(held)
    absent = subject.ray_row(token | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}, tmp_path)
    assert absent.level == "fail" and "set RAY_AUTH_TOKEN" in absent.mend
    assert absent.found.startswith(f"RAY_AUTH_TOKEN_PATH={tmp_path}/token: no such file")
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("t-456")
    assert subject.ray_row(token, tmp_path).level == "ok"


def test_cache_may_be_absent_but_not_unwritable(tmp_path: Path) -> None:
    assert subject.cache_row(tmp_path / "a" / "b").level == "ok"
    assert not (tmp_path / "a").exists()
    (tmp_path / "file").touch()
    assert subject.cache_row(tmp_path / "file" / "none").level == "fail"


def test_data_folder(tmp_path: Path) -> None:
    assert [subject.data_row(value).level for value in (None, str(tmp_path), str(tmp_path / "none"))] == [
        "note",
        "ok",
        "fail",
    ]


def test_a_package_outside_its_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = ["numpy>=99", "rich>=1", "no-such-package-at-all>=1", "torch==0; extra == 'cpu'"]
    monkeypatch.setattr(subject, "requires", lambda name: declared)
    found = {row.name: row for row in subject.version_rows()}
    assert set(found) == {"numpy", "no-such-package-at-all"}
    assert ">=99" in found["numpy"].found and all(row.level == "fail" for row in found.values())


@pytest.mark.parametrize(("installed", "level"), [(1, "ok"), (2, "fail"), (0, "fail")])
def test_exactly_one_vllm(monkeypatch: pytest.MonkeyPatch, installed: int, level: str) -> None:
    names = (*("numpy", "rich")[:installed], "no-such-package-at-all")
    monkeypatch.setattr(subject, "VLLM_DISTRIBUTIONS", names)
    assert subject.vllm_row().level == level


def test_a_torchvision_that_does_not_import_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "torchvision.py"
    package.write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "torchvision", raising=False)
    broken = subject.torchvision_row()
    assert broken.level == "fail" and "nms" in broken.found and "pip uninstall" in broken.mend


@pytest.mark.parametrize(("level", "status"), [("ok", 0), ("note", 0), ("fail", 1)])
def test_exit_status_and_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], level: subject.Level, status: int
) -> None:
    monkeypatch.setattr(subject, "rows", lambda: iter([Row("memory", "2 GiB", level, "free some")]))
    assert subject.doctor() == status
    assert "free some" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("system", "machine", "level"),
    [
        ("Linux", "x86_64", "ok"),
        ("Darwin", "arm64", "fail"),
        ("Windows", "AMD64", "fail"),
        ("Linux", "aarch64", "fail"),
    ],
)
def test_only_linux_on_x86_64(system: str, machine: str, level: str) -> None:
    assert subject.system_row(system, machine).level == level


def test_a_temporary_folder_too_long_for_sockets_is_named() -> None:
    """Ray adds 68 bytes; Linux takes 107, so 39 are left."""
    assert len(RAY_SOCKET) == 68
    assert subject.temporary_row({"TMPDIR": "/" + "x" * 38}).level == "ok"
    row = subject.temporary_row({"TMPDIR": "/" + "x" * 39})
    assert (row.name, row.level) == ("TMPDIR", "fail") and "1 bytes too long" in row.found
    # Ray looks at its own variable first, and counts bytes.
    assert subject.temporary_row({"TMPDIR": "/" + "x" * 90, "RAY_TMPDIR": "/tmp"}).level == "ok"
    assert subject.temporary_row({"RAY_TMPDIR": "/" + "é" * 20}).level == "fail"


def test_a_cache_in_a_place_that_only_looks_writable_fails() -> None:
    """Permission bits of /proc allow root everything, and nothing can be made there."""
    assert subject.cache_row(Path("/proc/nope/.cache/lrm_safety")).level == "fail"
    assert subject.temporary_row({"RAY_TMPDIR": "/proc/nope"}).level == "fail"


def test_a_user_without_a_home_gets_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container whose user number is in no passwd file."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("LRM_SAFETY_CACHE", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    (row,) = subject.cache_rows()
    assert row.level == "fail" and "LRM_SAFETY_CACHE" in row.mend


@pytest.mark.parametrize(
    ("version", "level"), [("580.65.06", "ok"), ("590.1", "ok"), ("570.124.06", "fail"), ("", "fail")]
)
def test_driver_of_cuda_13(version: str, level: str) -> None:
    assert subject.driver_row(version).level == level


def test_little_disk_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert subject.disk_row(tmp_path).level == "ok"
    monkeypatch.setattr(subject, "MINIMUM_DISK_BYTES", 2**62)
    assert subject.disk_row(tmp_path).level == "fail"


def test_tokens_are_found_and_not_shown(tmp_path: Path) -> None:
    assert [row.level for row in subject.login_rows({}, tmp_path)] == ["note", "note"]
    held = list(subject.login_rows({"HF_TOKEN": "t-456", "WANDB_API_KEY": "k-789"}, tmp_path))
    assert [row.level for row in held] == ["ok", "ok"] and "456" not in repr(held) and "789" not in repr(held)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k-789\n")
    (tmp_path / ".cache/huggingface").mkdir(parents=True)
    (tmp_path / ".cache/huggingface/token").write_text("t-456")
    assert [row.level for row in subject.login_rows({}, tmp_path)] == ["ok", "ok"]


def test_nobody_is_sent_to_a_hub_that_is_not_asked(tmp_path: Path) -> None:
    for name, value in (("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "yes")):
        hub, _ = subject.login_rows({name: value}, tmp_path)
        assert (hub.level, hub.mend) == ("ok", "") and name in hub.found
    hub, _ = subject.login_rows({"HF_HUB_OFFLINE": "0"}, tmp_path)
    assert "hf auth login" in hub.mend


def test_the_disk_is_that_of_the_folder_of_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = ("version_rows", "vllm_row", "vllm_import_row", "compiler_row", "torch_rows", "driver_rows", "cache_rows")
    for name in quick:
        empty = Row("", "") if name.endswith("_row") else ()
        monkeypatch.setattr(subject, name, lambda empty=empty: empty)
    monkeypatch.setenv("LRM_SAFETY_RUNS", str(tmp_path / "runs"))
    (disk,) = (row for row in subject.rows() if row.name == "disk")
    assert f"free for {tmp_path / 'runs'}" in disk.found
    (given,) = (row for row in subject.rows(tmp_path / "asked") if row.name == "disk")
    assert f"free for {tmp_path / 'asked'}" in given.found


def test_arguments_are_refused_or_answered(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(subject, "rows", lambda: iter([Row("memory", "1 GiB free", "fail", "end other programs")]))
    for wrong, problem in {
        ("--clutser",): "not --clutser",
        ("now",): "not now",
        ("--directory", "x"): "--directory belongs to --cluster",
        ("--cluster", "--address"): "--address: expected one argument",
    }.items():
        with pytest.raises(ConfigError, match=problem):
            subject.doctor(wrong)
    assert subject.doctor(["--json"]) == 1
    assert json.loads(capsys.readouterr().out) == [
        {"name": "memory", "found": "1 GiB free", "level": "fail", "mend": "end other programs"}
    ]


def test_a_cluster_that_is_not_there_is_blamed_on_the_argument(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "elsewhere:6379")
    with pytest.raises(
        ClusterError, match=r"^--address=127\.0\.0\.1:1: no Ray cluster answers there .*ray start --head"
    ):
        subject.doctor(["--cluster", "--address", "127.0.0.1:1"])
    with pytest.raises(ClusterError, match=r"^--address=ray://head:10001: Ray Client "):
        subject.doctor(["--cluster", "--address", "ray://head:10001"])
    said = capsys.readouterr()
    # What it does meanwhile is said beside the rows, which another program may read.
    assert said.out == "" and said.err.splitlines()[0] == "asking the nodes of the cluster ..."
