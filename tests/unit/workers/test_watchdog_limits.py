"""How long an actor may be silent, and how long a piece of work may take: worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from lrm_safety.progress import Reading
from lrm_safety.workers.heartbeat import Beat
from lrm_safety.workers.watchdog import Judged, Limits, hanging

LIMITS = Limits(silent_seconds=30, stall_seconds=300, first_seconds=900, call_seconds=600)
SAVE: dict[str, Any] = {"phase": "save", "unit": "", "has_pieces": False}


def reading(seconds: float = 0.0, longest: float | None = 2.0, **others: object) -> Reading:
    fields = {
        "phase": "update",
        "calls": 3,
        "done": 5,
        "unit": "tokens",
        "size": 1000.0,
        "largest": 1000.0,
        "allowed": 0.0,
        "has_pieces": True,
    }
    return Reading(**{**fields, "seconds": seconds, "longest": longest, **others})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "limit"),
    [
        (reading(longest=2.0), 300),  # ten times two seconds is less than stall_seconds
        (reading(longest=40.0), 400),  # 10 x 40
        (reading(longest=40.0, size=3000.0), 1200),  # 10 x 40 x 3000 / 1000
        (reading(longest=40.0, size=10.0), 400),  # a smaller piece has the time of the largest
        (reading(longest=None), 900),  # the first: compilation, loading
        (reading(longest=2.0, allowed=1500.0), 1500),  # a request with a limit of its own
        (reading(longest=2.0, **SAVE), 600),  # nobody sees how far it has come: the time of a call
        (reading(longest=70.0, **SAVE), 700),  # 10 x 70
        (reading(longest=None, **SAVE), 900),
    ],
)
def test_the_time_of_a_piece_grows_with_its_size(now: Reading, limit: float) -> None:
    assert LIMITS.stall(now, stopping=False) == limit


def test_less_patience_once_the_run_is_to_stop() -> None:
    assert LIMITS.silence(stopping=False) == 30 and LIMITS.silence(stopping=True) == 10
    assert LIMITS.stall(reading(longest=2.0), stopping=True) == 60
    assert LIMITS.stall(reading(longest=40.0), stopping=True) == 120  # 3 x 40
    assert LIMITS.stall(reading(longest=15.0, **SAVE), stopping=True) == 600
    assert Limits(5, 20, 900, 600).silence(stopping=True) == 5


STOPPED = "its process is stopped"


@pytest.mark.parametrize(
    ("now", "silent", "lifeless", "complaint"),
    [
        (reading(1), 30, STOPPED, ""),
        (
            reading(1),
            31,
            STOPPED,
            "no heartbeat for 31 s (limit 30 s, cluster.silent_seconds=30), its process is stopped",
        ),
        # A library that holds the interpreter's lock, or a machine that is too busy: it runs, and has the time of its work.
        (reading(1), 31, "", ""),
        (reading(1), 299, "", ""),
        (
            reading(1),
            300,
            "",
            "no progress for 301 s (limit 300 s for 1,000 tokens, the longest so far 2.0 s, cluster.stall_seconds=300)",
        ),
        (
            reading(901, None, unit=""),
            0.5,
            "",
            "no progress for 902 s (limit 900 s between two pieces, the first of this process, cluster.stall_seconds=300)",
        ),
        (
            reading(601, **SAVE),
            0.5,
            "",
            "no progress for 602 s (limit 600 s without pieces, the longest so far 2.0 s, cluster.call_timeout_seconds=600)",
        ),
        (reading(5000, phase="", unit=""), 2, "", ""),  # idle
        # Silent since it was idle: what it does nobody knows, and its idle time is not counted.
        (reading(5000, None, phase="", unit=""), 899, "", ""),
        (
            reading(5000, None, phase="", unit=""),
            901,
            "",
            "no progress for 901 s (limit 900 s between two pieces, the first of this process, cluster.stall_seconds=300)",
        ),
    ],
)
def test_what_counts_as_hung(now: Reading, silent: float, lifeless: str, complaint: str) -> None:
    assert LIMITS.complaint(now, silent, lifeless, stopping=False) == complaint


def judged(name: str, done: int = 5, complaint: str = "", *, in_step: str = "policy", **others: object) -> Judged:
    usual = {"seconds": 301.0, "is_busy": True, "is_stopped": False}
    return Judged(name, in_step, (3, done), complaint=complaint, **{**usual, **others})  # type: ignore[arg-type]


LATE = "no progress for 301 s"


@pytest.mark.parametrize(
    ("actors", "named"),
    [
        # Rank 1 has 600 s for its larger piece; rank 0, which has 300 s, waits for it in the same one, or in the next.
        ([judged("rank 0", complaint=LATE), judged("rank 1")], []),
        ([judged("rank 0", 6, LATE), judged("rank 1", 5)], []),
        # It is past its own limit, too: it comes first.
        ([judged("rank 0", 6, LATE), judged("rank 1", 5, LATE)], ["rank 1", "rank 0"]),
        # One that is ahead waits itself; one that is idle has nothing to do.
        ([judged("rank 0", complaint=LATE), judged("rank 1", 6)], ["rank 0"]),
        ([judged("rank 0", complaint=LATE), judged("rank 1", 0, is_busy=False)], ["rank 0"]),
        # A stopped one is at fault whoever else is where.
        ([judged("rank 0", 6, "no heartbeat", is_stopped=True), judged("rank 1", 5)], ["rank 0"]),
        # Engines work alone, and for no other group.
        ([judged("a", complaint=LATE, in_step=""), judged("b", in_step=""), judged("rank 1")], ["a"]),
        ([judged("a", seconds=400.0, complaint=LATE), judged("b", complaint=LATE), judged("c", 9)], ["a", "b"]),
    ],
)
def test_of_workers_in_step_the_one_that_is_behind_is_named(actors: list[Judged], named: list[str]) -> None:
    assert [one.name for one in hanging(actors)] == named


def test_a_beat_of_somebody_else_is_no_beat() -> None:
    beat = Beat("policy-0-1", 17, "host", "node", reading(1.5))
    assert Beat.unpack(beat.pack("token"), "token") == beat
    assert Beat.unpack(beat.pack("other"), "token") is None
    for datagram in (b"", b"\xff\xfe", b"{}", b'["token", {"actor": 1}]', b'["token", {"reading": {}}]', b"[1, 2, 3]"):
        assert Beat.unpack(datagram, "token") is None
