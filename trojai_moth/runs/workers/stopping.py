"""The end of a run before its end: by Ctrl-C, by a scheduler's signal, or because its time is over."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Remembers that work shall end.

    A signal's handler raises KeyboardInterrupt where the program happens to be. Python drops an exception that is
    raised inside a finaliser or a weak reference's callback, and with it the signal; so whoever works asks again at
    each sign of progress (:meth:`check`), and a signal is never lost.
    """

    def __init__(self, budget: float | None = None) -> None:
        """Not asked for yet, and no signal is listened to; with a budget, the end comes by itself after so long."""
        self.asked = False
        self._end = math.inf if budget is None else time.monotonic() + budget

    @property
    def late(self) -> bool:
        """Whether the budget is used up."""
        return time.monotonic() >= self._end

    def check(self) -> None:
        """KeyboardInterrupt when the end was asked for, or its time has come."""
        if self.asked or self.late:
            raise KeyboardInterrupt

    def listen(self, *signals: int) -> None:
        """From now on these signals ask for the end."""
        for number in signals:
            signal.signal(number, self._ask)

    @contextmanager
    def listening(self, *signals: int) -> Iterator[None]:
        """Listen until the block ends; then whoever listened before does so again."""
        before = {number: signal.getsignal(number) for number in signals}
        self.listen(*signals)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _ask(self, _signal: int, _frame: object) -> None:
        self.asked = True
        raise KeyboardInterrupt


@contextmanager
def stopped_by_signal() -> Iterator[Stopping]:
    """SIGTERM in the worker of somebody else, as Ray: it ends a task as Ctrl-C would, and is passed on afterwards.

    Ray's workers end by SystemExit, which a plugin may raise as well; in a task it would be taken for the plugin's.
    """
    stopping = Stopping()
    try:
        with stopping.listening(signal.SIGTERM):
            yield stopping
    finally:
        if stopping.asked:
            signal.raise_signal(signal.SIGTERM)
