"""Servers on loopback for tests: real sockets, and the ways in which an endpoint fails."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, TypeVar

import pytest

Server = TypeVar("Server", bound=HTTPServer)


class Handler(BaseHTTPRequestHandler):
    """Writes no log, reads a request and replies in one call each."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def reply(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def promise(self) -> None:
        """The head of a reply that is longer than what comes of it."""
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def hang_up(handler: Handler, *_: Any) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_short(handler: Handler, *_: Any) -> None:
    handler.promise()
    handler.wfile.write(b'{"begun": [')


def drip(handler: Handler, *_: Any) -> None:
    """One byte every 50 ms: every read is quick, the whole reply is not."""
    handler.promise()
    with contextlib.suppress(OSError):
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)


@contextlib.contextmanager
def serving(server: Server) -> Iterator[Server]:
    """It answers from a thread, and no proxy stands before it."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    with server, pytest.MonkeyPatch.context() as environment:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            environment.delenv(name, raising=False)
        thread.start()
        yield server
        server.shutdown()
    thread.join(5)
