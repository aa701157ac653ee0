"""SIGTERM in a worker: it ends the turn as Ctrl-C would, so that nothing is held against the model or its plugin."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Stopping:
    """Ends the worker where it is; where that was swallowed, as by a finaliser, at the next sign of progress."""

    def __init__(self) -> None:
        """Not asked for yet, and no signal is listened to."""
        self.asked = False

    def stop(self, _signal: int, _frame: object) -> None:
        """A handler for SIGTERM."""
        self.asked = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """KeyboardInterrupt if the end was asked for."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def stopped_by_signal() -> Iterator[Stopping]:
    """Listen while a turn lasts; a signal that came is passed on afterwards to whoever listened before.

    Ray's workers end by SystemExit, which a plugin may raise as well; in a turn it would be taken for the plugin's.
    """
    stopping, before = Stopping(), signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, stopping.stop)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
        if stopping.asked:
            signal.raise_signal(signal.SIGTERM)
