"""A Ray that cannot be joined is named by what named it, in seconds."""

from __future__ import annotations

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest

from lrm_safety.errors import ClusterError
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import join_ray


def cluster(*overrides: str):
    return compose_settings(["experiment=miniature", *overrides])[0].cluster


@pytest.fixture
def dead() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_a_dead_address_of_the_environment_is_blamed_on_the_environment(
    monkeypatch: pytest.MonkeyPatch, dead: str, scheme: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", scheme + dead)
    began = time.monotonic()
    with pytest.raises(
        ClusterError, match=rf"^RAY_ADDRESS={scheme}{dead}: no Ray cluster answers there .*unset RAY_ADDRESS"
    ):
        join_ray(cluster())
    assert time.monotonic() - began < 15


def test_a_dead_address_of_the_configuration_is_blamed_on_its_key(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ClusterError, match=rf"^cluster.address={dead}: .*ray start --head"):
        join_ray(cluster(f"cluster.address='{dead}'"))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"", r"said nothing within 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"does not speak gRPC; Ray's own port is 6379"),
    ],
)
def test_an_address_where_something_else_listens(monkeypatch: pytest.MonkeyPatch, said: bytes, problem: str) -> None:
    """`ray.init` would wait there without end."""

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.sendall(said)
            connection.recv(1 << 10)
            with contextlib.suppress(ConnectionError):
                connection.recv(1)  # until the other side has had enough

    monkeypatch.setattr("lrm_safety.workers.groups.CONNECT_TIMEOUT_SECONDS", 1.0)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        with pytest.raises(ClusterError, match=rf"^RAY_ADDRESS={address}: no Ray cluster answers there .*{problem}"):
            join_ray(cluster())
        thread.join(10)
    assert not thread.is_alive()


def test_a_grpc_server_is_taken_for_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own GCS is one; what it is asked after that is Ray's to judge."""
    grpc = pytest.importorskip("grpc")
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    joined: list[object] = []
    monkeypatch.setattr("ray.init", lambda address, **_: joined.append(address))
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    try:
        join_ray(cluster())
    finally:
        server.stop(None)
    assert joined == [f"127.0.0.1:{port}"]


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/tmp/" + "x" * 80)
    with pytest.raises(ClusterError, match=rf"^{variable}=/tmp/x+: is 46 bytes too long .*RAY_TMPDIR=/tmp$"):
        join_ray(cluster())


def test_a_local_ray_that_does_not_start_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # what ray.init raises, by its class too

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", too_slow)
    with pytest.raises(
        ClusterError, match=r"^a local Ray: cannot join Ray: The current node timed out during startup\.$"
    ):
        join_ray(cluster())
