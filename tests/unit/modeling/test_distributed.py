"""Where the ranks of a run meet."""

from __future__ import annotations

import threading
from datetime import timedelta

import psutil
import pytest

from lrm_safety.errors import ClusterError
from lrm_safety.modeling.distributed import LOOPBACK, address_of, interface_towards, meeting_store
from lrm_safety.workers.group import free_address


def test_the_store_is_served_on_its_address_alone() -> None:
    address, port = free_address(None, loopback=True)
    found: list[bytes] = []

    def other_rank() -> None:
        found.append(meeting_store(address, port, 1, 2, timedelta(seconds=30)).get("key"))

    thread = threading.Thread(target=other_rank)
    thread.start()
    store = meeting_store(address, port, 0, 2, timedelta(seconds=30))
    store.set("key", "value")
    thread.join(30)
    assert found == [b"value"]
    listening = {
        one.laddr.ip for one in psutil.Process().net_connections() if one.status == "LISTEN" and one.laddr.port == port
    }
    assert address == LOOPBACK and listening == {LOOPBACK}


def test_an_interface_has_its_address_and_packets_to_this_machine_leave_by_its_own() -> None:
    assert address_of("lo") == "127.0.0.1" and interface_towards("127.0.0.1", 9) == "lo"
    with pytest.raises(
        ClusterError, match=r"^cluster.network_interface=nope: node .* has no such interface .* but .*\blo\b"
    ):
        address_of("nope")
