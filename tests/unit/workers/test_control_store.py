"""When Ray's own processes count as gone: with a clock by hand, in front of a socket that nobody answers, and of a process."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from lrm_safety.errors import ClusterError, WorkerError
from lrm_safety.workers.control_store import ControlStore, Raylet


class Store:
    """One that answers until it is told not to."""

    def __init__(self, key: str | None) -> None:
        self.now, self.problem, self.looks = 0.0, None, 0
        self.store = ControlStore("10.0.0.1:6379", key, lambda: self.now, self.answer)

    def answer(self, address: str) -> str | None:
        assert address == "10.0.0.1:6379"
        self.looks += 1
        return self.problem

    def at(self, now: float) -> None:
        self.now = now
        self.store.check()


def test_our_own_is_given_up_after_twenty_seconds_which_a_restart_mends() -> None:
    one = Store(None)
    for now in range(1, 13):
        one.at(now)
    assert one.looks == 2  # at 5 and at 10
    one.problem = "Connection refused"
    one.at(15)
    one.at(20), one.at(25), one.at(30)
    with pytest.raises(
        WorkerError, match=r"^Ray's control store \(GCS\) has not answered for 25 s \(Connection refused\); "
    ):
        one.at(35)


def test_a_clusters_has_three_quarters_of_what_ray_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Store("cluster.address")
    one.at(5)
    one.problem = "timed out"
    for now in range(10, 55, 5):
        one.at(now)
    with pytest.raises(ClusterError, match=r"^cluster.address=10.0.0.1:6379: Ray's .* 50 s \(timed out\): bring the "):
        one.at(55)
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "400")
    patient = Store("cluster.address")
    patient.problem = "timed out"
    for now in range(5, 305, 5):
        patient.at(now)
    with pytest.raises(ClusterError):
        patient.at(305)


def test_one_that_comes_back_and_a_controller_that_was_stopped_itself() -> None:
    one = Store(None)
    one.problem = "Connection refused"
    one.at(5), one.at(10), one.at(15), one.at(20)
    one.problem = None
    one.at(25)
    one.problem = "Connection refused"
    one.at(3600)  # nobody looked for an hour
    for now in range(3605, 3625, 5):
        one.at(now)
    with pytest.raises(WorkerError):
        one.at(3625)


def test_a_socket_that_answers_nothing_is_no_control_store() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        host, port = mute.getsockname()
        assert not ControlStore(f"{host}:{port}", None).answers()


def test_a_raylet_that_is_stopped_has_twenty_seconds_and_one_that_ended_none() -> None:
    now = 0.0
    with subprocess.Popen(["sleep", "60"]) as process:
        raylet = Raylet(process.pid, lambda: now)

        def at(then: float) -> None:
            nonlocal now
            now = then
            raylet.check()

        at(1)
        process.send_signal(signal.SIGSTOP)
        while "T" not in state(process.pid):
            time.sleep(0.01)
        at(2), at(7), at(12), at(17)
        process.send_signal(signal.SIGCONT)
        while "T" in state(process.pid):
            time.sleep(0.01)
        at(20)
        process.send_signal(signal.SIGSTOP)
        while "T" not in state(process.pid):
            time.sleep(0.01)
        at(100)  # nobody looked for a while
        for then in (105, 110, 115, 120):
            at(then)
        with pytest.raises(
            WorkerError, match=rf"^Ray's raylet \(pid {process.pid}\) does not work: its process is stopped"
        ):
            at(121)
        process.kill()
        while "Z" not in state(process.pid):
            time.sleep(0.01)
        with pytest.raises(WorkerError, match=r"does not work: its process has ended; the same command goes on from"):
            at(122)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
