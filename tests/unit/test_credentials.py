"""Secrets come out of a file that nobody else reads, and are quoted nowhere."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from lrm_safety import credentials
from lrm_safety.errors import ConfigError

NAMES = ("PLANTED_A", "PLANTED_B", "PLANTED_C")


@pytest.fixture
def named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "secrets"
    monkeypatch.setenv(credentials.FILE_VARIABLE, str(path))
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is taken away at the end
        monkeypatch.delenv(name)
    return path


def test_lines_become_variables_and_what_is_set_stays(named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named.write_text("# ours\n\nPLANTED_A=one=1\nexport PLANTED_B='two 2'\nPLANTED_C=three\n")
    named.chmod(0o600)
    monkeypatch.setenv("PLANTED_C", "already")
    credentials.load()
    assert [os.environ[name] for name in NAMES] == ["one=1", "two 2", "already"]


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o620, 0o604])
def test_a_file_that_others_may_use_is_refused(named: Path, mode: int) -> None:
    named.write_text("PLANTED_A=hidden\n")
    named.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600") as refused:
        credentials.load()
    assert "hidden" not in str(refused.value) and "PLANTED_A" not in os.environ


@pytest.mark.parametrize("content", [b"hidden\n", b"A B=hidden\n", b"=hidden\n", b"\xff\xfehidden"])
def test_what_is_no_line_is_named_by_its_number_alone(named: Path, content: bytes) -> None:
    named.write_bytes(content)
    named.chmod(0o600)
    with pytest.raises(ConfigError, match="LRM_SAFETY_SECRETS=") as refused:
        credentials.load()
    assert "hidden" not in str(refused.value) and refused.value.__cause__ is None


def test_an_absent_file_is_said(named: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read on this node"):
        credentials.load()


def test_the_key_of_an_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file's last line break often comes along with a key; in a header it would end every request."""
    monkeypatch.setenv("PLANTED_A", " planted-key\n")
    assert credentials.api_key("PLANTED_A", "judge.api_key_env") == "planted-key"
    for value, reason in (
        ("planted\nkey", "cannot be sent"),
        ("planted-k\u00e9y", "cannot be sent"),
        (" \n", "is not set"),
    ):
        monkeypatch.setenv("PLANTED_A", value)
        with pytest.raises(ConfigError, match=rf"^judge\.api_key_env=PLANTED_A: .*{reason}") as refused:
            credentials.api_key("PLANTED_A", "judge.api_key_env")
        assert "planted" not in str(refused.value)


def token_file(folder: Path, kind: str) -> Path:
    path = folder / "ray-token"
    if kind == "folder":
        path.mkdir()
    elif kind != "absent":
        path.write_text({"empty": "\n", "held": "t-456\n"}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("absent", "no such file on this machine"),
        ("empty", "is empty"),
        ("folder", "is a folder and no file"),
        ("held", None),
    ],
)
def test_the_file_of_rays_token_is_named_where_it_holds_none(tmp_path: Path, kind: str, told: str | None) -> None:
    path = token_file(tmp_path, kind)
    named = {"RAY_AUTH_TOKEN_PATH": str(path)}
    fault = credentials.ray_token_fault(named)
    if told is None:
        assert fault is None
    else:
        assert fault is not None
        assert fault.startswith(f"RAY_AUTH_TOKEN_PATH={path}: {told}, ") and "`ray get-auth-token`" in fault
    assert credentials.ray_token_fault(named | {"RAY_AUTH_TOKEN": "t-456"}) is None, "Ray reads the variable first"
    assert credentials.ray_token_fault({}) is None
    # As Ray itself reads it.
    from ray._private.authentication_test_utils import reset_auth_token_state
    from ray._raylet import AuthenticationTokenLoader
    from ray.exceptions import AuthenticationError

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_AUTH_TOKEN", raising=False)
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(path))
        reset_auth_token_state()
        try:
            assert AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True) and told is None
        except AuthenticationError:
            assert told is not None
    reset_auth_token_state()


@pytest.mark.parametrize(
    ("mode", "by_default", "refused"),
    [("token", False, True), (None, True, True), (None, False, False), ("disabled", True, False)],
)
def test_a_token_is_missed_only_where_ray_asks_for_it(
    tmp_path: Path, mode: str | None, by_default: bool, refused: bool
) -> None:
    environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "absent"), **({} if mode is None else {"RAY_AUTH_MODE": mode})}
    with pytest.raises(ConfigError, match="RAY_AUTH_TOKEN_PATH=") if refused else contextlib.nullcontext():
        credentials.check_ray_token(environment, by_default=by_default)
