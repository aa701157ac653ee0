"""A worker process: takes tasks from its driver over a pipe, one at a time, and ends when the driver does."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING

from ..device import prepare_process
from ..errors import RunDirectoryError
from ..loading.trusted import trusting_pickles
from ..turn import Outcome, Task, take_turn
from .slots import Slot, pin
from .stopping import Stopping

if TYPE_CHECKING:
    from ..pipeline import Run

# Seconds in which a worker whose driver died may let go of its model in good order.
_GRACE_S = 3.0
# A sign of life within a stage is passed on at most so often.
_STEP_EVERY_S = 1.0


@dataclass(frozen=True)
class Note:
    """A line for the user."""

    text: str


@dataclass(frozen=True)
class Step:
    """A sign of life."""

    text: str


@dataclass(frozen=True)
class Began:
    """A stage that may take so many seconds; None: no limit."""

    stage: str
    limit: float | None


@dataclass(frozen=True)
class Ended:
    """A task that came to its end."""

    outcome: Outcome


@dataclass(frozen=True)
class Broken:
    """What is wrong with the run itself."""

    error: RunDirectoryError


Message = Note | Step | Began | Ended | Broken


def work(connection: Connection, run: Run, slot: Slot, trust: bool) -> None:
    """The life of a worker: tasks until the driver closes the pipe, dies, or sends SIGTERM."""
    stopping = Stopping()
    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError), trusting_pickles() if trust else nullcontext():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver too, and it decides
        signal.signal(signal.SIGTERM, stopping.stop)
        threading.Thread(target=_end_with_driver, daemon=True).start()
        pin(slot)
        prepare_process(slot.device)
        driver = _Driver(connection, stopping)
        own = replace(run, device=slot.device, reporter=driver, check=stopping.check)
        while True:
            task: Task = connection.recv()
            driver.tell(_answer(own, task, driver))


def _answer(run: Run, task: Task, driver: _Driver) -> Message:
    try:
        return Ended(take_turn(run, task, lambda stage, limit: driver.tell(Began(stage, limit))))
    except RunDirectoryError as error:
        return Broken(error)


class _Driver:
    """What the worker knows of its driver: a reporter whose user sits there."""

    def __init__(self, connection: Connection, stopping: Stopping) -> None:
        self._connection, self._stopping, self._last = connection, stopping, 0.0

    def model(self, model_id: str, number: int, total: int) -> None:
        """The driver knows, since it chose the model."""

    def note(self, text: str) -> None:
        """Something worth a line."""
        self._stopping.check()
        self.tell(Note(text))

    def step(self, text: str) -> None:
        """A sign of life within a stage."""
        self._stopping.check()
        if time.monotonic() - self._last > _STEP_EVERY_S:
            self._last = time.monotonic()
            self.tell(Step(text))

    def tell(self, message: Message) -> None:
        """Send it; a driver that is gone says nothing against the model, so this ends the worker."""
        try:
            self._connection.send(message)
        except OSError:
            raise KeyboardInterrupt from None


def _end_with_driver() -> None:
    """A driver that was killed can say nothing; but its end of a pipe is closed then."""
    driver = parent_process()
    if driver is None:
        return
    wait([driver.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os._exit(1)
