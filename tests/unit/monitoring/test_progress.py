"""What a long command says while it works, where there is no terminal."""

from __future__ import annotations

import io
import re
import time

import pytest
from rich.console import Console

from lrm_safety.monitoring import console as subject
from lrm_safety.monitoring.console import PlainConsole
from lrm_safety.monitoring.progress import counted, duration, waiting
from lrm_safety.settings import ScheduleSettings


def log_file() -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(file=file, width=80), file


def test_a_long_count_says_how_far_it_is_how_fast_and_what_is_left() -> None:
    console, file = log_file()
    with counted(console, "generating", 4, seconds=0.2) as advance:
        advance(100)
        advance(100)
        time.sleep(0.5)
    lines = file.getvalue().splitlines()
    assert lines[0] == "generating: 4 responses"
    assert len(lines) == 4, lines
    first = re.fullmatch(r"generating: 2 of 4 responses \| ([\d,]+) tokens/s \| left 0:00:0(\d)", lines[1])
    # 200 tokens in about 0.2 s; the two that are left take as long again.
    assert first and 300 <= int(first[1].replace(",", "")) <= 1000 and first[2] == "0", lines
    assert lines[-1].startswith("generating: done, 0:00:0")


def test_a_count_of_which_nothing_is_done_speaks_all_the_same() -> None:
    """A batch of long responses may take minutes before the first one ends."""
    console, file = log_file()
    with counted(console, "judging", 1200, "texts", seconds=0.1):
        time.sleep(0.15)
    assert "judging: 0 of 1,200 texts | 0:00:00 so far" in file.getvalue()


def test_a_wait_names_what_is_waited_for_and_stops_with_it() -> None:
    console, file = log_file()
    with waiting(console, "loading the judge", seconds=0.1):
        time.sleep(0.25)
    spoken = file.getvalue()
    assert spoken.splitlines() == ["loading the judge ...", *["loading the judge: 0:00:00 so far"] * 2]
    time.sleep(0.2)
    assert file.getvalue() == spoken


def test_a_wait_of_several_parts_says_which_one_it_has_come_to() -> None:
    console, file = log_file()
    with waiting(console, "asking the nodes", seconds=0.2) as come_to:
        come_to("their ports")
        time.sleep(0.3)
        come_to("their links")
        time.sleep(0.2)
    parts = ["their ports", "their links"]
    assert file.getvalue().splitlines() == [
        "asking the nodes ...",
        *(f"asking the nodes, {part}: 0:00:00 so far" for part in parts),
    ]


def test_a_phase_of_training_that_lasts_says_so() -> None:
    console, file = log_file()
    plain = PlainConsole(ScheduleSettings(max_updates=10), console, silence_seconds=0.2)
    plain.record(1, {})
    plain.phase("generate")
    time.sleep(0.5)
    plain.phase(None)
    plain.close()
    lines = file.getvalue().splitlines()
    assert (
        lines[0].startswith("update 1/10") and set(lines[1:]) == {"generate: 0:00:00 so far"} and len(lines) in (2, 3)
    )


def test_the_start_speaks_sooner_than_what_comes_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "START_SILENCE_SECONDS", 0.2)
    console, file = log_file()
    plain = PlainConsole(ScheduleSettings(max_updates=10), console, silence_seconds=60.0)
    began = time.monotonic()
    plain.phase("start rollout")
    time.sleep(0.5)
    plain.record(1, {})
    waited = round(time.monotonic() - began)  # a busy machine makes more of the half second
    plain.phase("generate")
    time.sleep(0.5)
    plain.close()
    first, *reminders, last = file.getvalue().splitlines()
    assert first == "start rollout ..." and last.startswith("update 1/10")
    told = {f"start rollout: {duration(seconds)} so far" for seconds in range(waited + 1)}
    assert reminders and set(reminders) <= told
