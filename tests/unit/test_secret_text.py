"""What looks like a secret, and what is shown of a line that holds one."""

from __future__ import annotations

import pytest

from lrm_safety import secret_text


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
    assert secret_text.is_secret(name, value) is secret


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
    assert secret_text.without_secrets(argument) == kept


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
    assert secret_text.masked(line) == told
