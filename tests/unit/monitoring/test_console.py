from __future__ import annotations

import io

import pytest
from rich.console import Console as Terminal

from lrm_safety.monitoring.console import LiveConsole, PlainConsole, SilentConsole, open_console
from lrm_safety.monitoring.progress import Progress, duration
from lrm_safety.settings import ScheduleSettings, TrackingSettings

METRICS = {"reward/raw_mean": 1.23456, "kl/k1": 0.012, "evaluation/safety": 0.75, "time/iteration_seconds": 30.0}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def terminal(width: int = 160) -> Terminal:
    return Terminal(file=io.StringIO(), record=True, force_terminal=True, width=width)


def test_plain_says_one_line_a_record() -> None:
    clock, screen = Clock(), terminal()
    console = PlainConsole(ScheduleSettings(max_updates=10), screen, clock)
    console.phase("start groups")
    console.phase(None)
    console.record(2, METRICS)
    console.phase("generate")
    clock.now = 60.0
    console.record(4, METRICS)
    console.note("[not markup]")
    console.close()
    assert screen.export_text().splitlines() == [
        "start groups ...",
        "update 2/10 | reward 1.235 | kl 0.012 | safety 0.75 | 30.0 s",
        "update 4/10 | reward 1.235 | kl 0.012 | safety 0.75 | 30.0 s | left 0:03:00",
        "[not markup]",
    ]


def test_the_start_and_the_evaluation_are_no_part_of_the_first_updates() -> None:
    """211 s of start, 16 s of evaluation, 6.8 s of two updates; then 3 s an update."""
    clock, screen = Clock(), terminal()
    console = PlainConsole(ScheduleSettings(max_updates=8), screen, clock)
    clock.now = 227.0
    console.record(0, {"evaluation/safety": 0.5})
    clock.now = 233.8
    first = {"time/iteration_seconds": 233.8, "time/startup_seconds": 211.0, "time/evaluate_seconds": 16.0}
    console.record(2, first)
    clock.now = 239.8
    console.record(4, {"time/iteration_seconds": 6.0})
    console.close()
    assert screen.export_text().splitlines() == [
        "update 0/8 | safety 0.5",
        "update 2/8 | 6.8 s | start 211.0 s | evaluation 16.0 s",
        "update 4/8 | 6.0 s | left 0:00:12",
    ]


def test_live_shows_bar_phase_metrics_and_time_left() -> None:
    clock, screen = Clock(), terminal()
    console = LiveConsole(ScheduleSettings(max_updates=10), screen, clock)
    console.record(2, METRICS)
    clock.now = 60.0
    console.record(4, {"kl/k1": 0.5})
    console.phase("generate")
    clock.now = 67.0
    console.note("a note")
    console._live.refresh()
    screen.export_text()
    screen.print(console._render())
    text = screen.export_text()
    console.close()
    assert "update 4/10" in text and "left 0:03:00" in text and "generate 7 s" in text
    assert "━" in text
    assert "kl 0.5" in text and "reward 1.235" in text and "safety 0.75" in text


def test_live_prints_notes_above_and_stops() -> None:
    screen = terminal()
    console = LiveConsole(ScheduleSettings(max_updates=10), screen)
    console.note("a note")
    console.phase("sync")
    console.close()
    console.close()
    text = screen.export_text()
    assert "a note" in text and "update 0/10" in text and "sync" not in text.splitlines()[-1]


@pytest.mark.parametrize(
    ("kind", "is_terminal", "expected"),
    [
        ("auto", True, LiveConsole),
        ("auto", False, PlainConsole),
        ("live", False, LiveConsole),
        ("plain", True, PlainConsole),
        ("off", True, SilentConsole),
    ],
)
def test_the_setting_chooses(kind: str, is_terminal: bool, expected: type) -> None:
    screen = Terminal(file=io.StringIO(), force_terminal=is_terminal)
    console = open_console(TrackingSettings(console=kind), ScheduleSettings(), screen)
    console.close()
    assert type(console) is expected


def test_off_prints_nothing() -> None:
    screen = terminal()
    console = open_console(TrackingSettings(console="off"), ScheduleSettings(), screen)
    console.phase("sync")
    console.record(1, METRICS)
    console.note("text")
    console.close()
    assert screen.export_text() == ""


def test_progress_counts_what_this_process_did() -> None:
    clock = Clock()
    progress = Progress(ScheduleSettings(max_updates=100, stop_after_updates=60), clock)
    assert progress.seconds_left is None
    progress.record(40, {})
    assert progress.seconds_left is None
    clock.now = 10.0
    progress.record(45, {})
    assert progress.seconds_left == 30.0
    progress.record(10, {})
    assert progress.seconds_left is None, "after going back the pace is unknown"


def test_progress_knows_a_limit_in_passes() -> None:
    progress = Progress(ScheduleSettings(max_updates=100, passes=2.0), Clock())
    assert progress.num_updates == 100
    progress.record(10, {"train/passes": 0.5})
    assert progress.num_updates == 40
    progress.record(20, {"train/passes": 0.1})
    assert progress.num_updates == 100


def test_duration() -> None:
    assert [duration(x) for x in (0, 59.6, 3661, 360000)] == ["0:00:00", "0:01:00", "1:01:01", "100:00:00"]
