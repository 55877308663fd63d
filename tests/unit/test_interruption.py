"""Real signals, sent to this very process."""

from __future__ import annotations

import os
import signal

import pytest

from lrm_safety.interruption import Interruption, StopRequested

SIGNALS = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])


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
    assert stopped.value.exit_code == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert str(stopped.value) == number.name


def test_a_deferred_section_is_finished_first() -> None:
    interruption = Interruption()
    reached = []
    with interruption.handled():
        with interruption.deferred():
            send(signal.SIGTERM)
            interruption.check()
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
