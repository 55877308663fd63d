"""Rewards computed by a scoring endpoint."""

from __future__ import annotations

import email.utils
import http.client
import json
import logging
import math
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from lrm_safety.credentials import api_key
from lrm_safety.errors import ConfigError, RewardError
from lrm_safety.settings import RewardModelSettings

from .conversation import Conversation
from .scorer import ScoreArray, checked_scores

_logger = logging.getLogger(__name__)
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_SECRET_FIELD = re.compile(
    r"(?i)(?:^|[_-]|api|access)(?:key|token|secret|passw(?:or)?d|sig|signature|auth|authorization)$"
)
FIRST_DELAY_SECONDS = 0.5
MAX_DELAY_SECONDS = 60.0


def check_url(url: str, key: str) -> None:
    """ConfigError, opening with `key`, unless `url` is http(s) with a host and without credentials."""
    try:
        parts = urllib.parse.urlsplit(url)
        well_formed = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        well_formed = False
    if not well_formed:
        raise ConfigError(f"{key}={url}: must be http://HOST[:PORT]/PATH or https://...")
    if parts.username or parts.password:
        raise ConfigError(f"{key}: must not hold a user name or password; the configuration is logged")
    if held := [name for name, _ in urllib.parse.parse_qsl(parts.query) if _SECRET_FIELD.search(name)]:
        raise ConfigError(
            f"{key}: must not hold a key ({held[0]}=...); the configuration is logged: give it in a variable, api_key_env=NAME"
        )


def read_key(settings: RewardModelSettings, key: str) -> dict[str, str]:
    """The header with the endpoint's key; ConfigError, opening with `key`, where the variable is not set or no header fits."""
    name, header = settings.api_key_env, settings.api_key_header
    if name is None:
        return {}
    if not _HEADER.fullmatch(header):
        raise ConfigError(f"{key}.api_key_header={header}: is no name of a header")
    value = api_key(name, f"{key}.api_key_env")
    return {header: f"Bearer {value}" if header.lower() == "authorization" else value}


class HttpScorer:
    """Scores conversations by an endpoint, `batch_size` of them a request, one request after another.

    Request, POST of JSON: `{"conversations": [{"prompt", "trace", "answer", "full", "status", "view", "view_text"},
    ...]}`, `view_text` being what is to be scored. Reply: `{"scores": [number, ...]}`, in the same order.

    Failed connections, time-outs and the status codes 429 and 5xx are tried again up to `max_retries` times, after 0.5,
    1, 2, ... seconds, or after what a 429 or 503 asks for in `Retry-After`, in either case 60 seconds at most. Every
    other status and every malformed reply is final. Redirections are not followed: a redirected POST would lose its
    body.
    """

    def __init__(
        self, name: str, settings: RewardModelSettings, *, first_delay_seconds: float = FIRST_DELAY_SECONDS
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._url = settings.url or ""
        check_url(self._url, f"reward.models.{name}.url")
        self._source = f"reward.models.{name}.url={self._url}"
        self._headers = {"Content-Type": "application/json"} | read_key(settings, f"reward.models.{name}")
        self._settings = settings
        self._first_delay_seconds = first_delay_seconds
        self._opener = urllib.request.build_opener(_NoRedirection)

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Scores, float32 [n]. Raises RewardError when the endpoint stays down, refuses, or answers nonsense."""
        size = self._settings.batch_size
        batches = [conversations[start : start + size] for start in range(0, len(conversations), size)]
        scores = [self._score_batch(batch, view) for batch in batches]
        return np.concatenate(scores) if scores else np.zeros(0, dtype=np.float32)

    def _score_batch(self, batch: Sequence[Conversation], view: str) -> ScoreArray:
        rows = [{**asdict(c), "view": view, "view_text": c.view(view)} for c in batch]
        reply = self._post(json.dumps({"conversations": rows}).encode())
        try:
            parsed = json.loads(reply)
        except ValueError as error:
            raise RewardError(f"{self._source}: the reply is not JSON ({reply[:60]!r})") from error
        scores = parsed.get("scores") if isinstance(parsed, dict) else None
        if not isinstance(scores, list):
            raise RewardError(f'{self._source}: the reply has no list "scores" ({reply[:60]!r})')
        if any(isinstance(score, bool) or not isinstance(score, int | float) for score in scores):
            raise RewardError(f'{self._source}: "scores" must hold numbers only ({reply[:60]!r})')
        return checked_scores(scores, len(batch), self._source)

    def _post(self, body: bytes) -> bytes:
        num_tries = self._settings.max_retries + 1
        for attempt in range(num_tries):
            delay = min(self._first_delay_seconds * 2**attempt, MAX_DELAY_SECONDS)
            try:
                return self._request(body)
            except urllib.error.HTTPError as error:
                with error:
                    if error.code != 429 and error.code < 500:
                        raise RewardError(f"{self._source}: refused with status {error.code} {error.reason}") from error
                    failure: Exception = error
                    if error.code in (429, 503):
                        delay = _retry_after(error.headers.get("Retry-After"), otherwise=delay)
            except (OSError, http.client.HTTPException) as error:
                failure = error
            if attempt + 1 < num_tries:
                self.counters["retries"] += 1
                _logger.warning(
                    "%s: try %d of %d failed (%s); again in %.3g s",
                    self._source,
                    attempt + 1,
                    num_tries,
                    f"status {failure.code}" if isinstance(failure, urllib.error.HTTPError) else type(failure).__name__,
                    delay,
                )
                time.sleep(delay)
        raise RewardError(
            f"{self._source}: no scores after {num_tries} tries of {self._settings.timeout_seconds:g} s each; the last "
            f"failed with {type(failure).__name__}: {failure}"
        ) from failure

    def _request(self, body: bytes) -> bytes:
        limit = self._settings.timeout_seconds
        deadline = time.monotonic() + limit
        request = urllib.request.Request(self._url, data=body, method="POST", headers=self._headers)
        parts: list[bytes] = []
        with self._opener.open(request, timeout=limit) as response:
            # The socket's limit is for each read, so an endpoint that drips bytes would never meet it.
            while part := response.read1(1 << 16):
                parts.append(part)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the reply took more than {limit:g} s")
            if response.length:
                raise http.client.IncompleteRead(b"".join(parts), response.length)
        return b"".join(parts)


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _retry_after(value: str | None, *, otherwise: float) -> float:
    """Seconds to wait by a Retry-After header (seconds or an HTTP date, RFC 9110), within [0, MAX_DELAY_SECONDS]."""
    if value is None:
        return otherwise
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return otherwise
    return min(max(seconds, 0.0), MAX_DELAY_SECONDS) if math.isfinite(seconds) else otherwise
