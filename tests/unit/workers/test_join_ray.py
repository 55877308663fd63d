"""A Ray that cannot be joined is named by what named it, in seconds."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import platform
import socket
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
import ray
from ray.core.generated import gcs_service_pb2

from lrm_safety.errors import ClusterError, ConfigError
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import join_ray

messages: Any = gcs_service_pb2  # made by protobuf, without types


def cluster(*overrides: str):
    return compose_settings(["experiment=miniature", *overrides])[0].cluster


@pytest.fixture
def dead() -> str:
    """An address where nothing listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


def test_a_dead_address_of_the_environment_is_blamed_on_the_environment(
    monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", dead)
    began = time.monotonic()
    with pytest.raises(ClusterError, match=rf"^RAY_ADDRESS={dead}: no Ray cluster answers there .*unset RAY_ADDRESS"):
        join_ray(cluster())
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (
            "ray://head:10001",
            r"Ray Client .*; run on a node of the cluster with `cluster.address=HOST:6379`, or .* a job",
        ),
        ("http://head:8265", r"is the address of Ray's dashboard, which takes jobs; run on a node"),
        ("grpc://head:6379", r"is no address of a Ray cluster; run on a node"),
    ],
)
def test_an_address_of_another_kind_is_refused(address: str, problem: str) -> None:
    with pytest.raises(ClusterError, match=rf"^cluster.address={address}: {problem}"):
        join_ray(cluster(f"cluster.address='{address}'"))


def test_a_dead_address_of_the_configuration_is_blamed_on_its_key(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ClusterError, match=rf"^cluster.address={dead}: .*ray start --head"):
        join_ray(cluster(f"cluster.address='{dead}'"))


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"", r"said nothing within 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", r"speaks HTTP, as Ray's dashboard does; Ray's own port is 6379"),
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

    monkeypatch.setattr("lrm_safety.workers.address.ANSWER_SECONDS", 1.0)
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


NODE = "ab" * 28


def control_store(
    written: bytes, status: grpc.StatusCode = grpc.StatusCode.OK, *, alive: bool = True
) -> list[grpc.GenericRpcHandler]:
    """Answers what Ray's own is asked about its cluster of one node, or fails."""

    def metadata(request: Any, context: grpc.ServicerContext) -> Any:
        assert (request.namespace, request.key) == (b"cluster", b"CLUSTER_METADATA")
        if status != grpc.StatusCode.OK:
            context.abort(status, "as told")
        return messages.InternalKVGetReply(value=written)

    def nodes(request: Any, context: grpc.ServicerContext) -> Any:
        reply = messages.GetAllNodeInfoReply()
        reply.node_info_list.add(node_id=bytes.fromhex(NODE), state=0 if alive else 1)
        return reply

    return [
        grpc.method_handlers_generic_handler(
            f"ray.rpc.{service}",
            {
                method: grpc.unary_unary_rpc_method_handler(
                    answer,
                    request_deserializer=getattr(messages, f"{method}Request").FromString,
                    response_serializer=getattr(messages, f"{method}Reply").SerializeToString,
                )
            },
        )
        for service, method, answer in (
            ("InternalKVGcsService", "InternalKVGet", metadata),
            ("NodeInfoGcsService", "GetAllNodeInfo", nodes),
        )
    ]


def of_versions(ray_version: str, python: str) -> bytes:
    return json.dumps({"ray_version": ray_version, "python_version": python}).encode()


OURS = of_versions(ray.__version__, platform.python_version())


@pytest.mark.parametrize(
    ("handlers", "problem"),
    [
        (control_store(OURS), None),
        (control_store(b""), None),  # Ray says by itself what it misses
        (
            control_store(of_versions("2.59.0", "3.12.1")),
            rf"the cluster there runs Ray 2\.59\.0 and Python 3\.12\.1, this process Ray {ray.__version__} and Python 3\.",
        ),
        (
            control_store(b"", grpc.StatusCode.UNAUTHENTICATED),
            r"wants its token, .* another or none: set RAY_AUTH_MODE=token",
        ),
        (control_store(b"", grpc.StatusCode.INTERNAL), r"does not answer as a Ray cluster \(INTERNAL: as told\)"),
        ([], r"what listens there is no head of a Ray cluster, .* Ray Client \(10001\)"),
        (control_store(OURS, alive=False), r"this machine is no node of the cluster there: `ray start --address="),
    ],
)
def test_a_cluster_that_cannot_be_joined_says_why(
    monkeypatch: pytest.MonkeyPatch, handlers: list[grpc.GenericRpcHandler], problem: str | None
) -> None:
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers(handlers)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    joined: list[object] = []
    monkeypatch.setattr("ray.init", lambda address, **_: joined.append(address))
    # As if a raylet of that number ran here, which is what Ray looks for.
    monkeypatch.setattr("ray._private.services.find_node_ids", lambda: {NODE})
    monkeypatch.setattr("lrm_safety.workers.address.NODE_SECONDS", 1.0)
    monkeypatch.setenv("RAY_ADDRESS", address)
    began = time.monotonic()
    try:
        with contextlib.nullcontext() if problem is None else pytest.raises(ClusterError, match=problem):
            join_ray(cluster())
    finally:
        server.stop(None)
    assert joined == ([address] if problem is None else [])
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("mode", "address"), [("token", "127.0.0.1:9"), ("token", "local"), ("token", None), (None, "auto")]
)
def test_a_token_file_that_is_absent_is_named_before_the_cluster_is_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: str | None, address: str | None
) -> None:
    for name, value in {
        "RAY_AUTH_MODE": mode,
        "RAY_AUTH_TOKEN": None,
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "ray-token"),
        "RAY_ADDRESS": address,
    }.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    monkeypatch.setattr("ray.init", lambda **_: pytest.fail("asked"))
    with pytest.raises(ConfigError, match=rf"^RAY_AUTH_TOKEN_PATH={tmp_path}/ray-token: no such file on this machine"):
        join_ray(cluster())


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
