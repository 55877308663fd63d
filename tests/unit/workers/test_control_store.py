"""When Ray's control store counts as gone: with a clock by hand, and in front of a socket that nobody answers."""

from __future__ import annotations

import socket

import pytest

from lrm_safety.errors import ClusterError, WorkerError
from lrm_safety.workers.control_store import ControlStore


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
