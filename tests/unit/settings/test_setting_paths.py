from __future__ import annotations

from pathlib import Path

import pytest

import lrm_safety
from lrm_safety.errors import ConfigError
from lrm_safety.settings.paths import cache_directory, configuration_directory, resolve

PACKAGE = Path(lrm_safety.__file__).resolve().parent


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a file and a folder in it, a home with a model, a cache with one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LRM_SAFETY_CACHE", str(tmp_path / "cache"))
    for name in ("models/mine", "owner/name", "home/model", "cache/small"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "prompts.jsonl").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("prompts.jsonl", "prompts.jsonl"),
        ("./prompts.jsonl", "prompts.jsonl"),
        ("models/mine", "models/mine"),
        ("owner/name", "owner/name"),  # a folder of that name goes before the hub
        ("~/model", "home/model"),
        ("cache:small", "cache/small"),
    ],
)
def test_what_exists_becomes_absolute(folder: Path, given: str, expected: str) -> None:
    resolved = resolve(given, "model.path")
    assert Path(resolved).is_absolute() and Path(resolved).samefile(folder / expected)


def test_package_paths_lie_in_the_package() -> None:
    assert resolve("package:lrm_safety/miniature/assets/policy", "model.path") == str(
        PACKAGE / "miniature" / "assets" / "policy"
    )


@pytest.mark.parametrize("given", ["Qwen/Qwen3-8B", "UCSC-VLAA/STAR-1", "someone/a.b_c-1"])
def test_a_hub_id_is_left_alone(given: str) -> None:
    assert resolve(given, "model.path") == given


@pytest.mark.parametrize(
    "given",
    [
        "absent",
        "absent.jsonl",
        "./a/b",
        "/absent/model",
        "~/absent",
        "a/b/c",
        "nobody/",
        "/name",
        "package:lrm_safety/x",
    ],
)
def test_what_only_looks_like_a_path_is_refused(given: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resolve(given, "reward.models.one.path")
    assert str(refused.value).startswith(f"reward.models.one.path={given}: no such file or folder")


@pytest.mark.parametrize(
    ("given", "where"),
    [
        ("/absent/model", ""),
        ("a/b/c", " ({here}/a/b/c)"),
        ("~/absent", " ({home}/absent)"),
        ("https://host/absent/model", ""),
    ],
)
def test_a_path_is_told_once_and_where_it_was_looked_for_if_that_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    with pytest.raises(ConfigError) as refused:
        resolve(given, "model.path")
    told = where.format(here=tmp_path, home="/home/me")
    assert str(refused.value).startswith(
        f"model.path={given}: no such file or folder{told}; name a folder that holds a model's "
    )
    assert "`hf download OWNER/NAME`" in str(refused.value)
    relative = "; a relative path is looked for in the folder where the command was started"
    assert str(refused.value).endswith(relative) == (given == "a/b/c")


def test_the_mend_is_that_of_what_is_named() -> None:
    for of, told in (
        ("rows", "; name a file of rows"),
        ("adapter", "; name a folder that holds adapter_config.json, or"),
        ("", ""),
    ):
        with pytest.raises(ConfigError) as refused:
            resolve("/absent/it", "data.path", of)
        assert str(refused.value).startswith(f"data.path=/absent/it: no such file or folder{told}")
        assert bool(told) or str(refused.value).endswith("folder")
    with pytest.raises(ConfigError, match="shipped with the package, such as package:lrm_safety/miniature/assets"):
        resolve("package:lrm_safety/nothing", "model.path")
    assert Path(resolve("package:lrm_safety/miniature/assets", "model.path")).is_dir()


def test_a_model_that_was_not_fetched_says_how(folder: Path) -> None:
    with pytest.raises(ConfigError, match="run `lrm-safety fetch tiny` first"):
        resolve("cache:tiny", "model.path")


def test_the_cache_is_in_the_home_unless_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_directory() == folder / "cache"
    monkeypatch.setenv("LRM_SAFETY_CACHE", "")
    assert cache_directory() == folder / "home" / ".cache" / "lrm_safety"


def test_the_configuration_lies_beside_the_package() -> None:
    assert configuration_directory() == PACKAGE.parent / "conf"
