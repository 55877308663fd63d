"""The client's policy by itself; what its two users make of it is in test_reward_http.py and test_judge_endpoint.py."""

from __future__ import annotations

import logging
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import HTTPServer
from pathlib import Path

import httpx
import pytest
from loopback import Handler, serving

from lrm_safety.errors import ConfigError
from lrm_safety.http_client import HttpClient, RequestFailed, below, check_url, retry_after


def client_of(url: str = "http://127.0.0.1:1/", **options: float) -> HttpClient:
    usual = {"timeout_seconds": 5.0, "max_retries": 3, "first_delay_seconds": 0.5, "max_delay_seconds": 3.0}
    headers = {"Authorization": "Bearer very-secret"}
    return HttpClient(f"key={url}", url, wanted="scores", headers=headers, **(usual | options))  # type: ignore[arg-type]


class Clock(threading.Event):
    """Notes how long is waited, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waited.append(timeout or 0.0)
        return self.is_set()


def answered(client: HttpClient, answer: Callable[[httpx.Request], httpx.Response]) -> HttpClient:
    client._client = httpx.Client(transport=httpx.MockTransport(answer))
    return client


def test_waits_double_up_to_the_limit_and_differ_by_chance() -> None:
    """0.5, 1, 2, then 3 (the limit) and not 4 seconds, each longer by up to a quarter, and not by the same share."""
    clock, client = Clock(), answered(client_of(max_retries=4), lambda request: httpx.Response(500))
    with pytest.raises(RequestFailed, match=r"^key=.*: no scores after 5 tries of 5 s each; .* status 500 Internal"):
        client.post(b"{}", bytes.decode, clock)
    shares = [waited / base for waited, base in zip(clock.waited, (0.5, 1.0, 2.0, 3.0), strict=True)]
    assert all(1 <= share <= 1.25 for share in shares) and len(set(shares)) == 4
    assert client.counters == {"requests": 5, "retries": 4}


def test_the_longest_time_of_a_request_is_known_beforehand() -> None:
    """Four tries of 5 s, each followed by at most 3 s and a quarter: 4 x (5 + 3.75)."""
    assert client_of().longest_seconds == 35.0


def test_what_the_endpoint_asks_for_is_waited_for_up_to_the_limit() -> None:
    clock, client = Clock(), client_of(max_retries=2)
    asked = iter(["2", "999"])
    answered(client, lambda request: httpx.Response(429, headers={"Retry-After": next(asked, "0")}))
    with pytest.raises(RequestFailed):
        client.post(b"{}", bytes.decode, clock)
    assert 2 <= clock.waited[0] <= 2.5 and 3 <= clock.waited[1] <= 3.75


def test_any_status_of_success_is_read_and_a_torn_reply_asked_for_again() -> None:
    replies = iter([b"torn", b"7"])
    client = answered(client_of(), lambda request: httpx.Response(201, content=next(replies)))
    assert client.post(b"{}", lambda content: int(content), Clock()) == 7


def test_a_refusal_that_quotes_the_key_is_told_without_it(caplog: pytest.LogCaptureFixture) -> None:
    client = answered(client_of(), lambda request: httpx.Response(401, content=b"unknown key very-secret" + b"x" * 999))
    with caplog.at_level(logging.DEBUG), pytest.raises(RequestFailed) as refused:
        client.post(b"{}", bytes.decode, Clock())
    assert "refused with status 401 Unauthorized (b'unknown key ***xxx" in str(refused.value)
    assert len(str(refused.value)) < 300 and refused.value.status == 401
    assert "very-secret" not in str(refused.value) + repr(refused.value.content) + caplog.text


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, 7.0),
        ("2", 2.0),
        ("2.5", 2.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("nan", 7.0),
        ("inf", 7.0),
        ("soon", 7.0),
        ("", 7.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
    ],
)
def test_values_of_retry_after(value: str | None, expected: float) -> None:
    assert retry_after(value, otherwise=7.0) == expected
    assert 8.0 < retry_after(formatdate(time.time() + 10, usegmt=True), otherwise=7.0) <= 10.0


@pytest.fixture(scope="module")
def https(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An endpoint that says 7, and the certificate, known to nobody, by which it does."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key} -out {certificate}"
    subprocess.run([*made.split(), "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)

    class Seven(Handler):
        def do_POST(self) -> None:
            self.body()
            self.reply(200, b"7")

    server = HTTPServer(("127.0.0.1", 0), Seven)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with serving(server):
        yield f"https://localhost:{server.server_port}/", certificate


def test_a_certificate_that_nobody_vouches_for_is_named_at_once(
    https: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, certificate = https
    client = client_of(url)
    with pytest.raises(RequestFailed, match=r"certificate is not trusted \(self-signed certificate\).*SSL_CERT_FILE"):
        client.post(b"{}", bytes.decode)
    assert client.counters == {"requests": 1}
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert client_of(url).post(b"{}", bytes.decode) == "7"


@pytest.mark.parametrize(
    ("variable", "value"), [("SSL_CERT_FILE", "/nowhere.pem"), ("ALL_PROXY", "carrier-pigeon://coop")]
)
def test_an_environment_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=f"^key=.*cannot be used.*mend.*{variable}") as told:
        client_of()
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8000", "ftp://host/x", "http://", "http://host:port/", "http://[::1"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"reward\.models\.far\.url"):
        check_url(url, "reward.models.far.url")


def test_credentials_do_not_reach_a_message() -> None:
    with pytest.raises(ConfigError) as caught:
        check_url("https://me:secret@host/score", "reward.models.far.url")
    for name in ("api_key", "token", "access_token", "sig", "apikey"):
        with pytest.raises(ConfigError, match="api_key_env") as refused:
            check_url(f"https://host/score?view=1&{name}=hunter2", "reward.models.far.url")
        assert "hunter2" not in str(refused.value)
    check_url("https://host/score?max_tokens=3&monkey=1", "reward.models.far.url")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://one:8000/v1", "http://one:8000/v1/chat/completions"),
        ("http://one:8000/v1/", "http://one:8000/v1/chat/completions"),
        ("http://one", "http://one/chat/completions"),
        (
            "https://one/deployments/a%20b?api-version=2024-06-01",
            "https://one/deployments/a%20b/chat/completions?api-version=2024-06-01",
        ),
    ],
)
def test_a_path_is_put_before_the_query(url: str, expected: str) -> None:
    assert below(url, "chat/completions") == expected
