from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lrm_safety.errors import ConfigError, DataError
from lrm_safety.files import (
    amount,
    changed_file,
    describe_files,
    differences,
    digest_of,
    disk_says,
    flatten,
    give_usual_modes,
    number_of,
    read_json,
    read_json_lines,
    storage_problem,
    write_atomically,
    write_json,
    write_json_lines,
    writing,
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


def test_text_and_files_of_several_writers(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "größer")
    assert (tmp_path / "a").read_bytes() == b"gr\xc3\xb6\xc3\x9fer"
    (tmp_path / ".b").mkdir()  # in the way of the one name that a single writer has
    write_atomically(tmp_path / "b", b"1", shared=True)
    assert (tmp_path / "b").read_bytes() == b"1"


def test_json_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"é": [1, None]})
    assert read_json(tmp_path / "a.json") == {"é": [1, None]}
    assert (tmp_path / "a.json").read_text().count("\n") == 6
    write_json(tmp_path / "a.json", {"b": 1, "a": 2}, indent=None, sort_keys=True)
    assert (tmp_path / "a.json").read_text() == '{"a": 2, "b": 1}\n'
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "is absent"),
        (b"", "cannot be read: is not JSON"),
        (b'{\n"a": 1,\n}', "cannot be read: is not JSON .*line 3"),
        (b'{"a": "\xff"}', "cannot be read: is not JSON .*utf-8"),
        (b"[" * 100_000, "cannot be read: is not JSON"),
        (b"[1]", "cannot be read: is not a JSON object"),
    ],
)
def test_json_that_is_none_is_one_line(tmp_path: Path, content: bytes | None, fault: str) -> None:
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/a\.json: {fault}.*; make it again$") as told:
        read_json(tmp_path / "a.json", ConfigError, "make it again")
    assert "\n" not in str(told.value)
    with pytest.raises(DataError, match=r"a\.json/b: cannot be read \(Not a directory\)$|b: is absent$"):
        read_json(tmp_path / "a.json" / "b")


def test_lines_of_json(tmp_path: Path) -> None:
    """Only a newline ends a line: U+2028 and U+0085, which str.splitlines takes for one, are letters of a text."""
    rows = [{"t": "a\u2028b\x85c"}, {"t": "ü"}]
    write_json_lines(tmp_path / "a", rows)
    first, second = ('{"t": "a\u2028b\x85c"}\n', '{"t": "ü"}\n')
    assert (tmp_path / "a").read_text() == first + second
    assert list(read_json_lines(tmp_path / "a")) == [(1, first, rows[0]), (2, second, rows[1])]


def test_a_torn_last_line_is_left_out_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text('{"n": 1}\n{"n": 2}\n{"n": ')
    assert [(number, row["n"]) for number, _, row in read_json_lines(file)] == [(1, 1), (2, 2)]
    file.write_text('{"n": 1}\n{"n": 2}')  # whole but for its line break, which is given back
    assert [line for _, line, _ in read_json_lines(file)] == ['{"n": 1}\n', '{"n": 2}\n']
    for damaged in ('{"n": 1}\n\n{"n": 3}\n', '{"n": 1}\n{"n": \n', '{"n": 1}\n[2]\n{"n": 3}'):
        file.write_text(damaged)
        with pytest.raises(DataError, match=rf"^{file}, line 2: cannot be read: is not a JSON object; mend it$"):
            list(read_json_lines(file, "mend it"))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_json_lines(tmp_path / "absent"))


def test_digests_that_are_in_checkpoints_of_earlier_versions() -> None:
    """By `printf abc | sha256sum`; a seed is its first 16 digits, as 64 bits."""
    assert digest_of([b"a", "bc"]) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert number_of("abc") == 0xBA7816BF8F01CFEA


def test_flatten() -> None:
    assert flatten({"a": {"b": {"c": 1}, "d": []}, "e": {}, "f": None}) == {"a.b.c": 1, "a.d": [], "e": {}, "f": None}


def test_differences_name_what_changed() -> None:
    old = {"kl": {"coef": 0.01, "placement": "reward"}, "tags": ["a"], "extra": {}, "lr": 1, "gone": None}
    new = {"kl": {"coef": 0.02, "placement": "reward"}, "tags": ["a", "b"], "extra": {"x": True}, "lr": 1.0}
    assert differences(old, new) == [
        "extra: {} -> (absent)",
        "extra.x: (absent) -> true",
        "gone: null -> (absent)",
        "kl.coef: 0.01 -> 0.02",
        'tags: ["a"] -> ["a", "b"]',
    ]
    assert differences(old, new, ignore={"extra", "gone", "kl.coef", "tags"}) == []
    assert differences({"tracking_x": 1}, {"tracking_x": 2}, ignore={"tracking"}) == ["tracking_x: 1 -> 2"]
    assert differences({"betas": (0.9, 0.95)}, {"betas": [0.9, 0.95]}) == []


def test_differences_tell_true_from_one() -> None:
    assert differences({"packing": True}, {"packing": 1}) == ["packing: true -> 1"]
    assert differences({"long": "x" * 99}, {"long": ""}) == [f'long: "{"x" * 56}... -> ""']


def test_what_cannot_be_written_is_named_and_nothing_hides_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(ConfigError, match=r"^output=x: cannot be written \(Not a directory\); choose another$"),
        writing("output=x"),
    ):
        write_atomically(tmp_path / "file" / "a", b"1")
    with pytest.raises(ValueError), writing("output=x"):
        raise ValueError("a defect of ours keeps its traceback")
