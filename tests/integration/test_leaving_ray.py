"""A run leaves a Ray of its own also where one of Ray's processes is stopped, which Ray waits for without a limit."""

from __future__ import annotations

import subprocess
import sys

from child_environment import child_environment

LEFT = """
import signal, time
from types import SimpleNamespace
import psutil, ray
from lrm_safety.settings import ClusterSettings
from lrm_safety.workers.groups import PolicyOnly, join_ray

join_ray(ClusterSettings())
below = psutil.Process().children(recursive=True)
(raylet,) = [one for one in below if one.cmdline() and one.cmdline()[0].endswith("/raylet")]
raylet.send_signal(signal.SIGSTOP)
while raylet.status() != psutil.STATUS_STOPPED:
    time.sleep(0.01)
PolicyOnly(SimpleNamespace(cluster=ClusterSettings())).end()
assert not ray.is_initialized()
_, alive = psutil.wait_procs(below, timeout=60)
print("left behind:", [one.pid for one in alive])
"""


def test_a_stopped_raylet_is_not_waited_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT], env=child_environment(), capture_output=True, text=True, timeout=240
    )
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["left behind: []"]), done.stderr
