from __future__ import annotations

import json
import subprocess
import sys

from lrm_safety.commands.demo import PeakMemory

MEBIBYTE = 2**20
# In a process of its own: what a test's process holds, and which children it still has, depends on the tests before.
MEASURED = """
import json, subprocess, sys, time
import psutil
from lrm_safety.commands.demo import PeakMemory

own = psutil.Process().memory_info().rss
block = "block = bytearray(b'x') * (96 << 20); print('ready', flush=True); input()"
with PeakMemory(interval_seconds=0.02) as memory:
    with subprocess.Popen([sys.executable, "-c", block], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"ready\\n"
        deadline = time.monotonic() + 60
        while memory.peak_bytes < own + (96 << 20) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.communicate(b"\\n")
    while_alive = memory.peak_bytes
    time.sleep(0.1)
print(json.dumps([own, while_alive, memory.peak_bytes]))
"""


def test_children_count_and_the_peak_stays() -> None:
    done = subprocess.run([sys.executable, "-c", MEASURED], capture_output=True, text=True, check=True, timeout=120)
    own, while_alive, peak = json.loads(done.stdout)
    assert own + 96 * MEBIBYTE <= while_alive <= peak
    # Between fork and exec a child counts with its parent's own pages.
    assert peak < 2 * own + 200 * MEBIBYTE


def test_even_a_moment_is_measured() -> None:
    with PeakMemory(interval_seconds=60.0) as memory:
        pass
    assert memory.peak_bytes > MEBIBYTE
