"""Where the ranks of a run meet."""

from __future__ import annotations

import threading
from datetime import timedelta

import psutil

from lrm_safety.modeling.distributed import LOOPBACK, meeting_store
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
