"""A user's function in a process of its own, with a limit of time for each call.

A thread would not do: a regular expression or a power that never ends holds the interpreter's lock. The process is
`python -m lrm_safety.evaluation.limited MODULE:FUNCTION SECONDS`; requests and replies are pickles, each after its length.
"""

from __future__ import annotations

import importlib
import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from typing import Any

from ..errors import ConfigError, JudgeError, raised, traceback_inside

START_LIMIT_SECONDS = 300.0
MAX_TIMEOUTS = 3
ORPHAN_FACTOR, ORPHAN_SECONDS = 2.0, 1.0
"""The process ends itself so much later than the limit, by the kernel's clock: its parent may have been killed meanwhile."""
_LENGTH_BYTES = 8


class LimitedFunction:
    """Calls `package.module:function` with a limit of seconds on the clock.

    A call over the limit raises TimeoutError, and the next one starts another process; the third in a row raises
    JudgeError, which names `key`. What the function raises comes as JudgeError with its class, message and traceback.
    """

    def __init__(self, path: str, key: str, seconds: float) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if not seconds > 0:
            raise ConfigError(f"{key}: its time limit is {seconds} seconds, and must be above 0")
        self._path, self._key, self._seconds = path, key, seconds
        self._num_timeouts = 0

    def __call__(self, *arguments: Any) -> Any:
        process = self._process or self._start()
        assert process.stdin is not None
        request = pickle.dumps(arguments)
        reply = None
        try:
            process.stdin.write(len(request).to_bytes(_LENGTH_BYTES, "big") + request)
            reply = _read(process, self._seconds)
        except TimeoutError:
            self.close()
            self._num_timeouts += 1
            if self._num_timeouts >= MAX_TIMEOUTS:
                raise JudgeError(
                    f"{self._key}={self._path}: {MAX_TIMEOUTS} calls in a row took more than {self._seconds:g} s; mend it, or "
                    "raise its timeout_seconds"
                ) from None
            raise
        except (BrokenPipeError, EOFError):
            code = process.wait()
            self.close()
            raise JudgeError(f"{self._key}={self._path}: its process ended with exit code {code}") from None
        self._num_timeouts = 0
        kind, *values = reply
        if kind == "error":
            said, inside = values
            raise JudgeError(f"{self._key}={self._path}: {said}", inside) from (
                RuntimeError(inside) if inside else None
            )
        return values[0]

    def close(self) -> None:
        """End the process; the next call starts another."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                stream.close()

    def __del__(self) -> None:
        self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        command = [sys.executable, "-P", "-m", __name__, self._path, str(self._seconds)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment, start_new_session=True
        )
        try:
            _read(self._process, START_LIMIT_SECONDS)
        except (TimeoutError, EOFError) as error:
            self.close()
            raise JudgeError(
                f"{self._key}={self._path}: its process did not start; its message stands above"
            ) from error
        return self._process


def _read(process: subprocess.Popen[bytes], seconds: float) -> Any:
    """The next reply. Raises TimeoutError after `seconds`, EOFError where the process has ended."""
    assert process.stdout is not None
    end = time.monotonic() + seconds
    held, wanted = b"", _LENGTH_BYTES
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while len(held) < wanted:
            if not selector.select(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"no reply within {seconds:g} s")
            part = os.read(process.stdout.fileno(), 1 << 16)
            if not part:
                raise EOFError
            held += part
            if wanted == _LENGTH_BYTES and len(held) >= _LENGTH_BYTES:
                wanted += int.from_bytes(held[:_LENGTH_BYTES], "big")
    return pickle.loads(held[_LENGTH_BYTES:])


def main() -> None:
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what the function prints is no reply
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes our input

    def reply(kind: str, *values: Any) -> None:
        try:
            content = pickle.dumps((kind, *values))
        except Exception as error:
            content = pickle.dumps(
                ("error", f"returned what cannot be handed on ({type(error).__name__}: {error})", "")
            )
        replies.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)

    module, _, name = sys.argv[1].partition(":")
    function = getattr(importlib.import_module(module), name)
    reply("value", None)
    requests = sys.stdin.buffer
    while length := requests.read(_LENGTH_BYTES):
        arguments = pickle.loads(requests.read(int.from_bytes(length, "big")))
        signal.setitimer(signal.ITIMER_REAL, ORPHAN_FACTOR * float(sys.argv[2]) + ORPHAN_SECONDS)
        try:
            value = function(*arguments)
        except Exception as error:  # a user's function may raise anything; the parent tells it
            reply("error", raised(error), traceback_inside(error))
        else:
            reply("value", value)
        signal.setitimer(signal.ITIMER_REAL, 0.0)


if __name__ == "__main__":
    main()
