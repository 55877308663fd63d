"""What travels with a job is what Ray packs, told before it is sent."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from ray._private.runtime_env.packaging import create_package

from lrm_safety import upload
from lrm_safety.errors import ConfigError
from lrm_safety.upload import look_at, patterns


def fill(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)


STAYS = (
    *(".git/HEAD", ".venv/bin/python", "mine/bin/python", "mine/pyvenv.cfg", "outputs/a/metrics.jsonl", "wandb/run/x"),
    *(
        "a/checkpoints/update-000001/state.json",
        "data/STAR-1.json",
        "models/m/config.json",
        "secret.txt",
        "multirun/x/y",
    ),
    *("code/__pycache__/a.pyc", ".env"),
)
GOES = ("conf/data/star1.yaml", "data/mine.yaml", "mine.py", "code/a.py", ".gitignore")


def test_the_files_that_are_counted_are_those_that_ray_packs(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    fill(folder, *STAYS, *GOES)
    (folder / ".gitignore").write_text("/secret.txt\n")
    package = tmp_path / "package.zip"
    create_package(str(folder), package, include_gitignore=True, excludes=patterns(folder))
    packed = {name for name in zipfile.ZipFile(package).namelist() if not name.endswith("/")}
    assert look_at(folder).files.keys() == packed == set(GOES)
    assert look_at(folder).bytes == 4 * 1000 + len("/secret.txt\n")
    assert str(look_at(folder)) == (
        f"sending {folder}: 5 files, 4 KiB unpacked; not a checkout, so that the lrm_safety that the cluster has runs"
    )


def test_this_checkout_travels_with_code_configuration_and_the_miniature(repository_root: Path) -> None:
    sent = look_at(repository_root)
    assert {"lrm_safety/cli.py", "conf/config.yaml", "conf/data/star1.yaml", "pyproject.toml"} <= sent.files.keys()
    assert any(name.startswith("lrm_safety/miniature/assets/") and name.endswith(".safetensors") for name in sent.files)
    assert sent.is_checkout and not any(name.startswith((".git/", "tests/", "outputs/")) for name in sent.files)


def test_what_is_too_large_is_refused_with_its_largest_files(tmp_path: Path) -> None:
    fill(tmp_path, "a.txt")
    for size, name in ((3, "large.bin"), (2, "sub/larger.json"), (1, "small.npy")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(size * 1024**2))
    with pytest.raises(ConfigError) as refused:
        look_at(tmp_path, 5)
    assert "6 MiB would be sent, over 5 MiB" in str(refused.value) and "\n" not in str(refused.value)
    assert "the largest: large.bin (3 MiB), sub/larger.json (2 MiB), small.npy (1 MiB), a.txt (1000 B)" in str(
        refused.value
    )
    assert len(look_at(tmp_path, 7).files) == 4


def test_a_folder_of_very_many_files_is_not_walked_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "MOST_FILES", 3)
    fill(tmp_path, "a", "b", "c")
    assert len(look_at(tmp_path).files) == 3
    fill(tmp_path, "d")
    with pytest.raises(ConfigError, match="holds over 3 files"):
        look_at(tmp_path)
