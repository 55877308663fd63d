"""Grade answers to problems of mathematics."""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

from ...conversation.response import ParsedResponse
from ...errors import DataError, JudgeError
from .equivalence import alternatives, compare_simply
from .grade import (
    NO_ANSWER,
    UNFINISHED,
    Grade,
    graded,
    is_unfinished,
    last_box,
    stated_answer,
)
from .normal_form import exact_number, normal_form, plain, value_in_words
from .quantities import qualifiers

_RESIDUE = re.compile(
    r"(.+?)\s*(?:\\pmod\s*\{?\s*|\\?\b(?:bmod|mod)\b\s*\{?\s*|\(\s*(?:\\(?:text|mathrm)\s*\{\s*mod\s*\}|\\?bmod|\\?mod)\s*)(\d+)\s*[})]*"
)
_MODULUS_IN_WORDS = re.compile(r"\\(?:text|mathrm)\s*\{([^{}]*\bmod\b[^{}]*)\}")
_SUM = re.compile(r"[+-]?\d+(?:[+-]\d+)+")
MAX_ANSWER_CHARACTERS = 2000
"""A longer answer is wrong unread: the longest of MATH500's has 60 characters."""
START_LIMIT_SECONDS = 120.0


@dataclass(frozen=True)
class MathItem:
    """One response with its gold answer; `integer`: the answer is an integer, as AIME's are."""

    response: ParsedResponse
    target: str
    integer: bool = False


class MathGrader:
    """Grades by exact rules first and by math-verify in a process of its own where those leave a case open.

    The process starts when it is first needed, is reused, and is replaced after a comparison that ended it: over
    `timeout_seconds` of processor time or over `memory_bytes` of address space. Safe to call from any thread; calls
    take turns. Use it as a context manager, or call `close`.
    """

    def __init__(self, *, timeout_seconds: float = 5.0, memory_bytes: int = 4 << 30) -> None:
        assert timeout_seconds > 0
        self._timeout_seconds = timeout_seconds
        self._memory_bytes = memory_bytes
        self._worker: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def grade(self, response: ParsedResponse, target: str, *, integer: bool = False) -> Grade:
        r"""Grade the last balanced `\boxed{}` of the answer, or without one what the answer states (`stated_answer`).

        The trace is never read. Leading zeros do not matter. With `integer` the answer must be an integer as it stands,
        or after its last equals sign. Raises DataError for a blank target or, with `integer`, one that is no integer.
        """
        if is_unfinished(response):
            return UNFINISHED
        box = last_box(response.answer)
        extracted = stated_answer(response.answer) if box is None else box
        if not extracted or not normal_form(extracted[:MAX_ANSWER_CHARACTERS]):
            return NO_ANSWER
        if len(extracted) > MAX_ANSWER_CHARACTERS:
            return Grade(False, extracted[:MAX_ANSWER_CHARACTERS], "wrong")
        if integer:
            return graded(_integer(extracted) == _gold_integer(target), extracted)
        if not target.strip():
            raise DataError("a problem has a blank gold answer; drop the row")
        if "mod" in extracted and "mod" not in target and (residue := _integer(extracted)) is not None:
            return graded(residue == _integer(target), extracted)
        verdict = self._compare(extracted, target)
        if verdict is False and alternatives(target) == [[plain(target)]]:
            forms = alternatives(extracted)
            verdict = forms != [[plain(extracted)]] and self._all_right(forms, target)
        return Grade(False, extracted, "timeout") if verdict is None else graded(verdict, extracted)

    def _compare(self, answer: str, gold: str) -> bool | None:
        verdict = compare_simply(answer, gold)
        return self._ask_worker(answer, gold) if verdict is None else verdict

    def _all_right(self, forms: list[list[str]], gold: str) -> bool | None:
        """Whether each form of a value is right, exactly or as it is rounded."""
        for form in forms:
            verdicts = [self._compare(spelling, gold) for spelling in form]
            if True not in verdicts:
                return None if None in verdicts else False
        return True

    def grade_many(self, items: Iterable[MathItem]) -> list[Grade]:
        """Grades in the order of `items`."""
        return [self.grade(item.response, item.target, integer=item.integer) for item in items]

    def close(self) -> None:
        """End the process; the next grade that needs one starts another."""
        with self._lock:
            self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _ask_worker(self, answer: str, gold: str) -> bool | None:
        """The verdict; None when the process went over a limit."""
        with self._lock:
            worker = self._worker or self._start()
            assert worker.stdin is not None
            request = json.dumps([answer, gold, self._timeout_seconds]).encode() + b"\n"
            try:
                worker.stdin.write(request)
                worker.stdin.flush()
            except BrokenPipeError:
                # Ended from outside between two answers: that says nothing of this answer.
                self._stop()
                worker = self._start()
                assert worker.stdin is not None
                worker.stdin.write(request)
                worker.stdin.flush()
            # The kernel ends the process at its limit of processor time; the clock is for one that does not run at all.
            reply = _read_line(worker, 60.0 + 10.0 * self._timeout_seconds)
            if reply in (b"true\n", b"false\n"):
                return reply == b"true\n"
            self._stop()
            return None

    def _start(self) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        command = [sys.executable, "-P", "-W", "ignore", "-m", f"{__package__}.algebra", str(self._memory_bytes)]
        worker = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment, start_new_session=True
        )
        self._worker = worker
        if _read_line(worker, START_LIMIT_SECONDS) != b"ready\n":
            self._stop()
            raise JudgeError(
                f"the process that grades mathematics did not start (exit code {worker.returncode}): is math-verify "
                "installed? Its own message stands above"
            )
        return worker

    def _stop(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        for stream in (worker.stdin, worker.stdout):
            assert stream is not None
            stream.close()
        worker.send_signal(signal.SIGKILL)
        worker.wait()


def _integer(answer: str) -> int | None:
    if qualifiers(answer):
        return None
    text = plain(answer).rsplit("=", 1)[-1].rsplit(r"\equiv", 1)[-1]
    residue = _RESIDUE.fullmatch(_MODULUS_IN_WORDS.sub(r"\1", text).strip())
    form = normal_form(residue[1] if residue else text)
    if _SUM.fullmatch(form):
        value: Fraction | None = Fraction(sum(int(term) for term in re.findall(r"[+-]?\d+", form)))
    else:
        value = exact_number(form) if (said := value_in_words(text)) is None else said
    if residue and value is not None and int(residue[2]) > 0:
        value %= int(residue[2])
    return int(value) if value is not None and value.denominator == 1 else None


def _gold_integer(target: str) -> int:
    value = _integer(target)
    if value is None:
        raise DataError(f"gold answer {target[:40]!r} is no integer; this benchmark's answers are")
    return value


def _read_line(worker: subprocess.Popen[Any], limit_seconds: float) -> bytes:
    """The next line; empty when the process ended or wrote nothing within the limit."""
    assert worker.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(worker.stdout, selectors.EVENT_READ)
        return worker.stdout.readline() if selector.select(limit_seconds) else b""
