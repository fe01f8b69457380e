"""Signals that ask a process to end."""

import os
import signal
import time

import pytest

from unlearn_app.common.signals import ALL, FROM_OUTSIDE, no_interruption_lost, on_signal


@pytest.mark.parametrize("number", ALL)
def test_the_first_signal_is_told(number: int) -> None:
    told = []
    with on_signal(told.append):
        os.kill(os.getpid(), number)
    assert told == [number]


def test_more_signals_from_outside_change_nothing() -> None:
    told = []
    with on_signal(told.append):
        for number in (*FROM_OUTSIDE, *FROM_OUTSIDE):
            os.kill(os.getpid(), number)
    assert told == [FROM_OUTSIDE[0]]


def test_a_second_ctrl_c_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt), on_signal(lambda number: None):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)


def test_what_is_ignored_at_the_start_stays_ignored() -> None:
    told, before = [], signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with on_signal(told.append):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert told == []


def test_the_handlers_before_are_back_afterwards() -> None:
    before = [signal.getsignal(number) for number in ALL]
    with on_signal(lambda number: None):
        os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in ALL] == before


def test_a_signal_in_a_finalizer_is_not_lost() -> None:
    class Interrupted:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)  # the handler runs here

    def interrupt(number: int) -> None:
        raise KeyboardInterrupt

    def work() -> None:
        with no_interruption_lost(), on_signal(interrupt, (signal.SIGTERM,)):
            Interrupted()
            time.sleep(5)

    with pytest.raises(KeyboardInterrupt):
        work()
