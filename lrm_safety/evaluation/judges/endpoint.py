"""One OpenAI-compatible chat endpoint: time limit, retries, rate limits, whole replies alone, one clear line on failure."""

from __future__ import annotations

import email.utils
import json
import math
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass

import httpx

from lrm_safety.errors import JudgeError
from lrm_safety.rewards.http import check_url

ABOUT_THE_ITEM = (400, 403, 406, 409, 413, 414, 415, 422, 451)
"""Statuses that can be about one text (a content filter, a text too long) and say nothing of the next."""
WHOLE = (None, "stop", "eos", "eos_token", "stop_sequence", "end_turn", "completed")
"""Reasons to finish of a reply that ended by itself. Servers that give none send whole replies."""
# A heading in square brackets ("[Analysis]") is no tag but for Mistral's.
_REASONING = re.compile(
    r"[<◁]/?(?:[a-z]+:)?(?:think|thinking|thought|reasoning|reflection|analysis|scratchpad)[>▷]|\[/?THINK\]",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Reply:
    """What the endpoint wrote: the text behind any reasoning, and why there is none that could hold a verdict."""

    text: str
    lacking: str | None = None
    """`cut off`, `filtered` or `empty`; None for a reply that is whole."""


class RequestError(JudgeError):
    """One request failed for good. `about_item`: it may be this text's fault alone, as a content filter's refusal is."""

    def __init__(self, message: str, *, reason: str, about_item: bool) -> None:
        """`reason`: the cause in a few words, for a verdict's label."""
        super().__init__(message)
        self.reason, self.about_item = reason, about_item


class ChatEndpoint:
    """POSTs to `base_url`/chat/completions; safe to call from several threads.

    Failed connections, requests over `timeout_seconds` (the whole exchange, not each read), the status codes 408, 429
    and 5xx, and replies that are no chat completion are tried again up to `max_retries` times: after what `Retry-After`
    asks for (429 and 503), else after first_delay_seconds, twice that, ..., in either case `max_delay_seconds` at most.
    Every other status is final. Redirections are not followed. The key is sent as a bearer token and stands in no message.
    """

    def __init__(
        self,
        config_key: str,
        base_url: str,
        *,
        api_key: str | None,
        timeout_seconds: float,
        max_retries: int,
        first_delay_seconds: float,
        max_delay_seconds: float,
        max_connections: int,
    ) -> None:
        """`config_key` opens every message. Raises ConfigError for an unusable address."""
        check_url(base_url, config_key)
        self.counters: Counter[str] = Counter()
        self._source = f"{config_key}={base_url}"
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._timeout_seconds, self._max_retries = timeout_seconds, max_retries
        self._first_delay_seconds, self._max_delay_seconds = first_delay_seconds, max_delay_seconds
        self._lock = threading.Lock()
        headers = {"Content-Type": "application/json"}
        if api_key is not None:
            headers["Authorization"] = f"Bearer {api_key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=timeout_seconds,
            limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
        )

    def complete(self, body: bytes, stop: threading.Event) -> Reply:
        """The first choice. Gives up when `stop` is set. Raises RequestError when this request fails for good."""
        failure = "was not asked"
        for attempt in range(self._max_retries + 1):
            if stop.is_set():
                raise JudgeError(f"{self._source}: given up because another request failed")
            delay = min(self._first_delay_seconds * 2**attempt, self._max_delay_seconds)
            self._count("requests")
            try:
                status, reason, headers, content = self._post(body)
            except (httpx.HTTPError, TimeoutError) as error:
                failure = f"{type(error).__name__}: {error}"
            else:
                if status == 200:
                    reply = _reply_of(content)
                    if reply is not None:
                        return reply
                    failure = f"the reply is no chat completion ({content[:60]!r})"
                elif status in (408, 429) or status >= 500:
                    failure = f"status {status} {reason}"
                    if status in (429, 503):
                        delay = self._retry_after(headers.get("retry-after"), otherwise=delay)
                else:
                    raise RequestError(
                        f"{self._source}: refused with status {status} {reason} ({content[:200]!r})",
                        reason=f"status {status}{_code_of(content)}",
                        about_item=status in ABOUT_THE_ITEM,
                    )
            if attempt < self._max_retries:
                self._count("retries")
                stop.wait(delay)
        raise RequestError(
            f"{self._source}: no verdict after {self._max_retries + 1} tries of {self._timeout_seconds:g} s each; the last "
            f"failed with {failure}",
            reason=failure.partition(":")[0].partition(" (")[0],
            about_item=False,
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _post(self, body: bytes) -> tuple[int, str, httpx.Headers, bytes]:
        deadline = time.monotonic() + self._timeout_seconds
        parts: list[bytes] = []
        with self._client.stream("POST", self._url, content=body) as response:
            # httpx limits each read alone, so an endpoint that drips bytes would never meet its limit.
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the reply took more than {self._timeout_seconds:g} s")
            return response.status_code, response.reason_phrase, response.headers, b"".join(parts)

    def _retry_after(self, value: str | None, *, otherwise: float) -> float:
        """Seconds to wait by a Retry-After header (seconds or an HTTP date, RFC 9110), max_delay_seconds at most."""
        if value is None:
            return otherwise
        try:
            seconds = float(value)
        except ValueError:
            try:
                seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
            except ValueError:
                return otherwise
        return min(max(seconds, 0.0), self._max_delay_seconds) if math.isfinite(seconds) else otherwise

    def _count(self, counter: str) -> None:
        with self._lock:
            self.counters[counter] += 1


def _reply_of(content: bytes) -> Reply | None:
    """The first choice of a chat completion, whole or not; None when `content` is none."""
    try:
        choice = json.loads(content)["choices"][0]
        text, finished = choice["message"].get("content"), choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if text is not None and not isinstance(text, str):
        return None
    text = text or ""
    finished = finished.lower() or None if isinstance(finished, str) else finished
    if finished == "content_filter":
        return Reply("", "filtered")
    thought = list(_REASONING.finditer(text))
    begin = max((tag.end() for tag in thought if "/" in tag[0]), default=0)
    # A judge may quote a tag of what it judges: reasoning is unfinished where a line begins with it and it never ends.
    is_open = any(
        tag.start() >= begin and not text[begin : tag.start()].rpartition("\n")[2].strip()
        for tag in thought
        if "/" not in tag[0]
    )
    if finished not in WHOLE or is_open:
        return Reply("", "cut off")
    text = text[begin:]
    return Reply(text) if text.strip() else Reply("", "empty")


def _code_of(content: bytes) -> str:
    """` (content_filter)`: the code or kind that the body of a refusal gives, in the form of OpenAI's errors, if any."""
    try:
        error = json.loads(content)["error"]
        code = error.get("code") or error.get("type")
    except (ValueError, LookupError, TypeError, AttributeError):
        return ""
    return f" ({code})" if isinstance(code, str) and re.fullmatch(r"[\w .-]{1,60}", code) else ""
