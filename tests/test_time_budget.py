"""A plugin's time: interrupted where Python can, looked at afterwards where it can not, and nothing else disturbed."""

import signal
import threading
import time

import pytest
import torch

from trojai_moth import time_budget
from trojai_moth.commands.interruption import Interruption
from trojai_moth.time_budget import OverBudget, within

NEVER_S = 60


@pytest.fixture(autouse=True)
def no_timer_is_left():
    handler = signal.getsignal(signal.SIGALRM)
    yield
    assert signal.getsignal(signal.SIGALRM) is handler and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def timed(action, seconds=0.1):
    started = time.monotonic()
    with pytest.raises(OverBudget, match=r"time budget of 0\.1 s"):
        within(seconds, action)
    return time.monotonic() - started


def busy():
    while True:
        pass


@pytest.mark.parametrize("action", [lambda: time.sleep(NEVER_S), busy, threading.Event().wait])
def test_what_hangs_is_interrupted(action):
    assert 0.1 <= timed(action) < 5


def test_what_is_in_time_is_returned_and_raised():
    assert within(NEVER_S, lambda: 3) == 3 and within(None, lambda: 4) == 4
    with pytest.raises(ZeroDivisionError):
        within(NEVER_S, lambda: 1 / 0)


def test_catching_everything_once_does_not_help(monkeypatch):
    monkeypatch.setattr(time_budget, "REPEAT_S", 0.1)
    caught = []

    def stubborn():
        while True:
            try:
                time.sleep(NEVER_S)
            except BaseException as error:
                caught.append(type(error).__name__)
                if len(caught) == 3:
                    return "done after all"

    assert timed(stubborn) < 5 and caught == ["OutOfTime"] * 3


def test_exceptions_do_not_catch_it():
    def careful():
        try:
            time.sleep(NEVER_S)
        except Exception:
            return "caught"

    timed(careful)


def test_another_exception_after_the_time_is_a_time_out_too():
    def disguised():
        try:
            time.sleep(NEVER_S)
        except BaseException:
            raise ValueError("something else") from None

    timed(disguised)


def test_in_another_thread_late_is_late():
    """Nothing is interrupted there, which is what the module says; the answer is not taken."""
    seen = []

    def elsewhere():
        try:
            within(0.1, lambda: time.sleep(0.3))
        except OverBudget as error:
            seen.append(str(error))
        seen.append(within(NEVER_S, time_budget.can_interrupt))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == ["took longer than its time budget of 0.1 s", False] and time_budget.can_interrupt()


def test_handler_and_timer_from_before_are_put_back():
    rung = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 30)
        timed(lambda: time.sleep(NEVER_S))
        assert not rung and 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 29.9
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        assert within(NEVER_S, lambda: time.sleep(0.3) or len(rung)) == 0  # falls due meanwhile
        end = time.monotonic() + 10
        while not rung and time.monotonic() < end:
            time.sleep(0.01)
        assert len(rung) == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_one_budget_within_another():
    def outer():
        with pytest.raises(OverBudget, match=r"0\.05 s"):
            within(0.05, lambda: time.sleep(NEVER_S))
        time.sleep(NEVER_S)

    timed(outer)
    with pytest.raises(OverBudget, match=r"0\.1 s"):
        within(0.1, lambda: within(0.3, lambda: time.sleep(NEVER_S)))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_user_who_interrupts_is_heard(number):
    handlers = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}
    interruption = Interruption()
    interruption.listen()
    try:
        with pytest.raises(KeyboardInterrupt):
            within(NEVER_S, lambda: signal.raise_signal(number))
        assert interruption.asked
    finally:
        for sign, handler in handlers.items():
            signal.signal(sign, handler)


def test_torch_is_as_before():
    def leaves_gradients_off():
        torch.set_grad_enabled(False)
        time.sleep(NEVER_S)

    timed(leaves_gradients_off)
    assert torch.is_grad_enabled()
