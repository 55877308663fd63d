"""One OpenAI-compatible chat endpoint: what its replies say, and whether a refusal is about one text."""

from __future__ import annotations

import json
import re
import threading
from dataclasses import dataclass

from lrm_safety.errors import JudgeError
from lrm_safety.http_client import HttpClient, RequestFailed, check_url

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

    What fails is tried again as HttpClient says, and so are replies that are no chat completion: a gateway that is busy sends
    a page of its own. The key is sent as a bearer token and stands in no message. `counters`: `requests`, `retries`.
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
        self._client = HttpClient(
            f"{config_key}={base_url}",
            base_url.rstrip("/") + "/chat/completions",
            wanted="verdict",
            headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            timeout_seconds=timeout_seconds,
            max_retries=max_retries,
            first_delay_seconds=first_delay_seconds,
            max_delay_seconds=max_delay_seconds,
            max_connections=max_connections,
        )
        self.counters = self._client.counters

    def complete(self, body: bytes, stop: threading.Event) -> Reply:
        """The first choice. Gives up when `stop` is set. Raises RequestError when this request fails for good."""
        try:
            return self._client.post(body, _whole_reply, stop)
        except RequestFailed as error:
            raise RequestError(
                str(error), reason=error.cause + _code_of(error.content), about_item=error.status in ABOUT_THE_ITEM
            ) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _whole_reply(content: bytes) -> Reply:
    reply = _reply_of(content)
    if reply is None:
        raise ValueError(f"the reply is no chat completion ({content[:60]!r})")
    return reply


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
