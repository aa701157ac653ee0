"""A limit on the time that a plugin may take.

In the main thread of a POSIX system a timer's signal raises ``OutOfTime`` inside the plugin, and again every second
until it leaves, so that one that catches everything leaves too. A single call into C, such as one torch operation, is
not cut short: the signal waits until it returns. Elsewhere, in another thread or on Windows, Python cannot interrupt:
there the clock is read when the plugin is done, and what comes too late is not taken, but one that never ends is not
ended. Everywhere, what a plugin returns or raises after its time counts as late.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import torch

from .errors import SettingsError
from .records import LONGEST_S

T = TypeVar("T")
# Seconds between two signals to a plugin that has not left after the first.
REPEAT_S = 1.0
# A timer set to less than its clock can tell would be off.
_SHORTEST_S = 1e-5


class OutOfTime(BaseException):
    """Raised by the timer in the middle of a plugin; not an Exception, which plugins catch for reasons of their own."""


class TimeLimitExceeded(Exception):
    """What was run took longer than it was given."""


def check_budget(seconds: float | None) -> None:
    """SettingsError unless it is None, for no limit, or a positive number of seconds."""
    if seconds is not None and not 0 < seconds <= LONGEST_S:
        raise SettingsError(f"time budget {seconds}: write a positive number of seconds, at most {LONGEST_S:g}")


def run_with_time_limit(seconds: float | None, action: Callable[[], T]) -> T:
    """What ``action()`` returns; TimeLimitExceeded when that takes more than so many seconds (None: no limit).

    An interrupted action may have left anything that it was changing half changed. Of torch's global state the gradient
    mode and the number of threads are put back. Ctrl-C passes through.
    """
    if seconds is None:
        return action()
    started, alarm = time.monotonic(), _Alarm()
    gradients, threads = torch.is_grad_enabled(), torch.get_num_threads()

    def late() -> bool:
        return alarm.rang or time.monotonic() - started > seconds

    try:
        result = _with_alarm(seconds, action, alarm) if can_interrupt() else action()
    except KeyboardInterrupt:
        raise
    except BaseException:
        if not late():
            raise
    else:
        if not late():
            return result
    _put_back(gradients, threads)
    raise TimeLimitExceeded(f"took longer than its time budget of {seconds:g} s") from None


def can_interrupt() -> bool:
    """Whether a plugin that hangs can be interrupted here."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _put_back(gradients: bool, threads: int) -> None:
    torch.set_grad_enabled(gradients)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


class _Alarm:
    """Raises in whatever the main thread is doing, as long as it is not off."""

    def __init__(self) -> None:
        self.rang = self.off = False

    def ring(self, _signal: int, _frame: object) -> None:
        if not self.off:
            self.rang = True
            raise OutOfTime


def _with_alarm(seconds: float, action: Callable[[], T], alarm: _Alarm) -> T:
    """Handler and timer are as before afterwards; a timer that fell due meanwhile rings as soon as they are."""
    began = time.monotonic()
    delay, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, alarm.ring)
    try:
        # Two levels, since the signal can come in the first of these "finally" too; the next is a second away.
        try:
            signal.setitimer(signal.ITIMER_REAL, max(seconds, _SHORTEST_S), REPEAT_S)
            return action()
        finally:
            alarm.off = True
    finally:
        alarm.off = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if handler is None else handler)
        if delay:
            left = delay - (time.monotonic() - began)
            signal.setitimer(signal.ITIMER_REAL, max(left, _SHORTEST_S), interval)
