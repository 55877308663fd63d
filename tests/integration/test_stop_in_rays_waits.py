"""A command that waits for Ray, and handles no signal itself, is stopped as any other."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest
from child_environment import child_environment

PROGRAM = """
import sys, time
import ray
from lrm_safety.interruption import StopRequested, heard
from lrm_safety.settings import ClusterSettings
from lrm_safety.workers.groups import join_ray
import signal

class Slow:
    def sleep(self):
        time.sleep(600)

try:
    with heard():
        before = signal.getsignal(signal.SIGTERM)
        join_ray(ClusterSettings(local_num_cpus=1))
        signal.signal(signal.SIGTERM, before)
        call = ray.remote(Slow).remote().sleep.remote()
        print("waits", flush=True)
        {wait}
except StopRequested as stop:
    print(f"stopped by {stop}", flush=True)
    ray.shutdown()
    sys.exit(stop.exit_code)
"""


@pytest.mark.timeout(180)
@pytest.mark.parametrize("wait", ["ray.get(call)", "ray.wait([call])"])
def test_sigterm_in_a_wait_of_rays_ends_the_command_with_143(wait: str) -> None:
    command = [sys.executable, "-c", PROGRAM.replace("{wait}", wait)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment()) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "waits\n"
            time.sleep(2.0)  # it is inside the wait by then
            process.send_signal(signal.SIGTERM)
            assert process.stdout.read() == "stopped by SIGTERM\n"
            assert process.wait(60) == 143
        finally:
            process.kill()
