"""Rewards computed by a scoring endpoint."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ..credentials import api_key
from ..errors import ConfigError, RewardError
from ..http_client import HttpClient, RequestFailed, check_url
from ..progress import PROGRESS
from ..settings import RewardModelSettings
from .conversation import Conversation
from .scorer import ScoreArray, checked_scores

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


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
    ...]}`, `view_text` being what is to be scored. Reply: `{"scores": [number, ...]}`, in the same order. What fails is
    tried again as HttpClient says; a reply of another form is final, since an endpoint that answers so would again.
    """

    def __init__(self, name: str, settings: RewardModelSettings, *, first_delay_seconds: float = 0.5) -> None:
        url = settings.url or ""
        check_url(url, f"reward.models.{name}.url")
        self._source = f"reward.models.{name}.url={url}"
        self._batch_size = settings.batch_size
        self._client = HttpClient(
            self._source,
            url,
            wanted="scores",
            headers=read_key(settings, f"reward.models.{name}"),
            timeout_seconds=settings.timeout_seconds,
            max_retries=settings.max_retries,
            first_delay_seconds=first_delay_seconds,
        )
        self.counters = self._client.counters

    def score_texts(self, conversations: Sequence[Conversation], view: str) -> ScoreArray:
        """Scores, float32 [n]. Raises RewardError when the endpoint stays down, refuses, or answers nonsense."""
        size = self._batch_size
        batches = [conversations[start : start + size] for start in range(0, len(conversations), size)]
        pieces = PROGRESS.pieces(batches, "conversations", len, allowed=self._client.longest_seconds)
        scores = [self._score_batch(batch, view) for batch in pieces]
        return np.concatenate(scores) if scores else np.zeros(0, dtype=np.float32)

    def _score_batch(self, batch: Sequence[Conversation], view: str) -> ScoreArray:
        rows = [{**asdict(c), "view": view, "view_text": c.view(view)} for c in batch]
        body = json.dumps({"conversations": rows}).encode()
        try:
            return checked_scores(self._client.post(body, self._scores_of), len(batch), self._source)
        except RequestFailed as error:
            raise RewardError(str(error)) from error

    def _scores_of(self, reply: bytes) -> list[float]:
        try:
            parsed = json.loads(reply)
        except ValueError as error:
            raise RewardError(f"{self._source}: the reply is not JSON ({reply[:60]!r})") from error
        scores = parsed.get("scores") if isinstance(parsed, dict) else None
        if not isinstance(scores, list):
            raise RewardError(f'{self._source}: the reply has no list "scores" ({reply[:60]!r})')
        if any(isinstance(score, bool) or not isinstance(score, int | float) for score in scores):
            raise RewardError(f'{self._source}: "scores" must hold numbers only ({reply[:60]!r})')
        return scores
