"""Ending a run in good order on Ctrl-C or a scheduler's signal, at whatever moment it comes."""

from __future__ import annotations

import math
import signal
import time

from ..pipeline import Reporter


class Interruption:
    """Remembers that the run shall end.

    A signal's handler raises KeyboardInterrupt where the program happens to be. Python drops an exception that is
    raised inside a finaliser or a weak reference's callback, and with it the signal; so the run asks again at each
    sign of progress (``Stopping``), and a signal is never lost.
    """

    def __init__(self, budget: float | None = None) -> None:
        """Not asked for yet, and no signal is listened to; with a budget, the end comes by itself after so long."""
        self.asked = False
        self._end = math.inf if budget is None else time.monotonic() + budget

    def listen(self) -> None:
        """From now on Ctrl-C and SIGTERM ask for the end."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def check(self) -> None:
        """KeyboardInterrupt when the end was asked for, or its time has come."""
        if self.asked or self.late:
            raise KeyboardInterrupt

    @property
    def late(self) -> bool:
        """Whether the budget is used up."""
        return time.monotonic() >= self._end

    def _ask(self, _signal: int, _frame: object) -> None:
        self.asked = True
        raise KeyboardInterrupt


class Stopping:
    """A reporter that first asks whether the run shall end."""

    def __init__(self, reporter: Reporter, interruption: Interruption) -> None:
        """Pass everything on to this reporter."""
        self._reporter, self._interruption = reporter, interruption

    def model(self, model_id: str, number: int, total: int) -> None:
        """A model's turn has come."""
        self._interruption.check()
        self._reporter.model(model_id, number, total)

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._interruption.check()
        self._reporter.note(text)

    def step(self, text: str) -> None:
        """A sign of life within a stage."""
        self._interruption.check()
        self._reporter.step(text)
