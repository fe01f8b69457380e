"""The signals that ask a process to end: Ctrl-C, SIGTERM, as of batch systems and containers, and
SIGHUP of a connection that is gone.
"""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

FROM_OUTSIDE = tuple(  # Windows has no SIGHUP
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
ALL = (signal.SIGINT, *FROM_OUTSIDE)
SOON = 0.05
"""Seconds after which an interruption that was dropped is raised again."""


@contextmanager
def on_signal(stop: Callable[[int], None], signals: tuple[int, ...] = ALL) -> Iterator[None]:
    """Call `stop` with the first of `signals` that arrives.

    Further ones from outside change nothing, since a closed terminal and service managers send
    several; a second Ctrl-C interrupts. What is ignored at the start, as under nohup, stays so.
    """

    def first(number: int, frame: FrameType | None) -> None:
        for each in before:
            again = signal.default_int_handler if each == signal.SIGINT else signal.SIG_IGN
            signal.signal(each, again)
        stop(number)

    wanted = [
        each
        for each in signals
        if each == signal.SIGINT or signal.getsignal(each) != signal.SIG_IGN
    ]
    before = {each: signal.getsignal(each) for each in wanted}
    try:
        for each in wanted:
            signal.signal(each, first)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextmanager
def no_interruption_lost() -> Iterator[None]:
    """Raise a KeyboardInterrupt again that a signal has raised in a finalizer, where Python prints
    and drops it.
    """
    before = sys.unraisablehook
    alarm = getattr(signal, "SIGALRM", None)  # Windows has none
    kept = signal.getsignal(alarm) if alarm else None

    def again(dropped: Any) -> None:
        if alarm and issubclass(dropped.exc_type, KeyboardInterrupt):
            signal.signal(alarm, signal.default_int_handler)
            signal.setitimer(signal.ITIMER_REAL, SOON)
        else:
            before(dropped)

    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = before
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(alarm, kept)
