"""The one HTTP client, of scoring endpoints and of judges: what is tried again, how long is waited, and how a failure is told."""

from __future__ import annotations

import email.utils
import logging
import math
import random
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx

from .errors import ConfigError

_logger = logging.getLogger(__name__)
_SECRET_FIELD = re.compile(
    r"(?i)(?:^|[_-]|api|access)(?:key|token|secret|passw(?:or)?d|sig|signature|auth|authorization)$"
)
JITTER = 0.25
"""Every wait is longer by a share drawn up to this one: requests that were refused together do not come back together."""
# Of its own: Python's shared generator belongs to a run's seed.
_draw = random.Random()

T = TypeVar("T")


class RequestFailed(Exception):
    """One request failed for good. The text is a whole sentence, for the user; no key stands in it."""

    def __init__(self, message: str, cause: str, *, status: int | None = None, content: bytes = b"") -> None:
        """`cause`: in a few words. `status` and `content`: of a reply that refused, as opposed to one that never came."""
        super().__init__(message)
        self.cause, self.status, self.content = cause, status, content


def check_url(url: str, key: str) -> None:
    """ConfigError, opening with `key`, unless `url` is http(s) with a host and without credentials."""
    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL()
    if parts.scheme not in ("http", "https") or not parts.host or parts.port == 0:
        raise ConfigError(f"{key}={url}: must be http://HOST[:PORT]/PATH or https://...")
    if parts.userinfo:
        raise ConfigError(f"{key}: must not hold a user name or password; the configuration is logged")
    if held := [name for name in parts.params if _SECRET_FIELD.search(name)]:
        raise ConfigError(
            f"{key}: must not hold a key ({held[0]}=...); the configuration is logged: give it in a variable, api_key_env=NAME"
        )


def below(url: str, path: str) -> str:
    """The address of `path` below `url`, whose query stays: some gateways want their version there on every request."""
    parts = httpx.URL(url)
    return str(parts.copy_with(path=f"{parts.path.rstrip('/')}/{path}"))


class HttpClient:
    """POSTs JSON to one address; safe to call from several threads. `counters`: `requests`, `retries`.

    Tried again, up to `max_retries` times: failed connections, exchanges that take more than `timeout_seconds` (the whole of
    one, not each read), the status codes 408, 429 and 5xx, and replies that their reader calls unreadable. The wait before
    it is what a 429 or 503 asks for in `Retry-After`, else `first_delay_seconds`, twice that, ..., in either case
    `max_delay_seconds` at most, and up to a quarter more by chance. Final: every other status, and a certificate that is not
    trusted. Redirections are not followed: a POST would lose its body, or take its key to another host.
    """

    def __init__(
        self,
        source: str,
        url: str,
        *,
        wanted: str,
        headers: Mapping[str, str],
        timeout_seconds: float,
        max_retries: int,
        first_delay_seconds: float = 0.5,
        max_delay_seconds: float = 60.0,
        max_connections: int = 1,
    ) -> None:
        """`source` opens every message; `wanted` is what a reply holds ("scores"). Values of `headers` are secrets.

        Raises ConfigError where the environment names a proxy or certificates that cannot be used.
        """
        self.counters: Counter[str] = Counter()
        self._source, self._url, self._wanted = source, url, wanted
        self._secrets = [value.removeprefix("Bearer ") for value in headers.values()]
        self._timeout_seconds, self._max_retries = timeout_seconds, max_retries
        self._first_delay_seconds, self._max_delay_seconds = first_delay_seconds, max_delay_seconds
        self._lock = threading.Lock()
        try:
            trusted = httpx.create_ssl_context()
            trusted.load_default_certs()  # an institution's own authority is known to the machine, not to httpx's list
            self._client = httpx.Client(
                headers={"Content-Type": "application/json", **headers},
                timeout=timeout_seconds,
                limits=httpx.Limits(max_connections=max_connections, max_keepalive_connections=max_connections),
                verify=trusted,
            )
        except (ImportError, ValueError, OSError, httpx.InvalidURL) as error:
            raise ConfigError(
                f"{source}: the environment's proxy or certificates cannot be used ({error}); mend HTTPS_PROXY, ALL_PROXY or "
                "SSL_CERT_FILE"
            ) from error

    def post(self, body: bytes, read: Callable[[bytes], T], stop: threading.Event | None = None) -> T:
        """What `read` makes of the reply's content. Its ValueError means that the reply is torn: it is asked for again.

        `stop` ends waits; nothing is sent once it is set. Raises RequestFailed, and what else `read` raises.
        """
        stop = stop or threading.Event()
        num_tries = self._max_retries + 1
        failure = ""
        for attempt in range(num_tries):
            if stop.is_set():
                raise RequestFailed(f"{self._source}: given up because another request failed", "given up")
            self._count("requests")
            delay = self._first_delay_seconds * 2 ** min(attempt, 32)
            try:
                response, content = self._exchange(body)
            except (httpx.HTTPError, TimeoutError) as error:
                if untrusted := _certificate_error(error):
                    raise RequestFailed(
                        f"{self._source}: its certificate is not trusted ({untrusted.verify_message}); name the file of its "
                        "authority in the variable SSL_CERT_FILE",
                        "certificate",
                    ) from error
                failure = f"{type(error).__name__}: {error}"
            else:
                failure = f"status {response.status_code} {response.reason_phrase}"
                if response.is_success:
                    try:
                        return read(content)
                    except ValueError as error:
                        failure = str(error)
                elif response.status_code not in (408, 429) and response.status_code < 500:
                    raise self._refusal(failure, response.status_code, content)
                elif response.status_code in (429, 503):
                    delay = retry_after(response.headers.get("Retry-After"), otherwise=delay)
            if attempt < self._max_retries:
                self._count("retries")
                delay = min(delay, self._max_delay_seconds) * _draw.uniform(1, 1 + JITTER)
                _logger.warning(
                    "%s: try %d of %d failed (%s); again in %.3g s",
                    self._source,
                    attempt + 1,
                    num_tries,
                    _cause(failure),
                    delay,
                )
                stop.wait(delay)
        raise RequestFailed(
            f"{self._source}: no {self._wanted} after {num_tries} tries of {self._timeout_seconds:g} s each; the last failed "
            f"with {failure}",
            _cause(failure),
        )

    @property
    def longest_seconds(self) -> float:
        """How long `post` may take by its own limits, about."""
        pause = self._max_delay_seconds * (1 + JITTER)
        return (self._max_retries + 1) * (self._timeout_seconds + pause)

    def get(self, url: str) -> bytes | None:
        """What stands at another address of the same server, asked for once; None where that is nothing."""
        try:
            response = self._client.get(url)
        except httpx.HTTPError:
            return None
        return response.content if response.is_success else None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _exchange(self, body: bytes) -> tuple[httpx.Response, bytes]:
        deadline = time.monotonic() + self._timeout_seconds
        parts: list[bytes] = []
        with self._client.stream("POST", self._url, content=body) as response:
            # httpx limits each read alone, so an endpoint that drips bytes would never meet its limit.
            for part in response.iter_bytes():
                parts.append(part)
                if time.monotonic() > deadline:
                    raise TimeoutError(f"the reply took more than {self._timeout_seconds:g} s")
        return response, b"".join(parts)

    def _refusal(self, told: str, status: int, content: bytes) -> RequestFailed:
        for secret in self._secrets:  # some endpoints quote the key that they do not know
            content = content.replace(secret.encode(), b"***")
        said = f" ({content[:200]!r})" if content else ""
        return RequestFailed(
            f"{self._source}: refused with {told}{said}", f"status {status}", status=status, content=content
        )

    def _count(self, counter: str) -> None:
        with self._lock:
            self.counters[counter] += 1


def retry_after(value: str | None, *, otherwise: float) -> float:
    """Seconds to wait by a Retry-After header (seconds or an HTTP date, RFC 9110); `otherwise` where it says nothing usable."""
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value or "").timestamp() - time.time()
        except ValueError:
            return otherwise
    return max(seconds, 0.0) if math.isfinite(seconds) else otherwise


def _certificate_error(error: BaseException | None) -> ssl.SSLCertVerificationError | None:
    """What the handshake said of the certificate, from below the classes of httpx."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error


def _cause(failure: str) -> str:
    """`ConnectError: [Errno 111] ...` -> `ConnectError`."""
    return failure.partition(":")[0].partition(" (")[0]
