"""A real endpoint on loopback that fails, delays and recovers."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from loopback import Handler, cut_short, drip, hang_up, serving
from tiny_rewards import conversation

from lrm_safety.errors import ConfigError, RewardError
from lrm_safety.rewards.check import check_reward
from lrm_safety.rewards.http import HttpScorer
from lrm_safety.settings import RewardModelSettings, RewardSettings

Step = Callable[["ByStep", list[dict[str, Any]]], None]


@dataclass
class Endpoint:
    url: str
    steps: list[Step] = field(default_factory=list)
    """What to do with the first requests; later ones are answered well."""
    requests: list[list[dict[str, Any]]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


class ByStep(Handler):
    endpoint: Endpoint

    def do_POST(self) -> None:
        rows = json.loads(self.body())["conversations"]
        self.endpoint.times.append(time.monotonic())
        self.endpoint.requests.append(rows)
        self.endpoint.headers.append(dict(self.headers))
        step = self.endpoint.steps.pop(0) if self.endpoint.steps else good
        step(self, rows)


def good(handler: ByStep, rows: list[dict[str, Any]]) -> None:
    handler.reply(200, json.dumps({"scores": [len(row["view_text"]) for row in rows]}).encode())


def status(code: int, **headers: str) -> Step:
    return lambda handler, rows: handler.reply(code, b"", **headers)


def says(body: str) -> Step:
    return lambda handler, rows: handler.reply(200, body.encode())


def sleepy(seconds: float) -> Step:
    def step(handler: ByStep, rows: list[dict[str, Any]]) -> None:
        time.sleep(seconds)
        good(handler, rows)

    return step


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    handler = type("BoundHandler", (ByStep,), {})
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), handler)) as server:
        handler.endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}/score")
        yield handler.endpoint


def scorer_for(endpoint: Endpoint, **changes: Any) -> HttpScorer:
    values = {"kind": "http", "url": endpoint.url, "timeout_seconds": 5.0, "max_retries": 3, "batch_size": 2} | changes
    return HttpScorer("far", RewardModelSettings(**values), first_delay_seconds=0.02)


FIVE = [conversation("p", "t" * n, "a" * n) for n in range(1, 6)]


@pytest.mark.parametrize(
    ("header", "sent"), [("Authorization", "Bearer k-123"), ("X-Api-Key", "k-123"), ("api-key", "k-123")]
)
def test_the_key_comes_out_of_the_environment_and_stands_nowhere(
    endpoint: Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    header: str,
    sent: str,
) -> None:
    monkeypatch.setenv("ENDPOINT_KEY", "k-123\n")
    endpoint.steps = [status(500), status(403)]
    scorer = scorer_for(endpoint, api_key_env="ENDPOINT_KEY", api_key_header=header)
    with caplog.at_level(logging.WARNING), pytest.raises(RewardError) as refused:
        scorer.score_texts(FIVE[:1], "answer")
    assert [{key.lower(): value for key, value in one.items()}[header.lower()] for one in endpoint.headers] == [
        sent
    ] * 2
    assert "k-123" not in str(refused.value) + caplog.text
    # While it is waited for, a line for every failed try.
    assert re.search(r"try 1 of 4 failed \(status 500 Internal Server Error\); again in 0\.02\d* s", caplog.text)


@pytest.mark.parametrize(
    ("changes", "value", "message"),
    [
        ({}, None, "api_key_env=ENDPOINT_KEY: this environment variable is not set"),
        ({}, "  ", "api_key_env=ENDPOINT_KEY: this environment variable is not set"),
        ({}, "k-123\nX-More: 1", "api_key_env=ENDPOINT_KEY: its value cannot be sent"),
        ({}, "k-123é", "api_key_env=ENDPOINT_KEY: its value cannot be sent"),
        ({"api_key_header": "X: y"}, "k-123", "api_key_header=X: y: is no name of a header"),
    ],
)
def test_a_key_that_cannot_be_sent_is_found_before_the_start(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], value: str | None, message: str
) -> None:
    monkeypatch.delenv("ENDPOINT_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("ENDPOINT_KEY", value)
    model = RewardModelSettings(kind="http", url="http://127.0.0.1/score", api_key_env="ENDPOINT_KEY", **changes)  # type: ignore[arg-type]
    with pytest.raises(ConfigError) as refused:
        check_reward(RewardSettings(models={"far": model}))
    assert message in str(refused.value) and str(refused.value).startswith("reward.models.far.")
    assert "k-123" not in str(refused.value)


def test_batches_rows_and_order(endpoint: Endpoint) -> None:
    scorer = scorer_for(endpoint)
    scores = scorer.score_texts(FIVE, "answer")
    assert scores.dtype == np.float32 and scores.tolist() == [1, 2, 3, 4, 5]
    assert [len(rows) for rows in endpoint.requests] == [2, 2, 1]
    assert endpoint.requests[0][1] == {
        "prompt": "p",
        "trace": "tt",
        "answer": "aa",
        "full": "<think>\ntt\n</think>\n\naa",
        "status": "complete",
        "view": "answer",
        "view_text": "aa",
    }
    assert scorer.counters["retries"] == 0
    assert scorer.score_texts([], "answer").shape == (0,)


@pytest.mark.parametrize("failure", [status(500), status(503), status(429), status(408), hang_up, cut_short])
def test_recovers_after_failures(endpoint: Endpoint, failure: Step) -> None:
    endpoint.steps = [failure, failure]
    scorer = scorer_for(endpoint)
    assert scorer.score_texts(FIVE[:2], "answer").tolist() == [1, 2]
    assert scorer.counters["retries"] == 2 and len(endpoint.requests) == 3
    first, second = np.diff(endpoint.times)
    assert first >= 0.02 and second >= 0.04


def test_recovers_after_a_reply_that_came_too_late(endpoint: Endpoint) -> None:
    endpoint.steps = [sleepy(1.0), drip]
    scorer = scorer_for(endpoint, timeout_seconds=0.3)
    began = time.monotonic()
    assert scorer.score_texts(FIVE[:2], "answer").tolist() == [1, 2]
    assert scorer.counters["retries"] == 2
    assert time.monotonic() - began < 3.0


def test_waits_as_long_as_the_endpoint_asks(endpoint: Endpoint) -> None:
    endpoint.steps = [status(429, Retry_After="1")]
    assert scorer_for(endpoint).score_texts(FIVE[:1], "answer").tolist() == [1]
    assert np.diff(endpoint.times)[0] >= 1.0


def test_gives_up_after_its_retries(endpoint: Endpoint) -> None:
    endpoint.steps = [status(503)] * 4
    scorer = scorer_for(endpoint)
    with pytest.raises(RewardError, match=r"reward\.models\.far\.url=http.*no scores after 4 tries.*503"):
        scorer.score_texts(FIVE, "answer")
    assert len(endpoint.requests) == 4 and scorer.counters["retries"] == 3


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        scorer = scorer_for(Endpoint(f"http://127.0.0.1:{unused.getsockname()[1]}/score"), max_retries=1)
        with pytest.raises(RewardError, match=r"after 2 tries.*refused"):
            scorer.score_texts(FIVE, "answer")


@pytest.mark.parametrize("code", [400, 401, 404, 413, 422])
def test_a_client_error_is_final(endpoint: Endpoint, code: int) -> None:
    endpoint.steps = [status(code)]
    with pytest.raises(RewardError, match=f"refused with status {code}"):
        scorer_for(endpoint).score_texts(FIVE, "answer")
    assert len(endpoint.requests) == 1


def test_redirections_are_not_followed(endpoint: Endpoint) -> None:
    endpoint.steps = [status(302, Location=endpoint.url)]
    with pytest.raises(RewardError, match="refused with status 302"):
        scorer_for(endpoint).score_texts(FIVE, "answer")
    assert len(endpoint.requests) == 1


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<html>", "not JSON"),
        ("[1, 2]", 'no list "scores"'),
        ('{"score": [1, 2]}', 'no list "scores"'),
        ('{"scores": 1}', 'no list "scores"'),
        ('{"scores": [1]}', r"shape \[1\] for 2"),
        ('{"scores": [1, "2"]}', "numbers only"),
        ('{"scores": [1, true]}', "numbers only"),
        ('{"scores": [1, null]}', "numbers only"),
        ('{"scores": [1, NaN]}', "score of conversation 1 is nan"),
        ('{"scores": [1, Infinity]}', "score of conversation 1 is inf"),
    ],
)
def test_nonsense_is_final(endpoint: Endpoint, body: str, said: str) -> None:
    endpoint.steps = [says(body)]
    with pytest.raises(RewardError, match=rf"reward\.models\.far\.url=.*{said}"):
        scorer_for(endpoint).score_texts(FIVE[:2], "answer")
    assert len(endpoint.requests) == 1
