"""A Ray that cannot be joined is named by what named it, in seconds."""

from __future__ import annotations

import socket
import time

import pytest

from lrm_safety.errors import ClusterError
from lrm_safety.settings.compose import compose_settings
from lrm_safety.workers.groups import join_ray


def settings(*overrides: str):
    return compose_settings(["experiment=miniature", *overrides])[0]


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
        join_ray(settings())
    assert time.monotonic() - began < 15


def test_a_dead_address_of_the_configuration_is_blamed_on_its_key(monkeypatch: pytest.MonkeyPatch, dead: str) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    with pytest.raises(ClusterError, match=rf"^cluster.address={dead}: .*ray start --head"):
        join_ray(settings(f"cluster.address='{dead}'"))


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_too_long_for_sockets_is_named(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, "/tmp/" + "x" * 80)
    with pytest.raises(ClusterError, match=rf"^{variable}=/tmp/x+: is 46 bytes too long .*RAY_TMPDIR=/tmp$"):
        join_ray(settings())


def test_a_local_ray_that_does_not_start_in_time_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_slow(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # what ray.init raises, by its class too

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.init", too_slow)
    with pytest.raises(
        ClusterError, match=r"^a local Ray: cannot join Ray: The current node timed out during startup\.$"
    ):
        join_ray(settings())
