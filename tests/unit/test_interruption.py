"""Real signals, sent to this very process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from lrm_safety.interruption import DeadlineReached, Interruption, StopRequested, kept_from_children, stop_caution

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])


@pytest.fixture(autouse=True)
def heard_hang_up() -> Iterator[None]:
    """Under `nohup` a process that starts the tests leaves them SIGHUP ignored, which a run then ignores too."""
    former = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, former)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@SIGNALS
def test_the_first_signal_waits_for_a_check(number: signal.Signals) -> None:
    interruption = Interruption()
    with interruption.handled():
        interruption.check()
        send(number)  # nothing happens here
        with pytest.raises(StopRequested) as stopped:
            interruption.check()
    assert stopped.value.signal_number == number and not stopped.value.at_once
    assert stopped.value.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}[number]
    assert str(stopped.value) == number.name


def test_a_deferred_section_is_finished_first() -> None:
    interruption = Interruption()
    reached = []
    with interruption.handled():
        with interruption.deferred():
            assert not interruption.requested
            send(signal.SIGTERM)
            interruption.check()
            assert interruption.requested
            with interruption.deferred():
                interruption.check()
            interruption.check()  # still inside the outer one
            reached.append("end of the section")
        with pytest.raises(StopRequested):
            interruption.check()
    assert reached


def test_a_failure_inside_a_deferred_section_ends_the_deferral() -> None:
    interruption = Interruption()
    with interruption.handled():
        with pytest.raises(ValueError), interruption.deferred():
            raise ValueError
        send(signal.SIGINT)
        with pytest.raises(StopRequested):
            interruption.check()


def test_a_second_signal_stops_at_once_even_where_deferred() -> None:
    interruption = Interruption()
    with interruption.handled(), pytest.raises(StopRequested) as stopped, interruption.deferred():
        send(signal.SIGINT)
        send(signal.SIGTERM)
        pytest.fail("the second signal was ignored")
    assert stopped.value.at_once and stopped.value.exit_code == 143


def test_a_second_signal_that_was_an_answer_leaves_time_and_another_one_is_second_again() -> None:
    interruption = Interruption()
    with interruption.handled():
        send(signal.SIGINT)
        for _ in range(2):
            with pytest.raises(StopRequested):
                send(signal.SIGINT)
            timer = interruption._leaving
            assert timer is not None and not timer.finished.is_set()
            interruption.stay()
            assert timer.finished.is_set()


def test_former_handlers_come_back() -> None:
    seen = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: seen.append(number))
    try:
        own = signal.getsignal(signal.SIGTERM)
        with pytest.raises(RuntimeError), Interruption().handled():
            assert signal.getsignal(signal.SIGTERM) is not own
            raise RuntimeError
        assert signal.getsignal(signal.SIGTERM) is own
        send(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, former)


def test_no_handler_for_exceptions_swallows_a_stop() -> None:
    assert not issubclass(StopRequested, Exception)


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    """That is what nohup does."""
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        interruption = Interruption()
        with interruption.handled():
            send(signal.SIGHUP)
            interruption.check()
    finally:
        signal.signal(signal.SIGHUP, former)


def test_sigusr1_asks_for_a_checkpoint_and_stops_nothing() -> None:
    interruption = Interruption()
    with interruption.handled():
        assert not interruption.take_save_request()
        send(signal.SIGUSR1)
        interruption.check()
        assert interruption.take_save_request()
        assert not interruption.take_save_request()


def test_the_deadline_counts_what_comes_next(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    interruption = Interruption()
    now[0] += 9 * 60
    interruption.check_deadline(None, 1e9)
    interruption.check_deadline(10, 60)
    with pytest.raises(DeadlineReached) as reached:
        interruption.check_deadline(10, 61)
    assert reached.value.exit_code == 75 and "checkpoint.stop_after_minutes=10" in str(reached.value)
    assert not reached.value.at_once, "it saves first"


SECOND = r"""
import os, signal, sys, types
from lrm_safety import interruption
interruption.AT_ONCE_SECONDS = 0.5
ray = types.ModuleType("ray.waiting")
exec("import time\ndef wait():\n    print('waiting', flush=True)\n    time.sleep(30)", ray.__dict__)
asked = interruption.Interruption()
with asked.handled():
    ray.wait()
"""


def test_a_second_signal_never_breaks_into_rays_own_waits_and_still_ends_the_process() -> None:
    """Raised there, it would come out as an error of Ray's with a traceback and another status."""
    process = subprocess.Popen(
        [sys.executable, "-c", SECOND], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 143 and said == "stopped by SIGTERM at once\n"


def test_after_a_second_signal_every_check_raises() -> None:
    interruption = Interruption()
    with interruption.handled(), interruption.deferred():
        send(signal.SIGTERM)
        interruption.check()
        with pytest.raises(StopRequested):
            send(signal.SIGTERM)
        with pytest.raises(StopRequested) as stopped:
            interruption.check()
    assert stopped.value.at_once


def test_processes_started_meanwhile_do_not_see_a_hang_up() -> None:
    interruption = Interruption()
    with interruption.handled():
        with kept_from_children():
            child = subprocess.Popen(
                [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(30)"], stdout=-1
            )
            send(signal.SIGHUP)
        try:
            assert child.stdout is not None and child.stdout.readline() == b"up\n"
            for number in (signal.SIGHUP, signal.SIGUSR1):
                child.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.5)
        finally:
            child.kill()
            child.wait()
        with pytest.raises(StopRequested):
            interruption.check()  # what came in between is not lost


def test_a_job_says_that_it_has_no_time_to_save() -> None:
    job = {"RAY_JOB_CONFIG_JSON_ENV_VAR": "{}"}
    assert "kills it after 3 s" in (stop_caution(job) or "")
    assert "kills it after 10 s" in (stop_caution(job | {"RAY_JOB_STOP_WAIT_TIME_S": "10"}) or "")
    assert stop_caution(job | {"RAY_JOB_STOP_WAIT_TIME_S": "1800"}) is None and stop_caution({}) is None
