"""A model behind an OpenAI-compatible endpoint: asked by chat completions, read as text.

Of the prompt and the response there is text and no token: an `Ask` holds the prompt's characters where it has token ids of a
model of ours. Token counts are the endpoint's own, where it gives them; log-probs, entropies and fixed batches cannot be had.
"""

from __future__ import annotations

import itertools
import json
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..conversation.families import Family
from ..conversation.response import ParsedResponse, ResponseParser, Status
from ..conversation.template import OPEN_TAG
from ..credentials import api_key
from ..errors import ConfigError, ModelError
from ..http_client import HttpClient, RequestFailed, below, check_url
from ..rollouts import GenerationRequest, SamplingParameters, TokenIds
from ..settings.evaluation import EndpointSettings
from .attacks import AttackedPrompt
from .judges.llm import WHOLE, code_of
from .plan import Planner

KEY = "model.endpoint"
TURN_SECONDS = 5.0
"""The longest without a word to whoever saves what has ended."""
OURS = ("model", "messages", "stream", "n")
"""Parts of a request that `parameters` must leave alone."""
FILTERED = "content_filter"
BROKEN = ("abort", "error")
"""Reasons of an end that is the server's trouble and not the model's: the request is sent again."""
UNKNOWN = -1
"""In a file of responses: a number of tokens that the endpoint did not give."""


@dataclass(frozen=True)
class RemoteResponse:
    """One response as the endpoint gave it."""

    text: str
    reasoning: str
    """What it gave apart from the text; empty where the trace, if there is one, stands in the text."""
    finish_reason: str
    """`stop` or `length`; what a filter ended counts as `length`."""
    num_tokens: int | None
    """Generated tokens, reasoning included; None where the endpoint gives no usage."""
    num_reasoning_tokens: int | None

    @classmethod
    def of(cls, answer: Answer) -> RemoteResponse:
        """What an engine yields, without its request."""
        return answer.response

    @classmethod
    def pack(cls, responses: Sequence[RemoteResponse]) -> dict[str, np.ndarray]:
        """As arrays, for a file: texts packed, so that it cannot be read by accident where no text is to be logged."""
        arrays: dict[str, np.ndarray] = {}
        for name in ("text", "reasoning"):
            parts = [getattr(one, name).encode(errors="surrogatepass") for one in responses]
            arrays[f"{name}_bytes"] = np.frombuffer(zlib.compress(b"".join(parts)), dtype=np.uint8)
            arrays[f"{name}_lengths"] = np.asarray([len(part) for part in parts], dtype=np.int64)
        for name in ("num_tokens", "num_reasoning_tokens"):
            counts = [getattr(one, name) for one in responses]
            arrays[name] = np.asarray([UNKNOWN if count is None else count for count in counts], dtype=np.int64)
        arrays["stopped"] = np.asarray([one.finish_reason == "stop" for one in responses])
        return arrays

    @classmethod
    def unpack(cls, arrays: Mapping[str, np.ndarray]) -> list[RemoteResponse]:
        """The responses of a file. Raises ValueError for arrays that do not fit."""
        texts = {name: _texts(arrays[f"{name}_bytes"], arrays[f"{name}_lengths"]) for name in ("text", "reasoning")}
        counts = {
            name: [None if count == UNKNOWN else int(count) for count in arrays[name]]
            for name in ("num_tokens", "num_reasoning_tokens")
        }
        return [
            cls(text, reasoning, "stop" if stopped else "length", num_tokens, num_reasoning)
            for text, reasoning, stopped, num_tokens, num_reasoning in zip(
                texts["text"], texts["reasoning"], arrays["stopped"], *counts.values(), strict=True
            )
        ]

    def parsed(self, parser: TextParser, prefill_ids: TokenIds) -> ParsedResponse:
        """Trace and answer; nothing is prefilled."""
        return parser.parse(self)

    def num_trace_tokens(self, response: ParsedResponse) -> int | None:
        """Tokens of the trace, by the endpoint's own count, hidden ones included; 0 for a trace that is shown is no count."""
        return self.num_reasoning_tokens or (None if response.trace else 0)


@dataclass(frozen=True)
class Answer:
    """A response with the request that it is to."""

    request_id: int
    response: RemoteResponse


class TextPlanner(Planner):
    """Asks in plain text: `prompt_ids` are the characters of the user's turn."""

    def __init__(self) -> None:
        self.num_respelled = 0

    @property
    def writes_the_date(self) -> bool:
        return False

    def render(self, attacked: AttackedPrompt) -> tuple[TokenIds, TokenIds]:
        """Characters of the prompt. Raises ConfigError for a prefilled beginning."""
        if attacked.prefill:
            raise ConfigError(
                "evaluation.benchmarks: an attack that begins the response itself (compliant_trace, empty_trace) is nothing that "
                "an endpoint can be asked for; leave it out"
            )
        return np.asarray([ord(character) for character in attacked.prompt], dtype=np.int32), np.zeros(0, np.int32)

    def fits(self, prompt_ids: TokenIds) -> bool:
        """The endpoint says what is too long for it."""
        return True


class TextParser:
    """Splits text into trace and answer, by the same rules as token ids are split by; its counts are of characters."""

    def __init__(self, family: Family) -> None:
        self._family = family

    def parse(self, response: RemoteResponse) -> ParsedResponse:
        """What the endpoint calls reasoning is the trace; otherwise what stands in <think> tags, which a family whose template
        opens them lacks at the beginning."""
        finished = response.finish_reason == "stop"
        if response.reasoning.strip():
            trace, answer = response.reasoning.strip(), response.text.strip()
            status: Status = "complete" if answer else "empty_answer"
            if not finished:
                status = "unfinished_answer" if answer else "unfinished_trace"
            return ParsedResponse(trace, answer, status, len(response.reasoning), len(response.text), finished)
        family = self._family
        if response.text.lstrip().startswith(OPEN_TAG):
            family = replace(family, trace_opened_by="model")
        return ResponseParser.of_text(family).parse([ord(one) for one in response.text], response.finish_reason)


class RemoteEngine:
    """Asks an endpoint, some requests at a time. Raises ConfigError for an unusable address, variable or parameter."""

    def __init__(self, settings: EndpointSettings, served: str, system_prompt: str | None) -> None:
        assert settings.url is not None
        check_url(settings.url, f"{KEY}.url")
        for name in OURS:
            if name in settings.parameters:
                raise ConfigError(f"{KEY}.parameters.{name}: cannot be set here; leave it out")
        try:
            json.dumps(settings.parameters, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{KEY}.parameters: cannot be sent as JSON ({error})") from error
        secret = None if settings.api_key_env is None else api_key(settings.api_key_env, f"{KEY}.api_key_env")
        self._settings, self._served, self._system_prompt = settings, served, system_prompt
        self._url = settings.url
        self.num_filtered = 0
        self._client = HttpClient(
            f"{KEY}.url={settings.url}",
            below(self._url, "chat/completions"),
            wanted="response",
            headers={} if secret is None else {"Authorization": f"Bearer {secret}"},
            timeout_seconds=settings.timeout_seconds,
            max_retries=settings.max_retries,
            max_delay_seconds=settings.max_delay_seconds,
            max_connections=settings.max_concurrency,
        )

    def generate(self, requests: Sequence[GenerationRequest], sampling: SamplingParameters) -> Iterator[list[Answer]]:
        """Answers as they come, now and then none. Raises ModelError for a request that fails for good; what was answered
        before has been yielded."""
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._settings.max_concurrency, thread_name_prefix="endpoint")
        left = iter(requests)
        asked: dict[Future[RemoteResponse], int] = {}
        try:
            while True:
                for request in itertools.islice(left, 2 * self._settings.max_concurrency - len(asked)):
                    asked[pool.submit(self._ask, request, sampling, stop)] = request.request_id
                if not asked:
                    return
                ended = wait(asked, timeout=TURN_SECONDS, return_when=FIRST_COMPLETED).done
                failure = next(filter(None, (one.exception() for one in ended)), None)
                if failure is not None:
                    stop.set()
                    pool.shutdown(cancel_futures=True)  # waits for what is under way, and what it gets is worth keeping
                    ended = {one for one in asked if not one.cancelled()}
                yield [Answer(asked[one], one.result()) for one in ended if one.exception() is None]
                if isinstance(failure, RequestFailed):
                    raise ModelError(self._told(failure)) from failure
                if failure is not None:
                    raise failure
                for one in ended:
                    del asked[one]
        finally:
            stop.set()
            pool.shutdown(
                wait=False, cancel_futures=True
            )  # who is interrupted saves before a reply that may take half an hour

    def generate_batches(
        self, batches: Sequence[Sequence[GenerationRequest]], sampling: SamplingParameters
    ) -> Iterator[list[Answer]]:
        """Never asked for: an endpoint's evaluation has no batch size."""
        raise NotImplementedError("an endpoint knows no batches")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, request: GenerationRequest, sampling: SamplingParameters, stop: threading.Event) -> RemoteResponse:
        messages = [{"role": "user", "content": "".join(map(chr, request.prompt_ids))}]
        if self._system_prompt is not None:
            messages.insert(0, {"role": "system", "content": self._system_prompt})
        body: dict[str, Any] = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k or None,  # not OpenAI's own, and left out where it says nothing
            "max_tokens": sampling.max_response_tokens,
            "seed": request.seed,
        } | self._settings.parameters
        body = {name: value for name, value in body.items() if value is not None}
        content = json.dumps({"model": self._served, "messages": messages, **body}).encode()
        try:
            response, filtered = self._client.post(content, read_reply, stop)
        except RequestFailed as failure:
            if code_of(failure.content) != FILTERED:
                raise
            # Some filters end a response before it begins, and refuse the request.
            response, filtered = RemoteResponse("", "", "length", None, None), True
        self.num_filtered += filtered
        return response

    def _told(self, failure: RequestFailed) -> str:
        """The failure in one line, with what may mend it."""
        if failure.status in (401, 403):
            return f"{failure}; check the key in the variable that {KEY}.api_key_env={self._settings.api_key_env} names"
        if failure.status == 404:
            names = _served_names(self._client.get(below(self._url, "models")))
            mend = (
                f"it serves {', '.join(names)}: choose one as {KEY}.model"
                if names
                else f"check {KEY}.url, which ends before /chat"
            )
            return f"{failure}; asked for the model {self._served}, {mend}"
        return f"{failure}; responses so far are saved, the same command goes on"


def read_reply(content: bytes) -> tuple[RemoteResponse, bool]:
    """The first choice of a chat completion, and whether a filter ended it. Raises ValueError for anything else."""
    try:
        reply = json.loads(content)
    except ValueError as error:
        raise ValueError(f"a reply that is no JSON ({content[:60]!r})") from error
    try:
        choice = reply["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason")
        text = message.get("content") or ""
        reasoning = message.get("reasoning_content") or message.get("reasoning") or ""
        usage = reply.get("usage") or {}
        num_tokens = usage.get("completion_tokens")
        num_reasoning = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"a reply that holds no choice ({content[:60]!r})") from error
    if not isinstance(text, str) or not isinstance(reasoning, str):
        raise ValueError(f"a reply that is not text ({content[:60]!r})")
    reason = reason.lower() if isinstance(reason, str) else None
    if reason in BROKEN:
        raise ValueError(f"a reply that ended by {reason}")
    response = RemoteResponse(
        _writable(text),
        _writable(reasoning),
        "stop" if reason in WHOLE else "length",
        num_tokens if type(num_tokens) is int else None,
        num_reasoning if type(num_reasoning) is int else None,
    )
    return response, reason == FILTERED


def _writable(text: str) -> str:
    """With U+FFFD for half a surrogate pair, as a reply that was cut inside an emoji may hold: no file of text can."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _served_names(content: bytes | None) -> list[str]:
    """What a list of models names; empty where there is none."""
    try:
        return [str(one["id"]) for one in json.loads(content or b"")["data"]]
    except (ValueError, LookupError, TypeError):
        return []


def _texts(packed: np.ndarray, lengths: np.ndarray) -> list[str]:
    content, ends = zlib.decompress(packed.tobytes()), np.cumsum(lengths).tolist()
    if ends[-1] != len(content):
        raise ValueError("texts and their lengths differ")
    return [content[begin:end].decode(errors="surrogatepass") for begin, end in itertools.pairwise([0, *ends])]
