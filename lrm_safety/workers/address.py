"""What answers at the address of a Ray cluster, found out before `ray.init`, which has no limit of its own and few words."""

from __future__ import annotations

import json
import os
import platform
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray._private import services

from ..credentials import check_ray_token, ray_token_fault
from ..errors import ClusterError
from ..run_folder import RAY_JOB_VARIABLE

if TYPE_CHECKING:
    import grpc

ANSWER_SECONDS = 10.0
"""Ray itself tries for many minutes to join a cluster that is not there."""
NODE_SECONDS = 5.0
"""How long a node of this machine may take to appear in its cluster."""

# What opens every gRPC connection (RFC 9113, 3.4), with no settings; a server says its own settings (frame type 4) at once.
_HTTP2_OPENING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS_FRAME = 4
_SUBMIT = "run on a node of the cluster with `{key}=HOST:6379`, or from here as a job (`lrm-safety submit`)"


def from_environment() -> str | None:
    """The cluster that the environment names: RAY_ADDRESS, or in a job of Ray the cluster that the job belongs to.

    Ray sets RAY_ADDRESS of a job to the Ray that was started last on the machine, which may be somebody else's or gone.
    """
    named = os.environ.get("RAY_ADDRESS")
    if RAY_JOB_VARIABLE not in os.environ or named == "local":
        return named
    return _of_raylet(os.getppid()) or named


def _of_raylet(pid: int) -> str | None:
    """The control store of the raylet that this process, or one that started it, is; None where none of them is one."""
    while pid > 1:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            parent = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1]
        except OSError:
            return None
        if Path(words[0]).name == "raylet":
            return next((word.partition("=")[2] for word in words if word.startswith("--gcs-address=")), None)
        pid = int(parent)
    return None


def check_token(address: str | None) -> None:
    """Raise ConfigError where Ray would look for the token of the cluster at `address`, None for one of this run's own, in a file
    that holds none. Without RAY_AUTH_MODE Ray wants one of a cluster that it starts, whose token `join_ray` makes, or finds."""
    check_ray_token(os.environ, by_default=address in ("auto", "local"))


def check_address(address: str, named: str) -> None:
    """Raise ClusterError, which opens with `named` and says what to do, unless a Ray cluster that this process can join answers
    at `address`.

    What is no `host:port` and leads to none is Ray's own to judge.
    """
    if address == "auto":
        address = services.canonicalize_bootstrap_address(address) or address
    scheme, _, place = address.rpartition("://")
    key = named.partition("=")[0]
    if scheme:
        raise ClusterError(f"{named}: {_SCHEMES.get(scheme, _UNKNOWN)}; {_SUBMIT.format(key=key)}")
    host, colon, port = place.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        return
    if problem := silence(host.strip("[]"), int(port), ANSWER_SECONDS):
        mend = "start a cluster there with `ray start --head`, or name another"
        if key == "RAY_ADDRESS":
            mend = f"unset {key} for a Ray of this machine's own, or set it to a cluster that runs"
        elif "HTTP" in problem:
            mend = "give that port"
        raise ClusterError(f"{named}: no Ray cluster answers there ({problem}); {mend}")
    if problem := _refusal(place):
        raise ClusterError(f"{named}: {problem}")


_SCHEMES = {
    "ray": "Ray Client (ray://) keeps the controller outside the cluster, where it sees neither its nodes' files nor memory",
    "http": "is the address of Ray's dashboard, which takes jobs",
    "https": "is the address of Ray's dashboard, which takes jobs",
}
_UNKNOWN = "is no address of a Ray cluster"


def silence(host: str, port: int, seconds: float) -> str | None:
    """Why there is no gRPC server at the other end; None where there is one.

    Asked by hand: a gRPC client would try again and again what will never answer.
    """
    try:
        with socket.create_connection((host, port), seconds) as connection:
            connection.sendall(_HTTP2_OPENING)
            try:
                frame = connection.recv(9)
            except TimeoutError:
                return f"what listens there said nothing within {seconds:g} s"
    except TimeoutError:
        return f"no connection within {seconds:g} s"
    except (OSError, OverflowError) as error:
        return str(error)
    # Under TLS the answer is an alert, and Ray has its own certificates to check.
    if os.environ.get("RAY_USE_TLS", "0") in ("1", "true") or frame[3:4] == bytes((_SETTINGS_FRAME,)):
        return None
    what = "speaks HTTP, as Ray's dashboard does" if frame.startswith(b"HTTP/") else "does not speak gRPC"
    return f"what listens there {what}; Ray's own port is 6379 unless `ray start --port` said otherwise"


def _refusal(place: str) -> str | None:
    """Why the cluster at a gRPC server's address cannot be joined, and what to do; None where it can."""
    import grpc
    from ray._private.grpc_utils import init_grpc_channel

    try:
        with init_grpc_channel(place) as channel:  # with this process's token
            return other_versions(_written_down(channel)) or _elsewhere(channel, place)
    except grpc.RpcError as error:
        code = error.code()
        if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
            return ray_token_fault(os.environ) or (
                "the cluster there wants its token, and this process has another or none: set RAY_AUTH_MODE=token and "
                "RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's, which `ray get-auth-token` prints on its head"
            )
        if code == grpc.StatusCode.UNIMPLEMENTED:
            return (
                "what listens there is no head of a Ray cluster, but another part of it, such as Ray Client (10001); the head's "
                "port is 6379 unless `ray start --port` said otherwise"
            )
        return f"what listens there does not answer as a Ray cluster ({code.name}: {error.details()})"


def wants_token(place: str) -> bool:
    """Whether the cluster at `host:port` refuses who has no token."""
    import grpc

    try:
        with grpc.insecure_channel(place) as channel:
            _written_down(channel)
    except grpc.RpcError as error:
        return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


def _written_down(channel: grpc.Channel) -> bytes:
    """What a cluster's control store holds about the cluster: JSON. Raises grpc.RpcError."""
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2  # made by protobuf, without types
    request = messages.InternalKVGetRequest(key=b"CLUSTER_METADATA", namespace=b"cluster")
    reply = gcs_service_pb2_grpc.InternalKVGcsServiceStub(channel).InternalKVGet(request, timeout=ANSWER_SECONDS)
    return bytes(reply.value)


def _elsewhere(channel: grpc.Channel, place: str) -> str | None:
    """Why a process of this machine cannot take part; None where a living node of the cluster is on it.

    Ray finds a machine's nodes among its processes, and waits a minute for one; one that is just starting gets some seconds.
    """
    from ray.core.generated import gcs_service_pb2, gcs_service_pb2_grpc

    messages: Any = gcs_service_pb2
    stub = gcs_service_pb2_grpc.NodeInfoGcsServiceStub(channel)
    deadline = time.monotonic() + NODE_SECONDS
    while True:
        reply = stub.GetAllNodeInfo(messages.GetAllNodeInfoRequest(), timeout=ANSWER_SECONDS)
        living = {node.node_id.hex() for node in reply.node_info_list if node.state == _ALIVE}
        if living & services.find_node_ids():
            return None
        if time.monotonic() > deadline:
            return (
                f"this machine is no node of the cluster there: `ray start --address={place}` makes it one; or start the run "
                "from here as a job (`lrm-safety submit`)"
            )
        time.sleep(0.5)


_ALIVE = 0
"""`GcsNodeInfo.GcsNodeState` of Ray."""


def other_versions(written: bytes) -> str | None:
    """What differs between the Ray and Python of a cluster, which `ray start` writes down as JSON, and those of this process."""
    try:
        told = json.loads(written)
        theirs = f"Ray {told['ray_version']} and Python {told['python_version']}"
    except (ValueError, LookupError, TypeError):
        return None  # Ray says by itself what it misses
    ours = f"Ray {ray.__version__} and Python {platform.python_version()}"
    if theirs == ours:
        return None
    return f"the cluster there runs {theirs}, this process {ours}: use one environment (`make setup`, or one image) on all nodes"
