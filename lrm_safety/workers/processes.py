"""Processes of this node, seen from outside: whether they run at all, and where their threads are.

Stacks come from py-spy where it may look, otherwise from the processes' own faulthandler.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .heartbeat import DUMP_SIGNAL, STACKS

SPY_SECONDS = 10.0
ANSWER_SECONDS = 2.0


GONE, ENDED = "its process is gone", "its process has ended"


def lifeless(pids: list[int]) -> list[str]:
    """Why a process cannot go on by itself, `GONE` and `ENDED` among the reasons; empty where nothing is seen that keeps it
    from it."""
    return [_lifeless(pid) for pid in pids]


def _lifeless(pid: int) -> str:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return GONE
    if state in "Tt":
        return f"its process is stopped (SIGSTOP, or a debugger; `kill -CONT {pid}` lets it go on)"
    return ENDED if state in "ZX" else ""


def stacks(pids: list[int]) -> list[str]:
    """The stacks of each process, or a line that says why there are none."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_stacks, pids))


def _stacks(pid: int) -> str:
    if why := _lifeless(pid):
        return f"process {pid}: no stacks ({why})\n"
    try:
        return _spied(pid) or _told(pid)
    except OSError as error:
        return f"process {pid}: no stacks ({error})\n"


def _spied(pid: int) -> str:
    """What py-spy sees, of child processes too; empty where it is absent or may not look."""
    beside = Path(sys.executable).parent / "py-spy"
    program = str(beside) if beside.is_file() else shutil.which("py-spy")
    if program is None:
        return ""
    command = [program, "dump", "--subprocesses", "--pid", str(pid)]
    try:
        seen = subprocess.run(command, capture_output=True, text=True, timeout=SPY_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return seen.stdout if seen.returncode == 0 else ""


def _told(pid: int) -> str:
    """What faulthandler writes on our signal: a handler in C, which needs neither the main thread nor the interpreter's lock."""
    memory = _memory(pid)
    if memory is None:
        return f"process {pid}: no stacks (it does not beat)\n"
    before = memory.stat().st_size
    os.kill(pid, DUMP_SIGNAL)
    deadline, size = time.monotonic() + ANSWER_SECONDS, before
    while time.monotonic() < deadline:
        time.sleep(0.1)
        last, size = size, memory.stat().st_size
        if size == last > before:
            return memory.read_bytes()[before:].decode(errors="replace")
    return f"process {pid}: no stacks (no answer within {ANSWER_SECONDS:g} s)\n"


def _memory(pid: int) -> Path | None:
    """The file that faulthandler of a process writes into."""
    for opened in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if STACKS in os.readlink(opened):
                return opened
    return None
