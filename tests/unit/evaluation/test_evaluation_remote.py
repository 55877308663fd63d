"""A model behind an endpoint: what is asked, how replies are read, kept and told, with a small HTTP server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from lrm_safety.conversation.families import get_family
from lrm_safety.errors import ConfigError, DataError, ModelError
from lrm_safety.evaluation.attacks import AttackedPrompt
from lrm_safety.evaluation.remote import RemoteEngine, RemoteResponse, TextParser, TextPlanner, read_reply
from lrm_safety.evaluation.run import evaluate, prepare
from lrm_safety.results import Evaluation
from lrm_safety.rollouts import GenerationRequest, SamplingParameters
from lrm_safety.settings import EvaluateSettings
from lrm_safety.settings.compose import compose_evaluation
from lrm_safety.settings.evaluation import EndpointSettings

SAMPLING = SamplingParameters(0.6, 0.95, 20, 100, ())
Reply = tuple[int, dict[str, str], bytes]


def completion(text: str | None, reason: str | None = "stop", **message: Any) -> bytes:
    choice = {"message": {"role": "assistant", "content": text} | message, "finish_reason": reason}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": 7}}).encode()


class Endpoint:
    """Answers as `reply` says; keeps what it was asked."""

    def __init__(self, reply: Callable[[dict[str, Any]], Reply]) -> None:
        self.reply, self.asked, self.keys = reply, [], []  # type: ignore[var-annotated]
        lock, outer = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.asked.append(body)
                    outer.keys.append(self.headers.get("Authorization"))
                    status, headers, content = outer.reply(body)
                self.answer(status, headers, content)

            def do_GET(self) -> None:
                known = self.path == "/v1/models"
                self.answer(200 if known else 404, {}, b'{"data": [{"id": "one"}, {"id": "two"}]}')

            def answer(self, status: int, headers: dict[str, str], content: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    made: list[Endpoint] = []

    def make(reply: Callable[[dict[str, Any]], Reply] | bytes, status: int = 200) -> Endpoint:
        made.append(Endpoint(reply if callable(reply) else lambda body: (status, {}, reply)))
        return made[-1]

    yield make
    for one in made:
        one.close()


def engine(url: str, **changes: Any) -> RemoteEngine:
    return RemoteEngine(replace(EndpointSettings(url=url, max_retries=0), **changes), "one", None)


def requests(*texts: str) -> list[GenerationRequest]:
    return [
        GenerationRequest(i, i, TextPlanner().render(AttackedPrompt(text, None))[0], 1000 + i)
        for i, text in enumerate(texts)
    ]


def answers(one: RemoteEngine, *texts: str) -> dict[int, RemoteResponse]:
    return {each.request_id: each.response for chunk in one.generate(requests(*texts), SAMPLING) for each in chunk}


def test_a_request_holds_the_prompt_and_how_it_is_sampled(
    serve: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-not-to-be-told")
    endpoint = serve(completion("4"))
    settings = EndpointSettings(url=endpoint.url, api_key_env="MY_KEY", parameters={"top_k": None, "top_p": 0.5})
    found = answers(RemoteEngine(settings, "one", "Be brief."), "2 + 2 = ? ℵ𝄞")
    assert found == {0: RemoteResponse("4", "", "stop", 7, None)}
    assert endpoint.asked == [
        {
            "model": "one",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2 = ? ℵ𝄞"}],
            "temperature": 0.6,
            "top_p": 0.5,
            "max_tokens": 100,
            "seed": 1000,
        }
    ]
    assert endpoint.keys == ["Bearer sk-not-to-be-told"]


def test_top_k_is_sent_where_the_protocol_has_one(serve: Callable[..., Endpoint]) -> None:
    endpoint = serve(completion("4"))
    answers(engine(endpoint.url), "x")
    assert endpoint.asked[0]["top_k"] == 20


@pytest.mark.parametrize(
    ("content", "response"),
    [
        (completion("an answer"), RemoteResponse("an answer", "", "stop", 7, None)),
        (completion("an ans", "length"), RemoteResponse("an ans", "", "length", 7, None)),
        (completion("done", reasoning_content="thought"), RemoteResponse("done", "thought", "stop", 7, None)),
        (completion("done", reasoning="thought"), RemoteResponse("done", "thought", "stop", 7, None)),
        (completion(None, "length", reasoning="thou"), RemoteResponse("", "thou", "length", 7, None)),
        (completion("cut \ud83d", "length"), RemoteResponse("cut \ufffd", "", "length", 7, None)),
        (completion("a whole \U0001f600"), RemoteResponse("a whole \U0001f600", "", "stop", 7, None)),
        (completion("no", "content_filter"), RemoteResponse("no", "", "length", 7, None)),
        (b'{"choices": [{"message": {"content": "x"}}], "usage": null}', RemoteResponse("x", "", "stop", None, None)),
        (
            b'{"choices": [{"message": {"content": "x"}}], "usage": {"completion_tokens": 9, "completion_tokens_details": '
            b'{"reasoning_tokens": 5}}}',
            RemoteResponse("x", "", "stop", 9, 5),
        ),
    ],
)
def test_replies(content: bytes, response: RemoteResponse) -> None:
    assert read_reply(content) == (response, b"content_filter" in content)


@pytest.mark.parametrize("content", [b'{"choices": []}', b'{"choices": [{"mess', b"<html>", b'{"error": "x"}', b"[]"])
def test_replies_that_are_none(content: bytes, serve: Callable[..., Endpoint]) -> None:
    with pytest.raises(ValueError, match=r"a reply that (holds no choice|is no JSON)"):
        read_reply(content)
    endpoint = serve(content)
    with pytest.raises(
        ModelError, match=r"no response after 1 tries .* failed with a reply that .*saved, the same command"
    ):
        answers(engine(endpoint.url), "x")


# family, text, reasoning, finish reason -> trace, answer, status
THINKING = [
    ("plain", "an answer", "", "stop", "", "an answer", "complete"),
    ("plain", "<think>a\n</think>\n\nb", "", "stop", "a", "b", "complete"),
    ("plain", "b", "a", "stop", "a", "b", "complete"),
    ("plain", "an ans", "", "length", "", "an ans", "unfinished_answer"),
    ("qwen3", "<think>\na</think>b", "", "stop", "a", "b", "complete"),
    ("qwen3", "<think>\na", "", "length", "a", "", "unfinished_trace"),
    ("qwen3", "b", "", "stop", "", "b", "no_trace"),
    ("qwen3", "", "a", "length", "a", "", "unfinished_trace"),
    ("qwen3", "b", "a", "length", "a", "b", "unfinished_answer"),
    ("qwen3", " ", "a", "stop", "a", "", "empty_answer"),
    ("deepseek_r1_distill", "a\n</think>\n\nb", "", "stop", "a", "b", "complete"),
    ("deepseek_r1_distill", "<think>a\n</think>\n\nb", "", "stop", "a", "b", "complete"),
    ("deepseek_r1_distill", "a", "", "length", "a", "", "unfinished_trace"),
    ("deepseek_r1_distill", "a</think>b</think>c", "", "stop", "a", "b</think>c", "malformed"),
]


@pytest.mark.parametrize(("family", "text", "reasoning", "reason", "trace", "answer", "status"), THINKING)
def test_trace_and_answer(
    family: str, text: str, reasoning: str, reason: str, trace: str, answer: str, status: str
) -> None:
    found = TextParser(get_family(family)).parse(RemoteResponse(text, reasoning, reason, None, None))
    assert (found.trace, found.answer, found.status, found.finished) == (trace, answer, status, reason == "stop")


@pytest.mark.parametrize(
    ("text", "counted", "tokens"),
    [
        ("<think>a</think>b", 5, 5),
        ("<think>a</think>b", 0, None),  # a server without a parser of reasoning counts none
        ("<think>a</think>b", None, None),
        ("b", 500, 500),  # thought, and not shown
        ("b", 0, 0),
        ("b", None, 0),
    ],
)
def test_tokens_of_the_trace(text: str, counted: int | None, tokens: int | None) -> None:
    response = RemoteResponse(text, "", "stop", 507, counted)
    assert response.num_trace_tokens(TextParser(get_family("plain")).parse(response)) == tokens


def test_responses_are_kept_as_they_are() -> None:
    kept = [
        RemoteResponse("é𝄞\ud800", "", "stop", None, None),
        RemoteResponse("", "ä", "length", 3, 2),
        RemoteResponse("b", "c", "stop", 0, 0),
    ]
    assert RemoteResponse.unpack(RemoteResponse.pack(kept)) == kept
    torn = RemoteResponse.pack(kept) | {"text_lengths": np.asarray([1, 1, 1])}
    with pytest.raises(ValueError, match="texts and their lengths differ"):
        RemoteResponse.unpack(torn)


def test_what_the_endpoint_refuses_is_told_in_one_line(
    serve: Callable[..., Endpoint], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-not-to-be-told")
    unknown = serve(b"no such model", 404)
    with pytest.raises(
        ModelError,
        match=r"status 404 .*asked for the model one, it serves one, two: choose one as model\.endpoint\.model",
    ):
        answers(engine(unknown.url), "x")
    with pytest.raises(ModelError, match=r"status 404 .*check model\.endpoint\.url, which ends before /chat"):
        answers(engine(unknown.url + "/wrong"), "x")
    closed = serve(b"who are you, sk-not-to-be-told?", 401)
    with pytest.raises(
        ModelError, match=r"status 401 .*check the key in the variable that model\.endpoint\.api_key_env=MY_KEY"
    ) as error:
        answers(engine(closed.url, api_key_env="MY_KEY"), "x")
    assert "sk-not" not in str(error.value)
    with pytest.raises(ModelError, match=r"no response after 1 tries .*ConnectError"):
        answers(engine("http://127.0.0.1:1/v1"), "x")


def test_a_busy_endpoint_is_asked_again_when_it_says(serve: Callable[..., Endpoint]) -> None:
    replies: list[Reply] = [(429, {"Retry-After": "0"}, b"slow down"), (200, {}, completion("4"))]
    endpoint = serve(lambda body: replies.pop(0))
    assert answers(engine(endpoint.url, max_retries=1), "x")[0].text == "4" and len(endpoint.asked) == 2


def test_a_request_that_a_filter_refuses_is_a_response_that_it_ended(serve: Callable[..., Endpoint]) -> None:
    """As Azure says it; any other 400 is no response."""
    endpoint = serve(b'{"error": {"code": "content_filter", "message": "The prompt triggered"}}', status=400)
    asked = engine(endpoint.url)
    assert answers(asked, "x") == {0: RemoteResponse("", "", "length", None, None)} and asked.num_filtered == 1
    with pytest.raises(ModelError, match="status 400"):
        answers(engine(serve(b'{"error": {"code": "context_length_exceeded"}}', status=400).url), "x")


@pytest.mark.parametrize("reason", ["abort", "error"])
def test_a_reply_that_broke_off_is_asked_for_again(reason: str, serve: Callable[..., Endpoint]) -> None:
    replies: list[Reply] = [(200, {}, completion("The an", reason)), (200, {}, completion("The answer"))]
    endpoint = serve(lambda body: replies.pop(0))
    assert answers(engine(endpoint.url, max_retries=1), "x")[0].text == "The answer"


def test_what_was_answered_before_a_failure_is_not_lost(serve: Callable[..., Endpoint]) -> None:
    def reply(body: dict[str, Any]) -> Reply:
        bad = body["messages"][0]["content"] == "bad"
        return (400, {}, b"no") if bad else (200, {}, completion("fine"))

    endpoint = serve(reply)
    found: list[Any] = []
    with pytest.raises(ModelError, match="status 400"):
        for one in engine(endpoint.url, max_concurrency=1).generate(requests("a", "b", "bad", "c"), SAMPLING):
            found += one
    assert {each.request_id for each in found} >= {0, 1}


def test_what_is_under_way_at_a_failure_is_waited_for_and_not_lost(serve: Callable[..., Endpoint]) -> None:
    """The refusal is there half a second before the other reply."""
    sent = threading.Barrier(2)

    def reply(body: dict[str, Any]) -> Reply:
        return (400, {}, b"no") if body["messages"][0]["content"] == "bad" else (200, {}, completion("slow"))

    one = engine(serve(reply).url, max_concurrency=2)
    post = one._client.post

    def slowly(body: bytes, *rest: Any) -> Any:
        bad = b'"bad"' in body
        found = None if bad else post(body, *rest)
        sent.wait(30)
        if bad:
            return post(body, *rest)
        time.sleep(0.5)
        return found

    one._client.post = slowly  # type: ignore[method-assign]
    found: list[Any] = []
    with pytest.raises(ModelError, match="status 400"):
        for each in one.generate(requests("slow", "bad"), SAMPLING):
            found += each
    assert [each.request_id for each in found] == [0]


def test_who_stops_waits_for_no_reply(serve: Callable[..., Endpoint]) -> None:
    """Ctrl-C: what has ended is saved once the requests are given up, so that must not wait for the slowest."""
    asked, answered = threading.Event(), threading.Event()

    def reply(body: dict[str, Any]) -> Reply:
        if body["messages"][0]["content"] == "slow":
            asked.set()
            answered.wait(20)
        return 200, {}, completion("fine")

    under_way = engine(serve(reply).url, max_concurrency=1).generate(requests("a", "slow"), SAMPLING)
    assert [one.request_id for one in next(under_way)] == [0]
    assert asked.wait(60)
    begin = time.monotonic()
    under_way.close()
    took = time.monotonic() - begin
    answered.set()
    assert took < 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"url": "localhost:8000"}, "model.endpoint.url=localhost:8000: must be http://HOST"),
        ({"url": "http://u:p@host/v1"}, "model.endpoint.url: must not hold a user name or password"),
        (
            {"api_key_env": "NOT_SET_ANYWHERE"},
            "model.endpoint.api_key_env=NOT_SET_ANYWHERE: this environment variable is not set",
        ),
        ({"parameters": {"n": 2}}, "model.endpoint.parameters.n: cannot be set here"),
        ({"parameters": {"x": float("nan")}}, "model.endpoint.parameters: cannot be sent as JSON"),
    ],
)
def test_settings_that_cannot_be_used(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine(**{"url": "http://host/v1"} | changes)


def test_an_attack_that_begins_the_response_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing that an endpoint can be asked for"):
        TextPlanner().render(AttackedPrompt("question", "<think>"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model=endpoint", "model.name=x"], "model.endpoint.url: is not set"),
        (["model=miniature", "model.endpoint.model=x"], "model.endpoint.model: .* needs model.endpoint.url"),
        (
            ["model=endpoint", "model.name=x", "model.endpoint.url=http://h/v1", "evaluation.batch_size=4"],
            "evaluation.batch_size",
        ),
        (["model=endpoint", "model.name=x", "model.endpoint.url=http://h/v1", "run.num_engines=2"], "run.num_engines"),
        (
            ["model=endpoint", "model.name=x", "model.endpoint.url=http://h/v1", "model.adapter=a"],
            "model.adapter=a: nothing can be",
        ),
    ],
)
def test_what_an_endpoint_does_not_read_is_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose_evaluation([*overrides, "evaluation=miniature"])


def test_an_evaluation_of_an_endpoint_resumes_and_counts_what_it_is_told(
    serve: Callable[..., Endpoint], tmp_path: Path
) -> None:
    """Four questions; the endpoint fails at the third. The same evaluation then asks for what is missing alone."""
    (tmp_path / "asked.csv").write_text("input,label\n" + "".join(f'"Question {n}",violence\n' for n in range(4)))
    state = {"left": 2}

    def reply(body: dict[str, Any]) -> Reply:
        if not state["left"]:
            return 400, {}, b"over"
        state["left"] -= 1
        return 200, {}, completion("I cannot help with that.", reasoning="They ask for harm.")

    endpoint = serve(reply)
    settings, _ = compose_evaluation(
        [
            "model=endpoint",
            "model.name=x",
            "model.family=qwen3",
            f"model.endpoint.url={endpoint.url}",
            "model.endpoint.max_concurrency=1",
            "evaluation=none",
            f"+evaluation.benchmarks.asked={{task: attaq, arguments: {{data: {tmp_path}/asked.csv}}}}",
        ]
    )
    folder = tmp_path / "run"
    with pytest.raises(ModelError, match="status 400"):
        evaluate(prepare(settings, folder), Console(quiet=True))
    state["left"] = 100
    asked = len(endpoint.asked)
    evaluate(prepare(settings, folder), Console(quiet=True))
    assert len(endpoint.asked) - asked == 2
    results = Evaluation.read(folder).benchmarks["asked"]
    assert results.figures["safety/refusal_rules/answer"].value == 1.0
    assert results.figures["length/response_tokens"].value == 7.0 and "length/trace_tokens" not in results.figures
    assert not any(b"cannot help" in path.read_bytes() for path in folder.rglob("*") if path.is_file()), "it is text"

    def elsewhere(**changes: str) -> EvaluateSettings:
        return replace(settings, model=replace(settings.model, endpoint=replace(settings.model.endpoint, **changes)))

    asked = len(endpoint.asked)
    moved = elsewhere(url="http://127.0.0.1:9/v1")
    evaluate(prepare(moved, folder), Console(quiet=True))
    assert len(endpoint.asked) == asked, "the same model at another address, which is not even asked"
    another = elsewhere(model="other")
    with pytest.raises(DataError, match=r"holds responses of another evaluation .*model_fingerprint"):
        prepare(another, folder)
