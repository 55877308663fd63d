"""Secrets come out of a file that nobody else reads, and are quoted nowhere."""

from __future__ import annotations

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
