"""Real processes: a child of a killed parent ends by itself where it was asked to, and only there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lrm_safety.weight_sync.backends import ENDS_WITH_WORKER

PARENT = """
import multiprocessing, os, time
from lrm_safety.weight_sync.backends import end_with_parent

def child():
    end_with_parent()
    print(os.getpid(), flush=True)
    time.sleep(60)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""


@pytest.mark.parametrize("asked", [True, False])
def test_a_child_ends_with_its_killed_parent(tmp_path, asked):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    variables = {name: value for name, value in os.environ.items() if name != ENDS_WITH_WORKER}
    if asked:
        variables[ENDS_WITH_WORKER] = "1"
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=variables)
    child = psutil.Process(int(parent.stdout.readline()))
    try:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
        if asked:
            child.wait(timeout=20)
            assert not child.is_running()
        else:
            time.sleep(0.5)
            assert child.is_running()
    finally:
        parent.stdout.close()
        if child.is_running():
            child.kill()
