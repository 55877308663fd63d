from __future__ import annotations

import subprocess
import sys
import time

import psutil

from lrm_safety.commands.demo import PeakMemory

MEBIBYTE = 2**20
CHILD = "block = bytearray(b'x') * (96 << 20); print('ready', flush=True); input()"


def test_children_count_and_the_peak_stays() -> None:
    own = psutil.Process().memory_info().rss
    with PeakMemory(interval_seconds=0.02) as memory:
        with subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None and child.stdout.readline() == b"ready\n"
            deadline = time.monotonic() + 20
            while memory.peak_bytes < own + 96 * MEBIBYTE:
                assert time.monotonic() < deadline, "the child's memory was not seen"
                time.sleep(0.02)
            child.communicate(b"\n")
        peak = memory.peak_bytes
        time.sleep(0.1)
    assert memory.peak_bytes >= peak
    # Between fork and exec a child counts with this process's own pages.
    assert memory.peak_bytes < 2 * own + 400 * MEBIBYTE


def test_even_a_moment_is_measured() -> None:
    with PeakMemory(interval_seconds=60.0) as memory:
        pass
    assert memory.peak_bytes > MEBIBYTE
