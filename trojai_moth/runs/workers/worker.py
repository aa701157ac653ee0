"""What a worker does, in a process that its driver started or that Ray did: one task at a time, watched and heard.

A worker process takes its tasks from its driver over a pipe, and ends when the driver does.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait

from ...core.device import prepare_process
from ...core.errors import RunDirectoryError
from ...core.messages import debugging, handed_to, level, traceback_text
from ...loading.own_code import allowed_architectures, allowing_architectures
from ...loading.trusted import pickles_are_trusted, trusting_pickles
from ..run import Run
from ..run_task import run_task
from ..tasks import Outcome, Task
from ..watchdog import Watchdog, watch_path
from .slots import Slot, pin
from .stopping import Stopping

# Seconds in which a worker whose driver died may let go of its model in good order.
_GRACE_S = 3.0
# A sign of life within a stage is passed on at most so often.
_STEP_EVERY_S = 1.0


@dataclass(frozen=True)
class Inherited:
    """What holds in a worker as in its driver, besides the run. overtime: as :class:`Watchdog` has it."""

    overtime: float
    trust: bool
    architectures: frozenset[str]
    level: int
    debug: bool

    @classmethod
    def from_here(cls, overtime: float) -> Inherited:
        """What holds in this process."""
        return cls(overtime, pickles_are_trusted(), allowed_architectures(), level(), debugging())

    @contextmanager
    def in_force(self, send: Callable[[logging.LogRecord], None]) -> Iterator[None]:
        """Here, too; what is logged meanwhile is sent to the driver instead of being shown."""
        trust = trusting_pickles() if self.trust else nullcontext()
        own = allowing_architectures(self.architectures)
        with handed_to(_Sender(send), self.level, self.debug), trust, own:
            yield


class _Sender(logging.Handler):
    """Gives away each message as another process can be sent it: texts only. What ``send`` raises ends the work."""

    def __init__(self, send: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        text, error = record.getMessage(), record.exc_info[1] if record.exc_info else None
        sent = logging.makeLogRecord({**vars(record), "msg": text, "args": None, "exc_info": None})
        sent.exc_text = traceback_text(error) if error else None
        self._send(sent)


def log_here(record: logging.LogRecord) -> None:
    """A worker's record, as if it had been made in this process."""
    logging.getLogger(record.name).handle(record)


@dataclass(frozen=True)
class Began:
    """A stage."""

    stage: str


@dataclass(frozen=True)
class Done:
    """What became of a task; ``broken``: what is wrong with the run itself."""

    outcome: Outcome
    broken: RunDirectoryError | None = None


def do_task(run: Run, task: Task, overtime: float, on_stage: Callable[[str], None]) -> Done:
    """A task in a process that is ended when a stage hangs where Python cannot interrupt it."""
    word = watch_path(run.journal.leases.folder, run.cases[task.number].model_id)
    with Watchdog(word, overtime) as watchdog:

        def begins(stage: str, limit: float | None) -> None:
            on_stage(stage)
            watchdog.begins(stage, limit)

        try:
            return Done(run_task(run, task, begins))
        except RunDirectoryError as error:
            return Done("done", error)


# A record of the log; a sign of life, as a run's progress callback is given it; a stage; the end of a task.
Message = logging.LogRecord | str | Began | Done


def work(connection: Connection, run: Run, slot: Slot, inherited: Inherited) -> None:
    """The life of a worker process: tasks until the driver closes the pipe, dies, or sends SIGTERM."""
    stopping, driver = Stopping(), _Driver(connection)
    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError), inherited.in_force(driver.tell):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the driver too, and it decides
        stopping.listen(signal.SIGTERM)
        threading.Thread(target=_end_with_driver, daemon=True).start()
        pin(slot)
        prepare_process(slot.device)
        own = replace(run, device=slot.device, progress=driver.step, check=stopping.check)
        while True:
            task: Task = connection.recv()
            driver.tell(do_task(own, task, inherited.overtime, lambda stage: driver.tell(Began(stage))))


class _Driver:
    """The driver at the other end of the pipe."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._last = connection, 0.0

    def step(self, text: str) -> None:
        """A sign of life within a stage."""
        if time.monotonic() - self._last > _STEP_EVERY_S:
            self._last = time.monotonic()
            self.tell(text)

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
