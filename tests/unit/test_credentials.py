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


@pytest.mark.parametrize(
    ("name", "value", "secret"),
    [
        ("WANDB_API_KEY", "x", True),
        ("HF_TOKEN", "x", True),
        ("my_password", "x", True),
        ("AWS_SECRET_ACCESS", "x", True),
        ("HTTPS_PROXY", "http://user:word@proxy:3128", True),
        ("INDEX", "https://onlytoken@host/simple", True),
        ("LRM_SAFETY_DATA", "/shared/data", False),
        ("HF_HOME", "/shared/hf", False),
        ("TOKENIZERS_PARALLELISM", "false", False),
        ("KEYBOARD", "us", False),
        ("HF_TOKEN_PATH", "/shared/me/token", False),
        ("WANDB_API_KEY_FILE", "/shared/me/key", False),
        ("OPENAI_API_KEY_2", "x", True),
        ("APIKEYS", "x", True),
        ("GITHUB_PAT", "x", True),
        ("PATH", "/usr/bin", False),
        ("FOLDER", "hf_abcdefghijklmnopqrst", True),
        ("FOLDER", "/shared/hf-models-of-us/sk-learn-of-us", False),
        ("WANDB_MODE", "offline", False),
        ("HTTPS_PROXY", "http://proxy:3128/a@b", False),
    ],
)
def test_what_looks_like_a_secret(name: str, value: str, secret: bool) -> None:
    assert credentials.is_secret(name, value) is secret


@pytest.mark.parametrize(
    ("argument", "kept"),
    [
        ("judge.api_key=abcdef", "judge.api_key=***"),
        ("+reward.headers={Authorization: 'Bearer abc', x: 1}", "+reward.headers={Authorization: ***"),
        ("reward.endpoint=https://me:pw@host/score", "reward.endpoint=https://***@host/score"),
        ("run.name=hf_abcdefghijklmnopqrst", "run.name=***"),
        ("x=my-planted-value", "x=***"),
        ("x=" + "0123456789abcdef" * 2 + "01234567", "x=***"),
        ("x=AKIAABCDEFGHIJKLMNOP", "x=***"),
        ("x=AIzaSyA1234567890abcdefghijk", "x=***"),
        ("x=nvapi-abcdefghijkl1234", "x=***"),
        ("db.pwd=hunter2", "db.pwd=***"),
        ("x=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abcdefghijk", "x=***"),
        (
            "model.path=/hub/" + "0123456789abcdef" * 2 + "01234567",
            "model.path=/hub/" + "0123456789abcdef" * 2 + "01234567",
        ),
        ("judge.api_key_env=OPENAI_API_KEY", "judge.api_key_env=OPENAI_API_KEY"),
        ("rollout.max_response_tokens=128", "rollout.max_response_tokens=128"),
        (
            "model.revision=" + "0123456789abcdef" * 2 + "01234567",
            "model.revision=" + "0123456789abcdef" * 2 + "01234567",
        ),
    ],
)
def test_no_secret_of_a_command_line_is_kept(monkeypatch: pytest.MonkeyPatch, argument: str, kept: str) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "my-planted-value")
    assert credentials.without_secrets(argument) == kept


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("error: run.env=[WANDB_API_KEY=abc,B=2]: no", "error: run.env=[WANDB_API_KEY=***,B=2]: no"),
        ("env={A_TOKEN='a b', B='c'}", "env={A_TOKEN=***, B='c'}"),
        ("judge.one.api_key=[abc: no; judge.two.token=abc.d", "judge.one.api_key=***: no; judge.two.token=***"),
        ("model.path=https://me:abc@host/x: no such folder", "model.path=https://***@host/x: no such folder"),
        ("submit: unknown --x HF_TOKEN=abc", "submit: unknown --x HF_TOKEN=***"),
        *(
            (line, line)
            for line in (
                "unknown key tracking.api_key; did you mean tracking.name?",
                "--env WANDB_API_KEY: is not set here; give --env WANDB_API_KEY=VALUE",
                "judge.api_key_env=OPENAI_API_KEY: this environment variable is not set",
                "lines such as WANDB_API_KEY=...",
                "judge.api_key=null: must be text",
                "rollout.max_tokens=5, data.sort_key=a: the key of it",
                "LRM_SAFETY_SECRETS=/shared/me/secrets: cannot be read on this node",
                "HF_TOKEN_PATH=/shared/me/token: is absent",
            )
        ),
    ],
)
def test_what_an_error_says_shows_no_secret_and_keeps_its_words(line: str, told: str) -> None:
    assert credentials.masked(line) == told


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
