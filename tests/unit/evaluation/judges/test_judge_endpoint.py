"""One chat endpoint against a real server on loopback that fails, hangs, drips and recovers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from typing import Any

import pytest
from loopback import Handler, cut_short, drip, hang_up, serving

from lrm_safety.errors import ConfigError, JudgeError
from lrm_safety.evaluation.judges.llm import ChatEndpoint, Reply, RequestError, _reply_of

Step = Callable[["ByStep"], None]
KEY = "evaluation.judges.mine.base_url"


class Server(ThreadingHTTPServer):
    """The first requests are met by `steps`, later ones answered `fine`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), ByStep)
        self.steps: list[Step] = []
        self.times: list[float] = []
        self.bodies: list[bytes] = []
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.finished = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class ByStep(Handler):
    server: Server

    def do_POST(self) -> None:
        self.server.bodies.append(self.body())
        self.server.times.append(time.monotonic())
        self.server.seen.append((self.path, dict(self.headers)))
        step = self.server.steps.pop(0) if self.server.steps else says("fine")
        try:
            step(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def says(text: str | None) -> Step:
    content = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
    return lambda handler: handler.reply(200, content)


def status(code: int, content: bytes = b"", **headers: str) -> Step:
    return lambda handler: handler.reply(code, content, **headers)


def hangs(handler: ByStep) -> None:
    handler.server.finished.wait(3)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as server:
        yield server
        server.finished.set()


def endpoint_of(url: str, **options: Any) -> ChatEndpoint:
    usual: dict[str, Any] = {
        "api_key": None,
        "timeout_seconds": 3.0,
        "max_retries": 2,
        "first_delay_seconds": 0.01,
        "max_delay_seconds": 5.0,
        "max_connections": 2,
    }
    return ChatEndpoint(KEY, url, **(usual | options))


def complete(endpoint: ChatEndpoint, stop: threading.Event | None = None) -> str:
    try:
        return endpoint.complete(b'{"model": "m"}', stop or threading.Event()).text
    finally:
        endpoint.close()


def test_the_request_is_what_the_api_asks_for(server: Server) -> None:
    endpoint = endpoint_of(server.url + "/", api_key="secret")
    assert complete(endpoint) == "fine"
    ((path, headers),) = server.seen
    assert path == "/v1/chat/completions" and server.bodies == [b'{"model": "m"}']
    assert headers["Authorization"] == "Bearer secret" and headers["Content-Type"] == "application/json"
    assert endpoint.counters == {"requests": 1}


@pytest.mark.parametrize(
    "step",
    [
        status(500),
        status(502),
        status(503),
        status(408),
        status(429),
        status(200, b"<html>busy</html>"),
        status(200, b""),
        status(200, b'{"choices": []}'),
        status(200, b'{"choices": [{"message": {"content": 3}}]}'),
        hang_up,
        cut_short,
    ],
)
def test_what_passes_is_tried_again(server: Server, step: Step) -> None:
    server.steps = [step, step]
    endpoint = endpoint_of(server.url)
    assert complete(endpoint) == "fine"
    assert endpoint.counters == {"requests": 3, "retries": 2} and len(server.bodies) == 3


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_what_does_not_pass_is_told_at_once(server: Server, code: int) -> None:
    server.steps = [status(code, b'{"error": "no such\\nmodel"}')]
    with pytest.raises(
        JudgeError, match=rf"^evaluation\.judges\.mine\.base_url=http://.*refused with status {code} "
    ) as told:
        complete(endpoint_of(server.url, api_key="very-secret"))
    assert len(server.bodies) == 1 and "no such" in str(told.value)
    assert "very-secret" not in str(told.value) and "\n" not in str(told.value)


def test_redirections_are_not_followed(server: Server) -> None:
    """They would carry the key to another host."""
    server.steps = [status(307, Location=server.url + "/elsewhere")]
    with pytest.raises(JudgeError, match="refused with status 307"):
        complete(endpoint_of(server.url, api_key="secret"))
    assert len(server.bodies) == 1


def test_an_endpoint_that_stays_down_is_one_line(server: Server) -> None:
    server.steps = [status(500)] * 9
    with pytest.raises(JudgeError) as told:
        complete(endpoint_of(server.url))
    assert str(told.value) == (
        f"{KEY}={server.url}: no verdict after 3 tries of 3 s each; the last failed with status 500 Internal Server Error"
    )
    assert len(server.bodies) == 3


def test_delays_double(server: Server) -> None:
    server.steps = [status(500)] * 3
    assert complete(endpoint_of(server.url, max_retries=3, first_delay_seconds=0.1)) == "fine"
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    for gap, expected in zip(gaps, (0.1, 0.2, 0.4), strict=True):
        assert expected <= gap < expected + 0.6


def test_delays_have_a_limit(server: Server) -> None:
    server.steps = [status(500)] * 3
    begin = time.monotonic()
    assert complete(endpoint_of(server.url, max_retries=3, first_delay_seconds=0.1, max_delay_seconds=0.1)) == "fine"
    assert 0.3 <= time.monotonic() - begin < 2


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_is_waited_for(server: Server, code: int) -> None:
    server.steps = [status(code, Retry_After="0.5")]
    assert complete(endpoint_of(server.url)) == "fine"
    assert 0.5 <= server.times[1] - server.times[0] < 2.5


def test_retry_after_of_other_statuses_is_not_read(server: Server) -> None:
    server.steps = [status(500, Retry_After="4")]
    complete(endpoint_of(server.url))
    assert server.times[1] - server.times[0] < 2


@pytest.mark.parametrize("step", [hangs, drip])
def test_the_limit_is_of_the_whole_exchange(server: Server, step: Step) -> None:
    server.steps = [step, step]
    begin = time.monotonic()
    with pytest.raises(JudgeError, match=r"no verdict after 2 tries of 0\.3 s each; the last failed with \w*Timeout"):
        complete(endpoint_of(server.url, timeout_seconds=0.3, max_retries=1))
    assert 0.6 <= time.monotonic() - begin < 2.5


def test_a_slow_reply_is_followed_by_a_quick_one(server: Server) -> None:
    server.steps = [hangs]
    assert complete(endpoint_of(server.url, timeout_seconds=0.5)) == "fine"


def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(JudgeError, match=r"no verdict after 3 tries.*ConnectError") as told:
            complete(endpoint_of(url))
    assert "\n" not in str(told.value)


def test_stop_ends_the_wait_and_asks_nothing_more(server: Server) -> None:
    stop = threading.Event()
    timer = threading.Timer(0.3, stop.set)

    def refuses(handler: Handler) -> None:
        timer.start()
        status(429, Retry_After="4")(handler)

    server.steps = [refuses]
    begin = time.monotonic()
    with pytest.raises(JudgeError, match="given up because another request failed"):
        complete(endpoint_of(server.url), stop)
    assert time.monotonic() - begin < 2.5 and len(server.bodies) == 1
    with pytest.raises(JudgeError, match="given up"):
        complete(endpoint_of(server.url), stop)
    assert len(server.bodies) == 1
    timer.join()


@pytest.mark.parametrize(
    ("code", "content", "about_item", "reason"),
    [
        (400, b'{"error": {"code": "content_filter", "message": "x"}}', True, "status 400 (content_filter)"),
        (
            400,
            b'{"error": {"code": null, "type": "invalid_request_error"}}',
            True,
            "status 400 (invalid_request_error)",
        ),
        (403, b'{"error": {"code": 403}}', True, "status 403"),
        (413, b"", True, "status 413"),
        (422, b'{"error": "no"}', True, "status 422"),
        (401, b'{"error": {"code": "invalid_api_key"}}', False, "status 401 (invalid_api_key)"),
        (402, b"[]", False, "status 402"),
        (404, b"<html>", False, "status 404"),
    ],
)
def test_a_refusal_says_whether_it_may_be_about_one_text(
    server: Server, code: int, content: bytes, about_item: bool, reason: str
) -> None:
    server.steps = [status(code, content)]
    with pytest.raises(RequestError) as told:
        complete(endpoint_of(server.url))
    assert (told.value.about_item, told.value.reason) == (about_item, reason)


def choice(content: object, finish_reason: object = "stop") -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish_reason}]}).encode()


@pytest.mark.parametrize(
    ("content", "reply"),
    [
        (b'{"choices": [{"message": {"content": "a"}}, {"message": {"content": "b"}}]}', Reply("a")),
        (choice("a"), Reply("a")),
        (choice("a", None), Reply("a")),
        (choice("a", "end_turn"), Reply("a")),
        (choice("##the_score: 0", "length"), Reply("", "cut off")),
        (choice("##the_score: 0", "max_tokens"), Reply("", "cut off")),
        (choice("a", "STOP"), Reply("a")),
        (choice("a", ""), Reply("a")),
        (choice("a", "tool_calls"), Reply("", "cut off")),
        (choice("Well.\n<think>perhaps ##the_score: 1"), Reply("", "cut off")),
        (choice("<think>a</think><think>b ##the_score: 1"), Reply("", "cut off")),
        (choice("[THINK]perhaps ##the_score: 1"), Reply("", "cut off")),
        (choice("[Analysis]\nIt refuses.\n##the_score: 1"), Reply("[Analysis]\nIt refuses.\n##the_score: 1")),
        (choice("<seed:think>perhaps ##the_score: 1"), Reply("", "cut off")),
        (choice("<analysis>0? no</analysis>##the_score: 1"), Reply("##the_score: 1")),
        (choice("a", "error"), Reply("", "cut off")),
        (choice("a", "content_filter"), Reply("", "filtered")),
        (choice(None, "content_filter"), Reply("", "filtered")),
        (choice(None), Reply("", "empty")),
        (choice(" \n"), Reply("", "empty")),
        (b'{"choices": [{"message": {"role": "assistant"}}]}', Reply("", "empty")),
        (choice("<think>the score: ##the_score: 1"), Reply("", "cut off")),
        (choice("\n<Thinking>\n##the_score: 1"), Reply("", "cut off")),
        (choice("<think>0? no</think>\n##the_score: 1"), Reply("\n##the_score: 1")),
        (choice("0? no</think>##the_score: 1"), Reply("##the_score: 1")),
        (choice("<think>0? no</think>"), Reply("", "empty")),
        (
            choice("It begins with <think> and refuses.\n##the_score: 1"),
            Reply("It begins with <think> and refuses.\n##the_score: 1"),
        ),
        (b'{"choices": [{"message": "a"}]}', None),
        (b'{"choices": {"0": 1}}', None),
        (b'{"choices": null}', None),
        (b"[1]", None),
        (b"\xff\xfe", None),
        (b"null", None),
    ],
)
def test_what_a_reply_holds(content: bytes, reply: Reply | None) -> None:
    assert _reply_of(content) == reply


@pytest.mark.parametrize("url", ["ftp://host/v1", "host/v1", "http://me:pw@host/v1", "http://"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^evaluation\.judges\.mine\.base_url") as told:
        endpoint_of(url)
    assert "\n" not in str(told.value)
