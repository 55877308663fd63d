"""Headless Chromium through its DevTools protocol, over the pipe that it offers: nothing to install but the browser."""

from __future__ import annotations

import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

VARIABLE = "LRM_SAFETY_BROWSER"
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
COMMAND_SECONDS = 60


def find_browser() -> str | None:
    """The program that $LRM_SAFETY_BROWSER names, or else the first of NAMES on the PATH."""
    return os.environ.get(VARIABLE) or next((found for name in NAMES if (found := shutil.which(name))), None)


class Browser:
    """One browser with one page, and an empty profile of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        # Chromium reads commands from descriptor 3 and answers on 4, messages ended by a null byte.
        theirs_in, self._to = (_away(end) for end in os.pipe())
        self._from, theirs_out = (_away(end) for end in os.pipe())

        # Popen hands on what is open: 3 and 4 must be, until `place` puts the pipes there.
        held = [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]

        def place() -> None:
            os.dup2(theirs_in, 3)
            os.dup2(theirs_out, 4)

        self._process = subprocess.Popen(
            [
                program,
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",  # a sandbox needs rights that containers do not give; the pages are our own
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={profile}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=place,
        )
        for end in (theirs_in, theirs_out, *held):
            os.close(end)
        self._numbers = itertools.count(1)
        self._unread = b""
        self._session: str | None = None
        self.events: list[dict[str, Any]] = []
        """Everything that the page reported, in order: {"method": ..., "params": ...}."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait(30)
        os.close(self._to)
        os.close(self._from)

    def look(self, width: int, height: int = 900, scheme: str = "light", media: str = "screen") -> None:
        """The next pages are shown so wide and high (CSS pixels), in this colour scheme, on a screen or in print."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def open(self, url: str) -> None:
        """Go there and wait until it is loaded."""
        self.events.clear()
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, f"{url}: {answer['errorText']}"
        while not self.reported("Page.loadEventFired"):
            self._receive()

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def reported(self, *methods: str) -> list[dict[str, Any]]:
        """What the page reported under these names since it was opened."""
        return [event["params"] for event in self.events if event["method"] in methods]

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(answer["data"]))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its result."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def _receive(self) -> dict[str, Any]:
        """The next message; an event is also kept."""
        deadline = time.monotonic() + COMMAND_SECONDS
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            read = os.read(self._from, 1 << 16) if ready else b""
            assert read, f"the browser {'ended' if ready else 'said nothing for a minute'}"
            self._unread += read
        text, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


def _away(descriptor: int) -> int:
    """The same pipe under a number above those that the browser wants."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


if __name__ == "__main__":  # `make browser` asks whether there is one
    raise SystemExit(find_browser() is None)
