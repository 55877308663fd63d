"""What is seen of a process from outside: a stopped one, one that works without ever giving the interpreter's lock back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lrm_safety.workers import processes
from lrm_safety.workers.processes import lifeless, stacks

BUSY = """
import faulthandler, os, re, sys
from lrm_safety.workers.heartbeat import DUMP_SIGNAL, STACKS

def holds_the_lock():
    print("ready", flush=True)
    re.match(r"(a*)*b", "a" * 40)  # in C, for days

faulthandler.register(DUMP_SIGNAL, file=os.memfd_create(STACKS), all_threads=True)
holds_the_lock()
"""


@pytest.fixture(scope="module")
def busy() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process.pid
        process.kill()


def test_a_process_that_holds_the_lock_runs_and_a_stopped_one_does_not(busy: int) -> None:
    assert lifeless([busy, os.getpid()]) == ["", ""]
    os.kill(busy, signal.SIGSTOP)
    try:
        deadline = time.monotonic() + 20
        while not (seen := lifeless([busy])[0]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert f"is stopped (SIGSTOP, or a debugger; `kill -CONT {busy}`" in seen
        assert "is stopped" in stacks([busy])[0]
    finally:
        os.kill(busy, signal.SIGCONT)
    assert lifeless([busy])[0] == ""


def test_one_that_is_over_is_seen_so() -> None:
    with subprocess.Popen(["true"]) as process:
        deadline = time.monotonic() + 20
        while not (seen := lifeless([process.pid])[0]) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert seen == "its process has ended"
    assert lifeless([process.pid]) == ["its process is gone"]
    assert "is gone" in stacks([process.pid])[0]


def test_without_py_spy_the_process_tells_its_stacks_itself(busy: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_spied", lambda pid: "")
    for _ in range(2):  # each time those of now alone
        (text,) = stacks([busy])
        assert text.count("in holds_the_lock") == 1
    assert "does not beat" in stacks([os.getpid()])[0]


def test_py_spy_sees_the_function(busy: int) -> None:
    if not processes._spied(busy):
        pytest.skip("py-spy is absent, or may not look at other processes here")
    assert "holds_the_lock" in stacks([busy])[0]
