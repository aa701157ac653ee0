"""A worker that is told to end, in the middle of a turn and otherwise."""

import signal

import pytest

from trojai_moth.runs.workers.stopping import Stopping, stopped_by_signal


@pytest.fixture
def heard():
    """Who listened before, as Ray does in its workers."""
    signals, before = [], signal.getsignal(signal.SIGTERM)

    def listen(number, frame):
        signals.append(number)
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, listen)
    yield signals, listen
    signal.signal(signal.SIGTERM, before)


def test_within_a_turn_it_is_ctrl_c_and_is_passed_on_afterwards(heard):
    signals, listen = heard
    seen = []
    with pytest.raises(SystemExit), stopped_by_signal() as stopping:
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException as error:
            seen += [type(error), *signals]
        with pytest.raises(KeyboardInterrupt):  # what was swallowed comes again at the next sign of progress
            stopping.check()
    assert seen == [KeyboardInterrupt] and signals == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is listen


def test_without_a_signal_nothing_happens(heard):
    signals, listen = heard
    with stopped_by_signal() as stopping:
        stopping.check()
    Stopping().check()
    assert signals == [] and signal.getsignal(signal.SIGTERM) is listen
